"""One file of a run, from the host into a folder here: whole and verified under its name, or a part beside it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cloudtrain.core import disk
from cloudtrain.core.decode import Odd, json_object, text
from cloudtrain.core.errors import ArtifactRefused, ConnectionFailed
from cloudtrain.core.events import Emit, StepProgress
from cloudtrain.run_folder.artifacts import PARTS, Artifact
from cloudtrain.transport.base import Stream

QUIET_S = 60.0
_SLOWEST = 64  # bytes a second
_TITLE = "pull"
_TELL_EVERY_S = 0.1
_CHUNK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


Read = Callable[[str, int], Stream]
"""`Supervisor.read`: bytes of a file of the run directory from an offset on."""


def fetch(read: Read, name: str, path: Path, most: int) -> None:
    """Replace `path` by the host's whole file `name` ("console.log"), which no manifest describes.

    Args:
        most: bytes that it can have.

    Raises:
        ArtifactRefused: it has more, or the host does not give it.
        ConnectionFailed: the link broke or the disk is full; `path` is as it was.
    """
    with full_disk_told(path.parent), disk.written(path) as file, read(name, 0) as stream:
        pace = _Pace(stream, name)
        while chunk := pace.next():
            if pace.bytes > most:
                raise ArtifactRefused(f"{name} has more than {most} bytes", consequence="what is here is as it was")
            file.write(chunk)
        problem = _check_end(stream, name)
        if problem is not None:
            raise ArtifactRefused(f"{name} was not taken: {problem}", consequence="what is here is as it was")


def fetch_anew(read: Read, name: str, path: Path, most: int) -> Path | None:
    """`fetch`, but what is here and not there any more stays: the path of a copy of it, None where nothing was lost.

    Raises:
        ConnectionFailed: the link broke or the disk is full; `path` is as it was.
    """
    before = path.with_name(f"{path.stem}-before{path.suffix}")
    with full_disk_told(path.parent):
        if disk.is_plain(path):
            shutil.copy2(path, before)
    fetch(read, name, path, most)
    if disk.is_plain(before) and not _begins(path, before):
        return before
    before.unlink(missing_ok=True)
    return None


def _begins(path: Path, start: Path) -> bool:
    """Whether `path` begins with all that is in `start`."""
    with path.open("rb") as file, start.open("rb") as beginning:
        while piece := beginning.read(_CHUNK):
            if file.read(len(piece)) != piece:
                return False
    return True


class Fetcher:
    """Brings one file after the other; knows how much of the whole is done."""

    def __init__(self, read: Read, dest: Path, emit: Emit) -> None:
        self.total = 0
        self.bytes = 0
        self._read = read
        self._dest = dest
        self._emit = emit
        self._done = 0
        self._told_at = 0.0

    def fetch(self, entry: Artifact) -> None:
        """Make `DEST/NAME` equal to `entry`.

        Raises:
            ArtifactRefused: the host's file is another one, twice.
        """
        target = _place(self._dest, entry.name)
        with full_disk_told(self._dest):
            if disk.holds(target, entry.size, entry.sha256):
                self._tell(entry, entry.size)
                return
            mark = hashlib.sha256(f"{entry.name}\0{entry.sha256}".encode()).hexdigest()[:32]
            part = self._dest / PARTS / f"{mark}.part"
            done = self._done
            for last in (False, True):
                problem = self._download(entry, part)
                if problem is None:
                    break
                part.unlink()
                self._done = done
                if last:
                    raise ArtifactRefused(problem)
            _make_folders(self._dest, target.parent)
            part.replace(target)
            disk.sync_folder(target.parent)

    def _download(self, entry: Artifact, part: Path) -> str | None:
        """Complete `part`; what is wrong with it then, for people, or None."""
        with _open_part(part) as file:
            total, have = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK):
                total.update(chunk)
                have += len(chunk)
            if have > entry.size:
                return "it is longer than its manifest says"
            self._tell(entry, have)
            if have < entry.size:
                free = shutil.disk_usage(part.parent).free
                if free < entry.size - have:
                    raise ConnectionFailed(
                        f"{entry.name!r} has {entry.size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free here",
                        hint="free space on this computer and pull again",
                        consequence="nothing is lost: the host has it all, and what arrived is kept",
                        code="disk_full",
                    )
                with self._read(f"out/{entry.name}", have) as stream:
                    pace = _Pace(stream, entry.name)
                    while chunk := pace.next():
                        have += len(chunk)
                        if have > entry.size:
                            return "it is longer than its manifest says"
                        file.write(chunk)
                        total.update(chunk)
                        self.bytes += len(chunk)
                        self._tell(entry, len(chunk))
                    if have < entry.size:
                        return _check_end(stream, entry.name) or "it is shorter than its manifest says"
            file.flush()
            os.fsync(file.fileno())
        return None if total.hexdigest() == entry.sha256 else "its sha256 is not the one in the manifest"

    def _tell(self, entry: Artifact, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S or self._done >= self.total:
            self._told_at = now
            self._emit(StepProgress(_TITLE, entry.name, done=self._done, total=self.total, unit="B"))


class _Pace:
    """The pieces of a stream, as long as they come: a byte now and then would keep a pull for ever."""

    def __init__(self, stream: Stream, name: str) -> None:
        self.bytes = 0
        self._stream = stream
        self._name = name
        self._began = time.monotonic()

    def next(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            ConnectionFailed: nothing came for a minute, or next to nothing for ten.
        """
        try:
            data = self._stream.read(QUIET_S)
        except TimeoutError as error:
            raise self._stalled(f"nothing came of {self._name} for {QUIET_S:.0f} s") from error
        self.bytes += len(data)
        took = time.monotonic() - self._began
        if data and took > 10 * QUIET_S + self.bytes / _SLOWEST:
            raise self._stalled(f"only {self.bytes} bytes came of {self._name} in {took:.0f} s")
        return data

    def _stalled(self, why: str) -> ConnectionFailed:
        return ConnectionFailed(
            why, hint="pull again; it goes on where it stopped", consequence="the copy on the host is untouched"
        )


