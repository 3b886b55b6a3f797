"""Where cloudtrain keeps its own files here, and how they are written so that no crash leaves half of one."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_CHUNK = 1 << 20


def _folder(kind: str) -> Path:
    home = os.environ.get("CLOUDTRAIN_HOME")
    if home:
        return Path(home).expanduser().absolute() / kind
    import platformdirs

    dirs = platformdirs.PlatformDirs("cloudtrain", appauthor=False)
    return Path({"state": dirs.user_state_dir, "config": dirs.user_config_dir, "cache": dirs.user_cache_dir}[kind])


def state_dir() -> Path:
    """Registry, keys, pinned hosts: what must survive. `CLOUDTRAIN_HOME/state`, else the platform's state folder."""
    return _folder("state")


def config_dir() -> Path:
    """The user's own `config.toml`."""
    return _folder("config")


def cache_dir() -> Path:
    """What can be made again: data set, price refreshes, hashes of synced files."""
    return _folder("cache")


def private_dir(path: Path) -> Path:
    """Make `path` and its parents; only this user may look inside (mode 0700 where modes exist)."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put `data` at `path` whole or not at all: written aside, fsynced, renamed, folder fsynced.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    handle, aside = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(mode)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str | None:
    """Hex sha256 of a file, or None if there is none."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    except FileNotFoundError:
        return None
    return total.hexdigest()


def is_plain(path: Path) -> bool:
    """Whether a plain file is at `path` itself; a link to one is not."""
    with suppress(OSError, ValueError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def is_folder(path: Path) -> bool:
    """Whether a folder is at `path` itself; a link or a Windows junction to one is not."""
    with suppress(OSError, ValueError):
        status = path.lstat()
        reparse = getattr(status, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
        return stat.S_ISDIR(status.st_mode) and not reparse
    return False


def present(path: Path) -> bool:
    """Whether anything is at `path`, a dangling link included."""
    return os.path.lexists(path)
