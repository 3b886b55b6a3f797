"""A file that is on its way here: what has come of it grows as `DEST/.pull/HASH.part`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from cloudtrain.core import disk
from cloudtrain.core.notes import FileEntry

_CHUNK = 1 << 20


class Coming:
    """A file that comes: its part, and what is in that."""

    def __init__(self, entry: FileEntry, part: Path, target: Path) -> None:
        self.entry, self.part, self.target = entry, part, target
        self.problem: str | None = None
        self.tried = 0
        self._file: BinaryIO | None = None
        self.begin()

    def begin(self) -> None:
        """Take up what is in the part."""
        self.have, self._total = 0, hashlib.sha256()
        if disk.present(self.part):
            with _open_part(self.part) as file:
                while chunk := file.read(_CHUNK):
                    self._total.update(chunk)
                    self.have += len(chunk)

    def add(self, data: bytes) -> bool:
        """Take the next bytes; False: they are too many."""
        if self.have + len(data) > self.entry.size:
            self.problem = "it is longer than its manifest says"
            return False
        if self._file is None:
            self._file = _open_part(self.part)
            self._file.seek(0, 2)
        self._file.write(data)
        self._total.update(data)
        self.have += len(data)
        return True

    def close(self) -> None:
        """Leave the part as it is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def end(self) -> None:
        """No more comes: say what is wrong with it, if anything is."""
        self.close()
        if self.problem is None and self.have != self.entry.size:
            self.problem = f"it is {'shorter' if self.have < self.entry.size else 'longer'} than its manifest says"
        if self.problem is None and self._total.hexdigest() != self.entry.sha256:
            self.problem = "its sha256 is not the one in the manifest"

    def sync(self) -> None:
        """Make it durable."""
        with _open_part(self.part) as file:
            os.fsync(file.fileno())


def _open_part(part: Path) -> BinaryIO:
    """`part` for reading and appending. Anything there but a plain file of one name is replaced, never written into."""
    if disk.present(part) and (not disk.is_plain(part) or part.lstat().st_nlink > 1):
        part.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(part, flags, 0o666), "r+b")
