"""A copy of verified results in another folder (`pull --out`). The run's own folder stays the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, UsageError
from cloudtrain.core.notes import FileEntry
from cloudtrain.run_folder import links

_UNHARMED = "the run's own folder is untouched"


def copy(folder: Path, entries: Sequence[FileEntry], out: Path) -> int:
    """Copy `entries` from the run's `folder` to the same names below `out`, each checked against its sha256.

    A file that is there and equal is left. Each arrives whole, by rename.

    Returns:
        How many were copied now.

    Raises:
        UsageError: `out` is the run's own folder or in it, cannot be written, or has a different file under a name;
            then nothing was copied.
        ArtifactRefused: a file in `folder` is not what it was when it was verified.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise _refused(f"{out} is the run's own folder", "--out with another folder")
    files = [entry.here for entry in entries if entry.link is None]
    # A link leads to what is copied with it, or nowhere.
    entries = [one for one in entries if one.link is None or any(f"{f}/".startswith(f"{one.link}/") for f in files)]
    with _told(out):
        taken = [entry.name for entry in entries if disk.present(out / entry.here) and not _equal(out, entry)]
    if taken:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise _refused(
            f"{', '.join(taken[:3])}{more} in {out}: a different file is there, and none is overwritten",
            "--out with another folder, or move that one away",
        )
    done = 0
    for entry in sorted(entries, key=lambda entry: entry.link is not None):
        with _told(out):
            if not _equal(out, entry):
                _copy_one(folder, out, entry, files)
                done += 1
    return done


def _copy_one(folder: Path, out: Path, entry: FileEntry, files: Sequence[str]) -> None:
    source, target = folder / entry.here, out / entry.here
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if entry.link is not None:
            links.make(out, entry.here, entry.link, files)
            return
        if disk.copy_verified(source, target, entry.sha256, overwrite=False):
            return
    except FileNotFoundError:
        pass
    except FileExistsError as error:
        # Two names that are one on this disk, or somebody else's file that came meanwhile.
        raise _refused(f"{target} is there already", "--out with another folder") from error
    raise ArtifactRefused(
        f"{entry.name} here is not the file that was verified",
        hint="cloudtrain pull checks the results, and fetches damaged ones again",
        consequence="it was not copied",
    )


def _equal(out: Path, entry: FileEntry) -> bool:
    if entry.link is not None:
        return links.leads(out, entry.here, entry.link)
    return disk.holds(out / entry.here, entry.size, entry.sha256)


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Failures of the disk below `out`, as errors that say so."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise _refused(f"{out} cannot be written: {why}", "--out with another folder") from error


def _refused(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, consequence=_UNHARMED, code="cannot_write")
