"""The test pictures of a run, from this computer's copy of its data set, as PNG files of a few hundred bytes each."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.report.reading import mapping, read_bytes

FILE = "t10k-images-idx3-ubyte"
_MAGIC = 2051  # of an IDX file of bytes in three dimensions
_MOST_SIDE = 64


class Pictures:
    """Greyscale pictures of an IDX file's bytes."""

    def __init__(self, data: bytes) -> None:
        magic, count, height, width = struct.unpack(">IIII", data[:16]) if len(data) >= 16 else (0, 0, 0, 0)
        sound = magic == _MAGIC and 0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE
        if not sound or len(data) != 16 + count * height * width:
            raise ValueError("not a file of small pictures")
        self.count, self.height, self.width, self._data = count, height, width, data

    def png(self, index: int) -> bytes | None:
        """Picture `index` as a PNG, dark on light as a page is; None if there is no such picture."""
        if not 0 <= index < self.count:
            return None
        size = self.height * self.width
        pixels = self._data[16 + index * size : 16 + (index + 1) * size].translate(_INVERTED)
        rows = (pixels[row * self.width : (row + 1) * self.width] for row in range(self.height))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 0, 0, 0, 0)
        packed = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
        chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)

    def data_url(self, index: int) -> str | None:
        """The same for the `src` of an image."""
        png = self.png(index)
        return None if png is None else "data:image/png;base64," + base64.b64encode(png).decode("ascii")


_INVERTED = bytes(255 - value for value in range(256))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def of(receipt: Mapping[str, Any]) -> Pictures | None:
    """The test pictures that the run with this receipt was tested on, if this computer has that very file.

    Its sha256 must be the one that the job told; where the job told none, no picture is shown.
    """
    wanted = mapping(mapping(receipt.get("data")).get("sha256")).get(FILE)
    if not isinstance(wanted, str):
        return None
    for folder in _folders():
        data = read_bytes(folder / FILE)
        if data is not None and hashlib.sha256(data).hexdigest() == wanted:
            try:
                return Pictures(data)
            except ValueError:
                return None
    return None


def _folders() -> list[Path]:
    """Where the shipped job keeps MNIST on this computer."""
    given = os.environ.get("CLOUDTRAIN_DATA")
    return [*([Path(given)] if given else []), disk.cache_dir() / "data" / "mnist"]
