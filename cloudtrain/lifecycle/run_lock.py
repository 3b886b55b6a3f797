"""Only one command acts on a run, and a new one's folder is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from cloudtrain.core import disk
from cloudtrain.core.errors import Busy, UsageError


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


def check_folder(folder: Path) -> None:
    """The run's folder can be made. Found out before anything costs money.

    Raises:
        UsageError: it cannot, or is there already.
    """
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe = parent / f".{folder.name}.writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{parent} cannot be written: {error.strerror}",
            hint="make the folder writable, or set runs_dir to another one",
            consequence="nothing was started",
            code="folder",
        ) from error
    if folder.exists():
        raise UsageError(
            f"{folder} exists already",
            hint="choose another --name, or move that folder away",
            consequence="nothing was started",
            code="name_taken",
        )