def _check_end(stream: Stream, name: str) -> str | None:
    """Why the host ended the stream early, in its words; None if it says all was well."""
    done = stream.finish(QUIET_S)
    if done.exit_code == 0:
        return None
    said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.exit_code}"])[-1]
    with suppress(Odd):
        said = text(json_object(said).get("message"))
    return f"the host does not give it: {said[:200]}"


def _place(dest: Path, name: str) -> Path:
    """Where `name` goes below `dest`.

    Raises:
        ArtifactRefused: a link, or something else that is no folder, is in the way.
    """
    path = dest
    *folders, last = name.split("/")
    for segment in folders:
        path = path / segment
        if disk.present(path) and not disk.is_folder(path):
            raise ArtifactRefused(f"{path} here is a link or a file, not a folder")
    if disk.is_folder(path / last):
        raise ArtifactRefused(f"{path / last} here is a folder")
    return path / last


def _make_folders(dest: Path, folder: Path) -> None:
    path = dest
    for segment in folder.relative_to(dest).parts:
        if not disk.present(path / segment):
            (path / segment).mkdir()
            disk.sync_folder(path)
        path = path / segment


@contextmanager
def _open_part(part: Path) -> Iterator[BinaryIO]:
    """`part` for reading and appending. Anything there but a plain file of one name is replaced, never written into."""
    if disk.present(part) and (not disk.is_plain(part) or part.lstat().st_nlink > 1):
        part.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(part, flags, 0o666), "r+b") as file:
        yield file


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Failures of this computer's disk as errors that say so."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        full = error.errno in _FULL
        said = (error.strerror or str(error)).lower()
        raise ConnectionFailed(
            f"{folder} takes no more data: {said}" if full else f"{folder} cannot be written: {said}",
            hint="free space on this computer and pull again" if full else "make the folder writable and pull again",
            consequence="nothing is lost: the host has it all, and what arrived is kept",
            code="disk_full" if full else "folder",
        ) from error
