"""A shell on a run's machine by the computer's own OpenSSH client, trusting the one key that the run has pinned.

Also an entry in the user's OpenSSH configuration, so that `ssh ct-NAME` and editors reach it. The entries are in a file
of our own, `~/.ssh/cloudtrain/config`. The user's file gets one line, with consent: an `Include` at its very top, since
one further down would count only for the host above it, and since editors look for hosts in files that are included
there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import GONE, CloudtrainError, ConnectionFailed, UsageError
from cloudtrain.core.instance import Login
from cloudtrain.lifecycle.session import Session
from cloudtrain.store import Run
from cloudtrain.transport import ssh_config

INCLUDE = "Include cloudtrain/config"
_NOTE = "# Written by cloudtrain: one entry for each run with a machine. Changes here are lost.\n"


@dataclass(frozen=True, slots=True)
class Way:
    """How OpenSSH gets to a run's machine: where it is, who logs in, how, and the file of its pinned key.

    Attributes:
        alias: the name by which that file has the key.
    """

    address: str
    port: int
    user: str
    login: Login
    alias: str
    known_hosts: Path

    def options(self) -> list[tuple[str, str]]:
        """What OpenSSH must and must not do there, by the names of its configuration, as that writes them."""
        login = self.login
        return [
            *(("IdentityFile", _path(file)) for file in login.identities),
            ("IdentitiesOnly", "yes" if login.only else "no"),
            ("IdentityAgent", _path(login.agent or "none")),
            # To the end of the line it is that program's, as it is.
            *([("ProxyCommand", login.through.replace("%", "%%"))] if login.through is not None else []),
            ("HostKeyAlias", self.alias),
            ("StrictHostKeyChecking", "yes"),
            ("UserKnownHostsFile", _path(self.known_hosts)),
            ("GlobalKnownHostsFile", "none"),
            ("UpdateHostKeys", "no"),
            ("ForwardAgent", "no"),
        ]


def way(run: Run, session: Session) -> Way:
    """The way to the machine of `run`; its pinned key is written where OpenSSH can read it.

    Raises:
        UsageError: the run has no machine with SSH.
        ConnectionFailed: its machine is gone.
    """
    machine = session.find()
    instance, login = machine.instance, machine.login()
    if login is None or instance.address is None:
        raise UsageError(f"{run.name} trains on {instance.id}: there is no machine to log in to", code="no_ssh")
    folder = disk.private_dir(disk.state_dir() / "keys" / run.name)
    known = folder / "known_hosts"
    alias = host(run.name)
    disk.write_durably(known, f"{alias} {login.host_key}\n".encode())
    return Way(instance.address, instance.port, login.user or instance.user or "ubuntu", login, alias, known)


def check_there(run: Run, session: Session) -> None:
    """The run's own machine has not ended, as far as AWS can be asked: OpenSSH would only say that nothing answers.

    Raises:
        ConnectionFailed: it has.
    """
    if run.instance is None or not run.instance.owned:
        return
    if session.taken_by is not None:
        session.find()  # says whose it is
    try:
        there = session.provider.find(run.name, session.journal)
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


def forwarding(ports: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of `ssh` by which ports of the machine's own address are ports of this computer's, too, and those, in
    words.

    Args:
        ports: "6006", or "8888:6006" where it is another one here.

    Raises:
        UsageError: one is no port.
    """
    options, told = [], []
    for word in ports:
        here, _, there = word.partition(":")
        there = there or here
        if not all(re.fullmatch(r"[1-9]\d{0,4}", port) and int(port) < 65536 for port in (here, there)):
            raise UsageError(
                f"--forward {word!r} is no port", hint="--forward 6006, or 8888:6006 as 8888 here", code="bad_setting"
            )
        options += ["-L", f"127.0.0.1:{here}:localhost:{there}"]
        told.append(f"port {there} of the machine is http://localhost:{here} here")
    return ["-o", "ExitOnForwardFailure=yes", *options] if options else [], told


def command(run: Run, session: Session, argv: tuple[str, ...] = (), options: Sequence[str] = ()) -> list[str]:
    """The command line of `ssh` for `run`, with further `options`; with `argv` it runs that instead of a shell, see
    `typed_there`.

    Raises:
        UsageError: the run has no machine with SSH, or there is no `ssh` here.
        ConnectionFailed: its machine is gone.
    """
    program = ssh_config.client()
    if program is None:
        raise UsageError(
            "there is no OpenSSH client on this computer",
            hint="install it (Windows: Settings, Optional features, OpenSSH Client)",
            code="no_ssh",
        )
    to = way(run, session)
    line = [program, "-F", "none", "-p", str(to.port)]
    for name, value in to.options():
        line += ["-o", f"{name}={value}"]
    line += [*options, "-l", to.user, to.address]
    return [*line, "--", typed_there(argv)] if argv else line


def typed_there(argv: tuple[str, ...]) -> str:
    """What the shell on the machine is given to read: one word as it is, as by OpenSSH; of several, each is one there,
    too."""
    return argv[0] if len(argv) == 1 else shlex.join(argv)


def _path(path: Path | str) -> str:
    """A path as OpenSSH's configuration wants it: in quotes, and nothing in it is a token or an escape."""
    text = str(path).replace("%", "%%")
    if os.name != "nt":
        text = text.replace("\\", "\\\\")
    text = text.replace('"', '\\"')
    return f'"{text}"'


def host(run: str) -> str:
    """The name by which OpenSSH knows the machine of `run`."""
    return f"ct-{run}"


def user_file() -> Path:
    """The user's own configuration of OpenSSH."""
    return Path.home() / ".ssh" / "config"


def our_file() -> Path:
    """The file of the entries."""
    return user_file().parent / "cloudtrain" / "config"


def included() -> bool:
    """Whether the user's file includes ours, before anything else in it."""
    try:
        lines = user_file().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    first = next((line.strip() for line in lines if line.strip() and not line.strip().startswith("#")), "")
    return re.fullmatch(r"(?i)include\s+\"?(~/\.ssh/)?cloudtrain/config\"?", first) is not None


def include() -> None:
    """Put the line at the top of the user's file; what is in it stays, byte for byte.

    Raises:
        UsageError: the file cannot be written.
    """
    path = user_file()
    try:
        before = path.read_bytes() if path.exists() else b""
        disk.private_dir(path.parent)
        newline = b"\r\n" if b"\r\n" in before else b"\n"
        # A link to the file of a dotfiles folder stays one.
        disk.write_durably(path.resolve(), INCLUDE.encode() + newline + (newline if before else b"") + before)
    except OSError as error:
        raise _refused(path, error) from error


def write(entries: dict[str, Way]) -> None:
    """Make the file hold these entries, by run, and no others.

    Raises:
        UsageError: the file cannot be written.
    """
    path = our_file()
    try:
        disk.private_dir(path.parent)
        disk.write_durably(path, (_NOTE + "".join(_entry(run, way) for run, way in sorted(entries.items()))).encode())
    except OSError as error:
        raise _refused(path, error) from error


def _entry(run: str, way: Way) -> str:
    lines = [("HostName", way.address), ("Port", str(way.port)), ("User", way.user), *way.options()]
    return f"\nHost {host(run)}\n" + "".join(f"    {name} {value}\n" for name, value in lines)


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be written: {error.strerror}",
        hint="cloudtrain ssh RUN logs in without it",
        consequence="nothing was changed",
        code="folder",
    )
