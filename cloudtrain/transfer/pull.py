"""The pull: finished files of a run, from the host into its folder here, each whole and verified or not there at all.

What arrives is decided by the host's manifest and the user's patterns, never by what a stream says. A file grows as
`DEST/.pull/HASH.part`, is checked against the manifest's size and sha256, fsynced, renamed. So a power cut, a full disk
or a kill -9 leaves parts, which the next pull resumes, and never a half-written file under its own name.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import filelock

from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, Busy
from cloudtrain.core.events import Emit
from cloudtrain.core.text import counted
from cloudtrain.run_folder.artifacts import PARTS, Artifact, collisions, refusal
from cloudtrain.source import ignore
from cloudtrain.transfer.download import Fetcher, Read, full_disk_told

WAIT_FOR_OTHER_S = 60.0


E = TypeVar("E", bound=Artifact)


@dataclass(frozen=True, slots=True)
class PullReport(Generic[E]):
    """What a pull did.

    Attributes:
        files: entries whose file is here and verified, whether fetched now or before.
        bytes: fetched by this call.
        skipped: names that `outputs` leaves out.
    """

    files: tuple[E, ...] = ()
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)

    def summary(self, folder: Path) -> str:
        """For people, as the end of the step's line."""
        count = counted(len(self.files), "file")
        left = f", {len(self.skipped)} left on the host" if self.skipped else ""
        return f"{count}, {sum(entry.size for entry in self.files) / 2**20:.1f} MiB verified in {folder}{left}"


def pull(
    read: Read,
    entries: Sequence[E],
    dest: Path,
    *,
    outputs: Sequence[str] = ("**",),
    emit: Emit,
) -> PullReport[E]:
    """Bring the files that `entries` names and `outputs` allows into `dest`, small ones first.

    A file that is here already, equal to its entry, is not fetched. One file that cannot be had does not keep the
    others from coming: it is reported once all of them are here.

    Args:
        outputs: gitignore-style patterns of the names to bring; a later one wins, `!` leaves out.

    Raises:
        ArtifactRefused: a file is not what the manifest says, or its name must not be written. All others are here.
        ConnectionFailed: the link broke, or the disk here is full (code `disk_full`). What is here is whole; call
            again.
        Busy: another command has been pulling into `dest` for a minute.
    """
    fetcher = Fetcher(read, dest, emit)
    skipped: list[str] = []
    refused: list[tuple[str, str]] = []
    verified: list[E] = []
    with _alone(dest) as fold_case:
        wanted = _wanted(entries, ignore.parse("\n".join(outputs), "outputs"), skipped, refused)
        clashes = collisions([entry.name for entry in wanted], fold_case=fold_case)
        fetcher.total = sum(entry.size for entry in wanted)
        for index, entry in enumerate(wanted):
            if index in clashes:
                refused.append((repr(entry.name), clashes[index]))
                continue
            try:
                fetcher.fetch(entry)
                verified.append(entry)
            except ArtifactRefused as error:
                refused.append((repr(entry.name), error.message))
    if refused:
        raise _not_taken(refused)
    return PullReport(tuple(verified), fetcher.bytes, skipped)


def _wanted(
    entries: Sequence[E], rules: Sequence[ignore.Rule], skipped: list[str], refused: list[tuple[str, str]]
) -> list[E]:
    """The entries to fetch, small ones first; fills `skipped` and `refused` with the others."""
    wanted: list[E] = []
    for entry in entries:
        reason = refusal(entry.name)
        if reason is not None:
            refused.append((repr(entry.name), reason))
        elif not _allowed(rules, entry.name):
            skipped.append(entry.name)
        elif type(entry.size) is not int or entry.size < 0 or not disk.is_sha256(entry.sha256):
            refused.append((repr(entry.name), "the manifest has no valid size and sha256 for it"))
        else:
            wanted.append(entry)
    return sorted(wanted, key=lambda entry: (entry.size, entry.name))


def _not_taken(refused: Sequence[tuple[str, str]]) -> ArtifactRefused:
    name, reason = refused[0]
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return ArtifactRefused(
        f"{name} was not taken: {reason}{more}",
        consequence="the copy on the host is untouched; every other file is here and verified",
        hint="look at it there, then pull again",
        detail="\n".join(f"{name}: {reason}" for name, reason in refused) if more else None,
    )


def _allowed(rules: Sequence[ignore.Rule], name: str) -> bool:
    """Whether the last of `rules` that speaks of `name`, or of a folder it lies in, lets it through."""
    parts = name.split("/")
    paths = [("/".join(parts[:depth]).encode(), depth < len(parts)) for depth in range(1, len(parts) + 1)]
    for rule in reversed(rules):
        if any(rule.matches(path, is_dir=is_dir) for path, is_dir in paths):
            return not rule.negated
    return False


@contextmanager
def _alone(dest: Path) -> Iterator[bool]:
    """Keep other pulls out of `dest`; yields whether its file system ignores case.

    Parts of a pull that fails stay for the next one; after one that went well nothing of it is left.

    Raises:
        Busy: another pull has it.
    """
    folder = dest / PARTS
    lock = filelock.FileLock(folder / "lock", timeout=0)
    deadline = time.monotonic() + WAIT_FOR_OTHER_S
    while True:
        with full_disk_told(dest):
            if disk.present(folder) and not disk.is_folder(folder):
                raise NotADirectoryError(errno.ENOTDIR, f"{PARTS} in it is not a folder")
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
                break
            except FileNotFoundError:  # another pull has just tidied the folder away
                pass
            except filelock.Timeout:
                pass
        if time.monotonic() >= deadline:
            raise Busy(
                f"another command is pulling into {dest}",
                hint="let it end, then pull again",
                consequence="this one changed nothing",
            )
        time.sleep(0.05)
    try:
        yield (folder / "LOCK").exists()
        for part in folder.glob("*.part"):  # of versions that are no longer asked for
            part.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            if os.name != "nt" and not any(folder.glob("*.part")):
                (folder / "lock").unlink()  # while it is held: whoever waits for it sees that it is gone
                folder.rmdir()
        lock.release()
