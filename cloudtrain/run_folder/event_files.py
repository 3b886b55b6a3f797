"""Scalars of TensorBoard's event files, decoded with TensorBoard's own package (extra `tensorboard`).

A program wrote them, and may write on. So a file is read record by record from where it was read before; what is no
scalar is passed over, what is damaged ends the reading of that file, and nothing here ever fails.
"""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cloudtrain.core import disk
from cloudtrain.core.figures import BOARD, Row, row

MARK = "tfevents"
"""What the name of an event file holds."""

MOST_FILES = 100
# Bytes of the largest record that can be a scalar; pictures, graphs and histograms are passed over unread.
MOST_RECORD = 64 * 1024
# Bytes that are read in one go, of all files together.
MOST_BYTES = 8 * 2**20
_HEAD = struct.Struct("<QI")  # of a record: length, and the checksum of these 8 bytes; behind it is one of the data
_FLOAT, _DOUBLE = 1, 2  # of a tensor's `dtype`
_Scalar = tuple[float, int, str, float]  # its time, step, tag and value
_SCALARS = "scalars"  # the plugin whose tensors are single numbers


def readable() -> bool:
    """Whether the package that reads them is installed here."""
    return importlib.util.find_spec("tensorboard") is not None


def among(names: Iterable[str]) -> list[str]:
    """Those of the files called so that are event files, in order."""
    return sorted(name for name in names if MARK in PurePosixPath(name).name)[:MOST_FILES]


class EventFiles:
    """The event files of a run, as they grow. A tag that several folders have counts as the first one's under its own
    name, as another's with that folder's name before it.

    Attributes:
        behind: the last look has left some of what is there for the next.
        cut: it has, or there are more files than are looked at.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, _EventFile] = {}
        self._owners: dict[str, PurePosixPath] = {}
        self.cut = self.behind = False

    def news(self, names: Iterable[str]) -> list[Row]:
        """The rows in those of `names`, below the run's folder, that were not given before."""
        found, left, files = [], MOST_BYTES, among(names)
        for name in files if files and readable() else ():
            file = self._files.setdefault(name, _EventFile(self._folder / name))
            told, taken = file.news(left)
            left -= taken
            found += self._rows(name, told)
        self.behind = left <= 0
        self.cut = self.behind or len(files) == MOST_FILES
        return found

    def fed(self, name: str, offset: int, data: bytes) -> list[Row]:
        """The rows that are new with the bytes `data`, from `offset` on, of one that is not in the folder yet."""
        if not (among([name]) and readable()):
            return []
        file = self._files.setdefault(name, _EventFile(self._folder / name))
        return self._rows(name, file.fed(offset, data))

    def _rows(self, name: str, told: Iterable[_Scalar]) -> list[Row]:
        rows = []
        for at, step, tag, value in told:
            one = row({"step": step, self._called(tag, PurePosixPath(name).parent): value, "t": at}, BOARD)
            rows += [one] if one else []
        return rows

    def _called(self, tag: str, folder: PurePosixPath) -> str:
        owner = self._owners.setdefault(tag, folder) if len(self._owners) < 10_000 else folder
        return tag if owner == folder else f"{folder.name}/{tag}"


class _EventFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0  # bytes of it that whole records have taken
        self._rest = b""  # what has been fed beyond them
        self._damaged = False
        self._tags: set[str] = set()

    def news(self, most: int) -> tuple[list[_Scalar], int]:
        """What is new in the file itself, and how many bytes were read for that, at most about `most`."""
        try:
            with disk.plain(self._path) as file:
                if file.seek(0, 2) < self._read:  # another file by now
                    self._read, self._damaged = 0, False
                self._rest = b""
                file.seek(self._read)
                return self._records(file, most)
        except OSError:
            return [], 0

    def fed(self, offset: int, data: bytes) -> list[_Scalar]:
        """What is new with `data`; nothing, where that leaves a gap or ends a record that is too large to be held."""
        lacks = self._read + len(self._rest) - offset
        if lacks < 0 or len(self._rest) > MOST_BYTES:
            return []
        held = io.BytesIO(self._rest + data[lacks:])
        found, _ = self._records(held, MOST_BYTES)
        self._rest = b"" if self._damaged else held.read()
        return found

    def _records(self, file: BinaryIO, most: int) -> tuple[list[_Scalar], int]:
        found, taken = list[_Scalar](), 0
        while not self._damaged and taken < most:
            begins = file.tell()
            data = self._record(file)
            if data is None:
                file.seek(begins)
                break
            self._read += file.tell() - begins
            found += self._scalars(data)
            taken += _HEAD.size + len(data)
        return found, taken

    def _record(self, file: BinaryIO) -> bytes | None:
        """The data of the next record, b"" for one that is too large for a scalar; None: it is not here yet."""
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if _masked_crc(head[:8]) != checksum:
            self._damaged = True
            return None
        if length > MOST_RECORD:
            ends = file.tell() + length + 4
            return b"" if file.seek(0, 2) >= ends and file.seek(ends) else None
        data = file.read(length + 4)
        return data[:-4] if len(data) == length + 4 else None

    def _scalars(self, data: bytes) -> list[_Scalar]:
        event = _event()
        try:
            event.ParseFromString(data)
        except Exception:  # whatever that package makes of damage
            return []
        told = [(value.tag, self._scalar(value)) for value in event.summary.value]
        return [(event.wall_time, event.step, tag, scalar) for tag, scalar in told if scalar is not None]

    def _scalar(self, value: Any) -> float | None:
        """The number that a summary's value is; TensorFlow 2 and others write a tensor, and its plugin once."""
        if value.HasField("simple_value"):
            return _short(value.simple_value)
        if value.metadata.plugin_data.plugin_name == _SCALARS and len(self._tags) < 10_000:
            self._tags.add(value.tag)
        if not value.HasField("tensor") or value.tag not in self._tags:
            return None
        tensor = value.tensor
        told, code = (tensor.double_val, "<d") if tensor.dtype == _DOUBLE else (tensor.float_val, "<f")
        if tensor.dtype not in (_FLOAT, _DOUBLE):
            return None
        if len(told) == 1:
            return _short(told[0]) if code == "<f" else float(told[0])
        content = tensor.tensor_content
        if len(content) != struct.calcsize(code):
            return None
        found: float = struct.unpack(code, content)[0]
        return _short(found) if code == "<f" else found


def _short(value: float) -> float:
    """What was written in 4 bytes as its author saw it: 2.2, not 2.200000047683716."""
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        with suppress(OverflowError):
            if struct.pack("<f", short) == struct.pack("<f", value):
                return short
    return value


def _event() -> Any:
    # Here alone, since it takes a while and nearly no command needs it.
    from tensorboard.compat.proto.event_pb2 import Event

    return Event()


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _masked_crc(data: bytes) -> int:
    """CRC-32C as records have it: rotated and moved, so that a checksum of checksums is none."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
