"""Files that are whole or not there, and a lock between processes."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8) at `path`: written aside under a name ending in `.part`, fsynced, renamed.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o644)
        _rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if os.name != "nt":  # the rename itself; Windows has no such call and needs none
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename(aside: Path, path: Path) -> None:
    """Rename over `path`. Windows refuses while another process reads it, so there it is tried for two seconds."""
    for _ in range(40 if os.name == "nt" else 0):
        try:
            aside.replace(path)
            return
        except PermissionError:
            time.sleep(0.05)
    aside.replace(path)


@contextlib.contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[bool]:
    """Hold the lock file `path`; yields False when another process still holds it after `timeout_s` seconds.

    The lock spares a second download, it does not guard the data: every file arrives whole by `write_whole`. The
    system frees it when the process ends, however it ends.
    """
    with path.open("a+b") as file:
        deadline = time.monotonic() + timeout_s
        held = _try_lock(file.fileno())
        while not held and time.monotonic() < deadline:
            time.sleep(0.1)
            held = _try_lock(file.fileno())
        try:
            yield held
        finally:
            if held:
                _unlock(file.fileno())


if os.name == "nt":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, 0, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
