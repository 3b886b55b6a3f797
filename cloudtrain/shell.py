"""A shell on a run's machine by the computer's own OpenSSH client, trusting the one key that the run has pinned."""

from __future__ import annotations

import shlex
import shutil

from cloudtrain import disk
from cloudtrain.errors import UsageError
from cloudtrain.link import Link
from cloudtrain.store import Run


def command(run: Run, link: Link, argv: tuple[str, ...] = ()) -> list[str]:
    """The command line of `ssh` for `run`; with `argv` it runs that program instead of a shell.

    Raises:
        UsageError: the run has no machine with SSH, or there is no `ssh` here.
        ConnectionFailed: its machine is gone.
    """
    program = shutil.which("ssh")
    if program is None:
        raise UsageError(
            "there is no OpenSSH client on this computer",
            hint="install it (Windows: Settings, Optional features, OpenSSH Client)",
            code="no_ssh",
        )
    instance = link.find()
    login = link.provider.login(instance, link.journal)
    if login is None or instance.address is None:
        raise UsageError(f"{run.name} trains on {instance.id}: there is no machine to log in to", code="no_ssh")
    folder = disk.private_dir(disk.state_dir() / "keys" / run.name)
    known = folder / "known_hosts"
    # OpenSSH looks a port other than 22 up by this form of the address.
    place = instance.address if instance.port == 22 else f"[{instance.address}]:{instance.port}"
    disk.write_durably(known, f"{place} {login.host_key}\n".encode())
    options = {
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "ForwardAgent": "no",
    }
    line = [program, "-F", "none", "-i", str(login.identity), "-p", str(instance.port)]
    for name, value in options.items():
        # ssh splits the value of an option at blanks, as in its configuration file.
        line += ["-o", f'{name}="{value}"' if " " in value else f"{name}={value}"]
    line += ["-l", instance.user or "ubuntu", instance.address]
    return [*line, "--", shlex.join(argv)] if argv else line
