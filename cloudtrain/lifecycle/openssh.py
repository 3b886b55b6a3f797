"""A shell on a run's machine by the computer's own OpenSSH client, trusting the one key that the run has pinned."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import GONE, CloudtrainError, ConnectionFailed, UsageError
from cloudtrain.lifecycle.session import Link
from cloudtrain.store import Run


@dataclass(frozen=True, slots=True)
class Way:
    """How OpenSSH gets to a run's machine: where it is, who logs in by which key, and the file of its pinned key."""

    address: str
    port: int
    user: str
    identity: Path
    known_hosts: Path

    def options(self) -> dict[str, str]:
        """What OpenSSH must and must not do there, by the names of its configuration."""
        return {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "none",
            "UpdateHostKeys": "no",
            "ForwardAgent": "no",
        }


def way(run: Run, link: Link) -> Way:
    """The way to the machine of `run`; its pinned key is written where OpenSSH can read it.

    Raises:
        UsageError: the run has no machine with SSH.
        ConnectionFailed: its machine is gone.
    """
    instance = link.find()
    login = link.provider.login(instance, link.journal)
    if login is None or instance.address is None:
        raise UsageError(f"{run.name} trains on {instance.id}: there is no machine to log in to", code="no_ssh")
    folder = disk.private_dir(disk.state_dir() / "keys" / run.name)
    known = folder / "known_hosts"
    # OpenSSH looks a port other than 22 up by this form of the address.
    place = instance.address if instance.port == 22 else f"[{instance.address}]:{instance.port}"
    disk.write_durably(known, f"{place} {login.host_key}\n".encode())
    return Way(instance.address, instance.port, instance.user or "ubuntu", login.identity, known)


def check_there(run: Run, link: Link) -> None:
    """The run's own machine has not ended, as far as AWS can be asked: OpenSSH would only say that nothing answers.

    Raises:
        ConnectionFailed: it has.
    """
    if run.instance is None or not run.instance.owned:
        return
    try:
        there = link.provider.find(run.name, link.journal)
    except CloudtrainError:
        # Logging in needs no word from AWS, and the machine may well be up.
        return
    if there is None:
        onward = "show {0} says where its results are" if run.state.final else "logs {0} sees what is left of it"
        raise ConnectionFailed(
            f"the machine of {run.name} has ended: there is nothing to log in to",
            hint=f"cloudtrain {onward.format(run.name)}; a new run: cloudtrain rerun {run.name}",
            consequence="nothing of it is billed any more; what was pulled before is here",
            code=GONE,
        )


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
    to = way(run, link)
    line = [program, "-F", "none", "-i", str(to.identity), "-p", str(to.port)]
    for name, value in to.options().items():
        # ssh splits the value of an option at blanks, as in its configuration file.
        line += ["-o", f"{name}={quoted(value)}"]
    line += ["-l", to.user, to.address]
    return [*line, "--", shlex.join(argv)] if argv else line


def quoted(value: str) -> str:
    """A value as OpenSSH's configuration wants it: in quotes where it has blanks."""
    return f'"{value}"' if " " in value else value
