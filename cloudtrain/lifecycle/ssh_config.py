"""An entry in the user's OpenSSH configuration for a run's machine, so that `ssh ct-NAME` and editors reach it.

The entries are in a file of our own, `~/.ssh/cloudtrain/config`. The user's file gets one line, with consent: an
`Include` at its very top, since one further down would count only for the host above it, and since editors look for
hosts in files that are included there.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.lifecycle.openssh import Way, quoted

INCLUDE = "Include cloudtrain/config"
_NOTE = "# Written by cloudtrain: one entry for each run with a machine. Changes here are lost.\n"


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
    lines = {
        "HostName": way.address,
        "Port": str(way.port),
        "User": way.user,
        "IdentityFile": str(way.identity),
        **way.options(),
    }
    return f"\nHost {host(run)}\n" + "".join(f"    {name} {quoted(value)}\n" for name, value in lines.items())


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be written: {error.strerror}",
        hint="cloudtrain ssh RUN logs in without it",
        consequence="nothing was changed",
        code="folder",
    )
