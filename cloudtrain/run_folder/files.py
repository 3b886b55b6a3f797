"""Files of a run's folder that are read back: events and logs of all its machines, results and their checksums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.notes import FileEntry
from cloudtrain.core.told import EVENTS, read_events
from cloudtrain.run_folder import links
from cloudtrain.run_folder.artifacts import PARTS, place, refusal
from cloudtrain.run_folder.generated import is_derived


def read_attempts(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The events of all machines that a run has been on: `events.1.jsonl`, ... and `events.jsonl` in `folder`."""
    for path in files_of_attempts(folder, EVENTS):
        yield from read_events(path)


def files_of_attempts(folder: Path, name: str) -> list[Path]:
    """`console.1.log`, `console.2.log`, ... as far as there are any, and last the path of `console.log` itself."""
    shelved = (folder / of_attempt(name, number) for number in range(1, 10_000))
    return [*takewhile(disk.is_plain, shelved), folder / name]


def of_attempt(name: str, number: int) -> str:
    """`console.2.log`: what the file `name` of machine `number` is called once there is a later machine."""
    return name.replace(".", f".{number}.")


SUMS = "SHA256SUMS"


def is_here(entry: FileEntry, dest: Path) -> bool:
    """Whether `dest` holds what `entry` describes; False for a name that must not be looked for."""
    if refusal(entry.here) is not None or not is_inside(dest, entry.here):
        return False
    if entry.link is not None:
        return links.leads(dest, entry.here, entry.link)
    return disk.holds(dest / entry.here, entry.size, entry.sha256)


def is_inside(dest: Path, name: str) -> bool:
    """Whether what leads to `name` below `dest` is folders, and no link among them."""
    *above, _ = (dest / name).relative_to(dest).parts
    return all(disk.is_folder(dest.joinpath(*above[: depth + 1])) for depth in range(len(above)))


def apart(entries: Iterable[FileEntry], dest: Path) -> tuple[list[FileEntry], list[FileEntry]]:
    """A host's `entries` under their names here: those that are in `dest`, and those that are not."""
    placed, _ = place(entries, fold_case=disk.ignores_case(dest))
    found: tuple[list[FileEntry], list[FileEntry]] = ([], [])
    for entry in placed:
        found[not is_here(entry, dest)].append(entry)
    return found


def below(folder: Path) -> Iterator[tuple[str, Path]]:
    """What lies below a run's folder, by name: no folders, nothing on its way here, nothing generated."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        aside = name.startswith(PARTS + "/") or name.endswith(".part") or is_derived(path, name)
        if not aside and (path.is_symlink() or not path.is_dir()):
            yield name, path


def sha256sums(dest: Path) -> Path:
    """Write `DEST/SHA256SUMS` for `sha256sum -c`: every plain file below `dest` but `run.json` and what is generated.

    Raises:
        OSError: a file cannot be read, or the list not be written.
    """
    lines = []
    for name, path in below(dest):
        if name not in (SUMS, "run.json") and disk.is_plain(path) and not any(c in name for c in "\\\n\r"):
            lines.append(f"{disk.sha256(path)}  {name}\n")
    disk.write_durably(dest / SUMS, "".join(lines).encode(), mode=0o644)
    return dest / SUMS
