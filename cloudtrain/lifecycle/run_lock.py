"""Only one command acts on a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from cloudtrain.core import disk
from cloudtrain.core.errors import Busy


@contextmanager
def claim(name: str) -> Iterator[None]:
    """Only one command acts on a run at a time. The operating system drops the lock of a killed one."""
    folder = disk.private_dir(disk.state_dir() / "locks")
    lock = filelock.FileLock(folder / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Busy(
            f"another command is acting on {name}",
            hint=f"cloudtrain logs {name} follows it, reading only",
            consequence="this one changed nothing",
        ) from error
    try:
        yield
    finally:
        lock.release()
