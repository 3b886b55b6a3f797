"""Files of a run's folder that are read back: events and logs of all its machines, results and their checksums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.told import read_events
from cloudtrain.run_folder.artifacts import PARTS, Artifact, refusal
from cloudtrain.run_folder.generated import is_derived


def read_attempts(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The events of all machines that a run has been on: `events.1.jsonl`, ... and `events.jsonl` in `folder`."""
    for path in files_of_attempts(folder, "events.jsonl"):
        yield from read_events(path)


def files_of_attempts(folder: Path, name: str) -> list[Path]:
    """`console.1.log`, `console.2.log`, ... as far as there are any, and last the path of `console.log` itself."""
    path = folder / name
    earlier = []
    for number in range(1, 10_000):
        shelved = path.with_name(f"{path.stem}.{number}{path.suffix}")
        if not shelved.exists():
            break
        earlier.append(shelved)
    return [*earlier, path]


SUMS = "SHA256SUMS"


def is_here(entry: Artifact, dest: Path) -> bool:
    """Whether `dest` holds the file that `entry` describes; False for a name that must not be looked for."""
    return refusal(entry.name) is None and disk.sha256(dest / entry.name) == entry.sha256


def sha256sums(dest: Path) -> Path:
    """Write `DEST/SHA256SUMS` for `sha256sum -c`: every plain file below `dest` but those that are rewritten.

    These are `run.json` and the report.

    Raises:
        OSError: a file cannot be read, or the list not be written.
    """
    lines = []
    for path in sorted(dest.rglob("*")):
        name = path.relative_to(dest).as_posix()
        aside = name.startswith(PARTS + "/") or name.endswith(".part") or name in (SUMS, "run.json")
        aside = aside or is_derived(path, name)
        if aside or path.is_symlink() or not path.is_file() or any(c in name for c in "\\\n\r"):
            continue
        lines.append(f"{disk.sha256(path)}  {name}\n")
    disk.write_durably(dest / SUMS, "".join(lines).encode(), mode=0o644)
    return dest / SUMS
