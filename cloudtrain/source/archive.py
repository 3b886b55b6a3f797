"""A gzip tar of chosen files as a stream of chunks, made while it is sent: nothing is held in memory or on disk.

`tarfile` itself streams at level 9 alone until Python 3.12, at 18 MB/s where data does not shrink. Here the blocks
of the tar go through deflate at level 1, and what does not shrink is stored, inside one ordinary gzip member.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cloudtrain.source.tree import FileEntry

# A piece fits one SSH packet of 32 KiB with its header; a byte more, and a second packet is made of the rest.
CHUNK = 31 * 1024
# A stored block of deflate (RFC 1951, 3.2.4) that fills one piece, and its head; 1 MiB of them are read at a time.
_BLOCK = CHUNK - 5
_BLOCK_HEAD = struct.pack("<BHH", 0, _BLOCK, _BLOCK ^ 0xFFFF)
_READ = 33 * _BLOCK
_SAMPLE = 8 * 1024
_WORTH_A_SAMPLE = 16 * 1024
_SHRINKS = 0.9


class Archive:
    """The files of one push; iterate once.

    Attributes:
        changed: path of the first file that was not what its entry says; the stream ends early then, so that the host
            finds it cut off and keeps what it has. None: all was well.
        sent: bytes of the stream so far.
    """

    def __init__(
        self,
        root: Path,
        files: Mapping[str, FileEntry],
        progress: Callable[[int], None],
        begun: Mapping[str, int] | None = None,
    ) -> None:
        """`files`: paths relative to `root` with what is in them; `progress` is called with bytes of files read;
        `begun`: path -> bytes at its beginning that the host has, and that are left out."""
        self.changed: str | None = None
        self.sent = 0
        self._root = root
        self._files = files
        self._progress = progress
        self._begun = begun or {}
        self._crc = 0
        self._length = 0

    def __iter__(self) -> Iterator[bytes]:
        """Chunks of at most CHUNK bytes."""
        held = b""
        for piece in self._gzip():
            if held and len(piece) == CHUNK:
                # A stored block: what is held goes out as a short piece, and no block is copied once more.
                self.sent += len(held)
                yield held
                held = b""
            held += piece
            whole = len(held) - len(held) % CHUNK
            for start in range(0, whole, CHUNK):
                self.sent += CHUNK
                yield held[start : start + CHUNK]
            held = held[whole:]
        if held and self.changed is None:
            self.sent += len(held)
            yield held

    def _gzip(self) -> Iterator[bytes]:
        """One gzip member. A fresh compressor may go on where another was flushed, or where bytes were just stored."""
        yield b"\x1f\x8b\x08" + bytes(6) + b"\xff"
        deflate, used = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS), False
        for shrinks, block in self._tar():
            self._crc = zlib.crc32(block, self._crc)
            self._length += len(block)
            if shrinks:
                used = True
                yield deflate.compress(block)
                continue
            if used:
                yield deflate.flush(zlib.Z_FULL_FLUSH)
                deflate, used = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS), False
            yield from _stored(block)
        if self.changed is None:
            yield deflate.flush(zlib.Z_FINISH)
            yield struct.pack("<LL", self._crc, self._length & 0xFFFFFFFF)

    def _tar(self) -> Iterator[tuple[bool, bytes]]:
        """Pieces of the tar, each with whether compressing it pays."""
        for path in sorted(self._files):
            entry = self._files[path]
            info = tarfile.TarInfo(path)
            info.size, info.mode = entry.size - self._begun.get(path, 0), entry.mode
            yield True, info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
            yield from self._content(path, entry)
            if self.changed is not None:
                return
            yield True, bytes(-info.size % tarfile.BLOCKSIZE)
        yield True, bytes(2 * tarfile.BLOCKSIZE)

    def _content(self, path: str, entry: FileEntry) -> Iterator[tuple[bool, bytes]]:
        """A file's bytes, checked against `entry` on the way: never more than it names, and the hash last."""
        total, left, shrinks, there = hashlib.sha256(), entry.size, None, self._begun.get(path, 0)
        try:
            with (self._root / path).open("rb") as file:
                while chunk := file.read(min(_READ, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        break
                    if shrinks is None:
                        shrinks = _shrinks(chunk)
                    total.update(chunk)
                    self._progress(len(chunk))
                    skipped = min(there, len(chunk))
                    there -= skipped
                    yield shrinks, chunk[skipped:] if skipped else chunk
        except OSError:  # gone, or no longer readable
            left = -1
        if left != 0 or total.hexdigest() != entry.sha256:
            self.changed = path


def _shrinks(start: bytes) -> bool:
    """Whether compressing a file pays, by trying with 8 KiB from the middle of its first piece."""
    if len(start) < _WORTH_A_SAMPLE:
        return True
    middle = (len(start) - _SAMPLE) // 2  # the start is often a header that is not like the rest
    sample = start[middle : middle + _SAMPLE]
    return len(zlib.compress(sample, 1)) < _SHRINKS * len(sample)


def _stored(data: bytes) -> Iterator[bytes]:
    """`data` as blocks of deflate that hold it as it is, most of them one piece long: it is copied once."""
    view = memoryview(data)
    for start in range(0, len(view), _BLOCK):
        part = view[start : start + _BLOCK]
        size = len(part)
        yield b"".join((_BLOCK_HEAD if size == _BLOCK else struct.pack("<BHH", 0, size, size ^ 0xFFFF), part))
