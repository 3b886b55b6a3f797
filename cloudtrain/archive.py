"""A gzip tar of chosen files as a stream of chunks, made while it is sent: nothing is held in memory or on disk.

Python's `tarfile` writes 83 MB/s and `gzip` cannot change its mind about a level; here the tar blocks are laid out
directly, and what does not shrink is stored instead of compressed, inside one ordinary gzip member.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cloudtrain.tree import FileEntry

# An SSH library slices what it is handed once more for every packet: 32 to 64 KiB a piece is fastest there.
CHUNK = 32 * 1024
_READ = 256 * 1024
_SAMPLE = 8 * 1024
_WORTH_A_SAMPLE = 16 * 1024
_SHRINKS = 0.9
_COMPRESSED = {".7z", ".bz2", ".gz", ".lz4", ".tgz", ".whl", ".xz", ".zip", ".zst"}  # archives
_COMPRESSED |= {
    ".avif",
    ".gif",
    ".heic",
    ".jpeg",
    ".jpg",
    ".mkv",
    ".mov",
    ".mp3",
    ".mp4",
    ".ogg",
    ".png",
    ".webm",
    ".webp",
}
_COMPRESSED |= {".npz", ".parquet"}


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
    ) -> None:
        """`files`: paths relative to `root` with what is in them; `progress` is called with bytes of files read."""
        self.changed: str | None = None
        self.sent = 0
        self._root = root
        self._files = files
        self._progress = progress
        self._crc = 0
        self._length = 0

    def __iter__(self) -> Iterator[bytes]:
        """Chunks of at most CHUNK bytes."""
        pending = b""
        for piece in self._gzip():
            pending += piece
            if len(pending) < CHUNK:
                continue
            whole = len(pending) - len(pending) % CHUNK
            for start in range(0, whole, CHUNK):
                self.sent += CHUNK
                yield pending[start : start + CHUNK]
            pending = pending[whole:]
        if pending and self.changed is None:
            self.sent += len(pending)
            yield pending

    def _gzip(self) -> Iterator[bytes]:
        """One gzip member. A fresh compressor may go on where another was flushed, so the level can change midway."""
        yield b"\x1f\x8b\x08" + bytes(6) + b"\xff"
        level, deflate = 1, zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        for shrinks, block in self._tar():
            self._crc = zlib.crc32(block, self._crc)
            self._length += len(block)
            if shrinks is not None and level != shrinks:
                yield deflate.flush(zlib.Z_FULL_FLUSH)
                level = int(shrinks)
                deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
            yield deflate.compress(block)
        if self.changed is None:
            yield deflate.flush(zlib.Z_FINISH)
            yield struct.pack("<LL", self._crc, self._length & 0xFFFFFFFF)

    def _tar(self) -> Iterator[tuple[bool | None, bytes]]:
        """Pieces of the tar, each with whether it is expected to shrink; None where it is too small to matter."""
        for path in sorted(self._files):
            entry = self._files[path]
            info = tarfile.TarInfo(path)
            info.size, info.mode = entry.size, entry.mode
            yield None, info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
            yield from self._content(path, entry)
            if self.changed is not None:
                return
            yield None, bytes(-entry.size % tarfile.BLOCKSIZE)
        yield None, bytes(2 * tarfile.BLOCKSIZE)

    def _content(self, path: str, entry: FileEntry) -> Iterator[tuple[bool, bytes]]:
        """A file's bytes, checked against `entry` on the way: never more than it names, and the hash last."""
        total, left, shrinks = hashlib.sha256(), entry.size, None
        try:
            with (self._root / path).open("rb") as file:
                while chunk := file.read(min(_READ, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        break
                    if shrinks is None:
                        shrinks = _shrinks(path, chunk)
                    total.update(chunk)
                    self._progress(len(chunk))
                    yield shrinks, chunk
        except OSError:  # gone, or no longer readable
            left = -1
        if left != 0 or total.hexdigest() != entry.sha256:
            self.changed = path


def _shrinks(path: str, start: bytes) -> bool:
    """Whether compressing a file pays, by its suffix or by trying with 8 KiB from the middle of its first piece."""
    if len(start) < _WORTH_A_SAMPLE:
        return True
    if Path(path).suffix.lower() in _COMPRESSED:
        return False
    middle = (len(start) - _SAMPLE) // 2  # the start is often a header that is not like the rest
    sample = start[middle : middle + _SAMPLE]
    return len(zlib.compress(sample, 1)) < _SHRINKS * len(sample)
