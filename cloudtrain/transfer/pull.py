"""The pull: finished files of a run, from the host into its folder here, each whole and verified or not there at all.

What arrives is decided by the host's manifest and the user's patterns, never by what a stream says. A file grows as
`DEST/.pull/HASH.part`, is checked against the manifest's size and sha256, fsynced, renamed. So a power cut, a full disk
or a kill -9 leaves parts, which the next pull resumes, and never a half-written file under its own name.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, Busy, UsageError
from cloudtrain.core.events import Emit, Noted, Warned
from cloudtrain.core.notes import UNREAD, FileEntry
from cloudtrain.core.text import counted, screen_safe, shortened
from cloudtrain.run_folder import files, result_groups
from cloudtrain.run_folder.artifacts import PARTS, place
from cloudtrain.source import ignore
from cloudtrain.transfer.download import Fetcher, Host, full_disk_told

WAIT_FOR_OTHER_S = 60.0
MOST_TOLD = 5
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did.

    Attributes:
        files: entries whose file is here and verified, whether fetched now or before.
        bytes: fetched by this call.
        skipped: names that `outputs` leaves out.
        left: names that cannot be here, and links that lead to nothing here, each with the reason.
        beyond: entries that are not here because there are more bytes than was allowed.
        unread: whether a hash is lacking for a file that was to come, or that may be here.
    """

    files: tuple[FileEntry, ...] = ()
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)
    left: tuple[tuple[str, str], ...] = ()
    beyond: tuple[FileEntry, ...] = ()
    unread: bool = False

    def summary(self, folder: Path) -> str:
        """Human-readable, as the end of the step's line."""
        count = counted(len(self.files), "file")
        behind = len(self.skipped) + len(self.left) + len(self.beyond)
        left = f", {behind} left on the host" if behind else ""
        return f"{count}, {sum(entry.size for entry in self.files) / 2**20:.1f} MiB verified in {folder}{left}"


def pull(
    host: Host,
    entries: Sequence[FileEntry],
    dest: Path,
    *,
    outputs: Sequence[str] = ("**",),
    only: Sequence[str] = (),
    most: float | None = None,
    emit: Emit,
) -> PullReport:
    """Bring the files that `entries` names and `outputs` allows into `dest`, small ones first, then links to them.

    One file that cannot be had does not keep the others from coming: it is reported once all of them are here. A name
    keeps nothing from coming: a file whose name must not be used here arrives under another, which is noted. So is what
    cannot arrive: a link that leads to no result, a name that no file can have.

    Args:
        entries: the whole manifest.
        outputs: gitignore-style patterns of the names to bring; a later one wins, `!` leaves out.
        only: groups of results (`result_groups`); empty: all of them.
        most: bytes; what is beyond them stays there, the largest files first.

    Raises:
        ArtifactRefused: a file is not what the manifest says, or something here is in its way. All others are here.
        ConnectionFailed: the link broke, or the disk here is full (code `disk_full`). What is here is whole; call
            again.
        Busy: another command has been pulling into `dest` for a minute.
    """
    fetcher = Fetcher(host, dest, emit)
    with _alone(dest):
        placed, left = place(entries, fold_case=disk.ignores_case(dest))
        if only:
            placed = result_groups.chosen(placed, only)
        chosen = wanted(placed, outputs)
        beyond = dict.fromkeys(_beyond(chosen, most, dest) if most is not None else ())
        unread = [entry for entry in chosen if entry.sha256 == UNREAD]
        fetcher.fetch([one for one in chosen if one.link is None and one.sha256 != UNREAD and one not in beyond])
        left += fetcher.link([entry for entry in chosen if entry.link is not None])
    _tell(emit, fetcher.verified, left)
    if fetcher.refused:
        raise _not_taken(fetcher.refused)
    taken = set(chosen)
    skipped = [entry.name for entry in placed if entry not in taken]
    lacks = any(entry not in beyond or _size(dest / entry.here) == entry.size for entry in unread)
    return PullReport(tuple(fetcher.verified), fetcher.bytes, skipped, tuple(left), tuple(beyond), lacks)


def _tell(emit: Emit, taken: Sequence[FileEntry], left: Sequence[tuple[str, str]]) -> None:
    """What is not here, and what is called otherwise."""
    if left:
        emit(Warned(f"left there: {some([f'{shortened(name)}, {shortened(why, 300)}' for name, why in left])}"))
    if renamed := [f"{shortened(one.name)} is {one.here}" for one in taken if one.stored is not None]:
        emit(Noted(f"renamed here, where their names cannot be stored or would be acted on: {some(renamed)}"))


def some(told: Sequence[str]) -> str:
    """The first of them, fit for a screen, and how many more there are."""
    more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return screen_safe("; ".join(told[:MOST_TOLD])) + more


def _not_taken(refused: Sequence[tuple[str, str]]) -> ArtifactRefused:
    name, reason = refused[0]
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return ArtifactRefused(
        f"{name} was not taken: {reason}{more}",
        consequence="the copy on the host is untouched; every other file is here and verified",
        hint="look at it there, then pull again",
        detail="\n".join(f"{name}: {reason}" for name, reason in refused[:_MOST_LISTED]) if more else None,
    )


def wanted(entries: Iterable[FileEntry], outputs: Sequence[str]) -> list[FileEntry]:
    """Those of `entries` that the user's patterns let through."""
    try:
        rules = ignore.parse("\n".join(outputs), "outputs")
    except UsageError:
        # Refused in a plan; an earlier release took it, and a pattern is no reason to leave a result behind.
        rules = ignore.parse("**", "outputs")
    return [entry for entry in entries if allowed(rules, entry.name)]


def _size(path: Path) -> int | None:
    return path.stat().st_size if disk.is_plain(path) else None


def _beyond(entries: Iterable[FileEntry], most: float, dest: Path) -> list[FileEntry]:
    """Those that are not in `dest` and would be more than so many bytes, if the smallest come first."""
    beyond = []
    for entry in sorted(entries, key=lambda entry: (entry.size, entry.name)):
        if entry.link is None:
            most -= max(0, entry.size)
            beyond += [entry] if most < 0 and not files.is_here(entry, dest) else []
    return beyond


def allowed(rules: Sequence[ignore.Rule], name: str) -> bool:
    """Whether the last of `rules` that speaks of `name`, or of a folder it lies in, lets it through."""
    last = next((rule for rule in reversed(rules) if rule.covers(name)), None)
    return last is not None and not last.negated


@contextmanager
def _alone(dest: Path) -> Iterator[None]:
    """Keep other pulls out of `dest`.

    Parts of a pull that fails stay for the next one; after one that went well nothing of it is left.

    Raises:
        Busy: another pull has it.
    """
    folder = dest / PARTS
    lock = filelock.FileLock(folder / "lock", timeout=0)
    deadline = time.monotonic() + WAIT_FOR_OTHER_S
    while True:
        with full_disk_told(dest):
            if disk.in_the_way(folder):
                raise NotADirectoryError(errno.ENOTDIR, f"{PARTS} in it is not a folder")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                break
            except (FileNotFoundError, FileExistsError):
                pass  # another pull has just tidied the folder away: `mkdir` may find it there, and then not
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
        yield
        for part in folder.glob("*.part"):  # of versions that are no longer asked for
            part.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            if os.name != "nt" and not any(folder.glob("*.part")):
                (folder / "lock").unlink()  # while it is held: whoever waits for it sees that it is gone
                folder.rmdir()
        lock.release()
