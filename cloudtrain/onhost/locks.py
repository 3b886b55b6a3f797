"""Locks on files, which a process that dies lets go of."""

from __future__ import annotations

import errno
import os
import sys
import time

from .base import TYPE_CHECKING

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from typing import Optional


def try_lock(handle: int, shared: bool, byte: int = 0) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(handle, byte, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def unlock(handle: int, byte: int = 0) -> None:
    if sys.platform == "win32":
        os.lseek(handle, byte, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_UN)


def take(path: str, wait: float = 0.0, shared: bool = False, byte: int = 0) -> Optional[int]:
    """Lock `path`; the descriptor, or None where another process holds it for longer than `wait` seconds.

    On POSIX the lock belongs to the open file: a process that inherits the descriptor keeps it held. On Windows it
    belongs to this process alone.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    end = time.monotonic() + wait
    while not try_lock(handle, shared, byte):
        # Whoever only looks (`held`) has it shared for an instant. That is nobody's run, so it is no reason to give up.
        passing = sys.platform != "win32" and not shared and try_lock(handle, True)
        if passing:
            unlock(handle)
        if time.monotonic() >= end + (5 if passing else 0):
            os.close(handle)
            return None
        time.sleep(0.005)
    return handle


def held(path: str) -> bool:
    """Whether a living process has `path` locked for itself."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        # Two processes that look at once disturb each other on Windows, which has no shared lock: look three times.
        for _ in range(3 if os.name == "nt" else 1):
            free = all(try_lock_briefly(handle, byte) for byte in ((0, 1) if os.name == "nt" else (0,)))
            if free:
                return False
            if os.name == "nt":
                time.sleep(0.01)
        return True
    finally:
        os.close(handle)


def try_lock_briefly(handle: int, byte: int) -> bool:
    free = try_lock(handle, True, byte)
    if free:
        unlock(handle, byte)
    return free
