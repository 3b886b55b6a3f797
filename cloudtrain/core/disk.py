"""Where cloudtrain keeps its own files here, and how they are written so that no crash leaves half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import BinaryIO

from cloudtrain.core.errors import UsageError

_CHUNK = 1 << 20


def _folder(kind: str) -> Path:
    home = os.environ.get("CLOUDTRAIN_HOME")
    with suppress(RuntimeError):
        if home:
            return Path(home).expanduser().absolute() / kind
        import platformdirs

        dirs = platformdirs.PlatformDirs("cloudtrain", appauthor=False)
        folder = Path(getattr(dirs, f"user_{kind}_dir"))
        if folder.parts[0] != "~":
            return folder
    raise UsageError(
        "this user has no home folder, so there is no place for the list of runs",
        hint="CLOUDTRAIN_HOME=FOLDER names one that is yours alone",
        consequence="nothing was changed",
        code="no_home",
    )


def state_dir() -> Path:
    """Registry, keys, pinned hosts: what must survive. `CLOUDTRAIN_HOME/state`, else the platform's state folder.

    Raises (and so do the other two):
        UsageError: the user has no home, and CLOUDTRAIN_HOME names none.
    """
    return _folder("state")


def config_dir() -> Path:
    """The user's own `config.toml`."""
    return _folder("config")


def cache_dir() -> Path:
    """What can be made again: data set, price refreshes, hashes of synced files."""
    return _folder("cache")


def private_dir(path: Path) -> Path:
    """Make `path` and its parents; only this user may look inside (mode 0700 where modes exist), also if it was there.

    Raises:
        OSError: it cannot be made, or it is another user's, who may have put anything into it.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name != "nt":
        status = path.stat()
        # In a container, root often works in folders of the user outside.
        if os.geteuid() not in (0, status.st_uid):
            raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
        if status.st_mode & 0o077:
            path.chmod(0o700)
    return path


def private_file(path: Path) -> None:
    """Make `path`, empty, if it is not there; only this user may read it (mode 0600 where modes exist).

    Raises:
        OSError: it cannot be made.
    """
    # One that is there is not opened: to close it would free what this process has locked of it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    if os.name != "nt" and path.stat().st_mode & 0o077:
        path.chmod(0o600)


class Discard(Exception):
    """For whoever writes in `written` and finds that it is not wanted."""


@contextmanager
def written(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """What is written here is at `path` whole or not at all: written aside, fsynced, renamed, folder fsynced.

    Args:
        mode: None: as this user's files are made.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    aside = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")
    first = 0o666 if mode is None else 0o600
    try:
        with open(aside, "xb", opener=lambda name, flags: os.open(name, flags, first)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            aside.chmod(mode)
        aside.replace(path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put `data` at `path`; see `written`."""
    with written(path, mode=mode) as file:
        file.write(data)


def copy_verified(source: Path, path: Path, digest: str, *, overwrite: bool = True) -> bool:
    """Copy `source` to `path`, if this is its sha256; False: it is not, and nothing was done.

    Raises:
        FileExistsError: something is at `path`, which is not to be overwritten.
        OSError: `source` cannot be read, or `path` not be written; it is as it was.
    """
    total = hashlib.sha256()
    with suppress(Discard), plain(source) as reading, written(path) as writing:
        while chunk := reading.read(_CHUNK):
            total.update(chunk)
            writing.write(chunk)
        if total.hexdigest() != digest:
            raise Discard
        if not overwrite and present(path):
            raise FileExistsError(path)
        return True
    return False


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(path: Path) -> BufferedReader:
    """Open the plain file at `path` itself: in a folder that others may write, no link is followed and no FIFO waited
    for.

    Raises:
        FileNotFoundError: none is there.
        OSError: it cannot be opened.
    """
    return open(path, "rb", opener=_plain_only)


def plain_to_append(path: Path) -> BufferedWriter:
    """The same for writing at its end; it is made if nothing is there."""
    return open(path, "ab", opener=_plain_only)


def _plain_only(name: str, flags: int) -> int:
    path = Path(name)
    if not present(path) or is_plain(path):
        handle = os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    raise FileNotFoundError(errno.ENOENT, "no plain file is there", name)


def sha256(path: Path) -> str | None:
    """Hex sha256 of a plain file, or None if there is none."""
    with suppress(FileNotFoundError), plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def is_sha256(value: object) -> bool:
    """Whether `value` has the form of such a hash."""
    return type(value) is str and len(value) == 64 and not set(value) - set("0123456789abcdef")


def ignores_case(folder: Path) -> bool:
    """Whether the file system of `folder`, which is there, sees its name in other letters as the same."""
    other = folder.with_name(folder.name.swapcase())
    return other.name != folder.name and other.exists() and other.samefile(folder)


def holds(path: Path, size: int, digest: str) -> bool:
    """Whether a plain file of `size` bytes with this sha256 is at `path`."""
    return is_plain(path) and path.stat().st_size == size and sha256(path) == digest


def is_plain(path: Path) -> bool:
    """Whether a plain file is at `path` itself; a link to one is not."""
    with suppress(OSError, ValueError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def is_folder(path: Path) -> bool:
    """Whether a folder is at `path` itself; a link or a Windows junction to one is not."""
    return _is_folder(path) is True


def in_the_way(path: Path) -> bool:
    """Whether anything but a folder is at `path` itself. By one look: other programs may make and remove it."""
    return _is_folder(path) is False


def _is_folder(path: Path) -> bool | None:
    """None: nothing can be seen there."""
    with suppress(OSError, ValueError):
        status = path.lstat()
        reparse = getattr(status, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
        return stat.S_ISDIR(status.st_mode) and not reparse
    return None


def present(path: Path) -> bool:
    """Whether anything is at `path`, a dangling link included."""
    return os.path.lexists(path)
