"""Files of a run, from the host into a folder here: each whole and verified under its name, or a part beside it."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cloudtrain.core import disk
from cloudtrain.core.decode import Odd, json_object, text
from cloudtrain.core.errors import ArtifactRefused, ConnectionFailed
from cloudtrain.core.events import Emit, StepProgress
from cloudtrain.core.notes import FileEntry
from cloudtrain.core.text import shortened
from cloudtrain.run_folder import links
from cloudtrain.run_folder.artifacts import PARTS
from cloudtrain.transfer.frames import FileFrame, FrameParser, Withheld, packed_names
from cloudtrain.transfer.part import Coming
from cloudtrain.transport.base import Stream

QUIET_S = 60.0
_SLOWEST = 64  # bytes a second
_TITLE = "pull"
_TELL_EVERY_S = 0.1
_CHUNK = 1 << 20
# Files of at most so many bytes come together, at most so many in one stream and in one go to the disk.
_SMALL, _MANY = 1 << 20, 2000
_LONGEST = 24_000  # characters that name them on a command line; Windows takes 32,767
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
    told = full_disk_told(path.parent)
    with told, suppress(FileNotFoundError), disk.plain(path) as arrived, disk.written(before) as copy:
        shutil.copyfileobj(arrived, copy)
    fetch(read, name, path, most)
    if disk.is_plain(before) and not _begins(path, before):
        return before
    before.unlink(missing_ok=True)
    return None


def _begins(path: Path, start: Path) -> bool:
    """Whether `path` begins with all that is in `start`."""
    with disk.plain(path) as file, disk.plain(start) as beginning:
        while piece := beginning.read(_CHUNK):
            if file.read(len(piece)) != piece:
                return False
    return True


class Host(Protocol):
    """Where files come from: `Supervisor.read` and `Supervisor.send`."""

    def read(self, name: str, offset: int = 0) -> Stream:
        """Bytes of a file of the run directory from an offset on."""

    def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
        """Frames with the bytes of many: name, offset and how many of each."""


class Fetcher:
    """Brings files; knows how much of the whole is done."""

    def __init__(self, host: Host, dest: Path, emit: Emit) -> None:
        self.bytes = 0
        self.refused: list[tuple[str, str]] = []
        self.verified: list[FileEntry] = []
        self._host = host
        self._dest = dest
        self._emit = emit
        self._files = self._came = self._total = self._done = 0
        self._sends = True
        self._whole: list[Coming] = []
        self._told_at = 0.0

    def fetch(self, entries: Sequence[FileEntry]) -> None:
        """Make `DEST/NAME` equal to each of `entries`, small ones first and in one stream.

        Raises:
            ConnectionFailed: the link broke or the disk is full. What had come whole is here, the rest as parts.
        """
        entries = sorted(filter(self._is_valid, entries), key=lambda entry: (entry.size, entry.name))
        self._files, self._total = len(entries), sum(entry.size for entry in entries)
        with full_disk_told(self._dest):
            try:
                pending = [coming for entry in entries if (coming := self._begun(entry)) is not None]
                while pending:
                    small = [one for one in pending if one.entry.size <= _SMALL] if self._sends else []
                    if not small:
                        self._settle()  # a large file may take its time
                    rest = self._together(small) if small else self._alone(pending.pop(0))
                    pending = [*rest, *pending[len(small) :]]
            finally:
                self._settle()

    def link(self, entries: Sequence[FileEntry]) -> list[tuple[str, str]]:
        """Make these links, once what they lead to is here; those that cannot be made, and why.

        Raises:
            ConnectionFailed: the disk takes no more.
        """
        left = []
        for entry in entries:
            assert entry.link is not None
            with full_disk_told(self._dest):
                try:
                    _make_folders(self._dest, _place(self._dest, entry.here).parent)
                    links.make(self._dest, entry.here, entry.link, [one.here for one in self.verified])
                    self.verified.append(entry)
                except FileNotFoundError:
                    left.append((entry.name, f"a link to {entry.link}, which is not here"))
                except ArtifactRefused as error:
                    left.append((entry.name, error.message))
        return left

    def _is_valid(self, entry: FileEntry) -> bool:
        valid = type(entry.size) is int and entry.size >= 0 and disk.is_sha256(entry.sha256)
        if not valid:
            self.refused.append((_quoted(entry), "the manifest has no valid size and sha256 for it"))
        return valid

    def _begun(self, entry: FileEntry) -> Coming | None:
        """None: it is here, or cannot be."""
        try:
            target = _place(self._dest, entry.here)
            if disk.is_folder(target):
                raise ArtifactRefused(f"{target} here is a folder")
        except ArtifactRefused as error:
            self.refused.append((_quoted(entry), error.message))
            return None
        if disk.holds(target, entry.size, entry.sha256):
            self.verified.append(entry)
            self._tell(entry, entry.size)
            return None
        mark = hashlib.sha256(f"{entry.name}\0{entry.sha256}".encode()).hexdigest()[:32]
        coming = Coming(entry, self._dest / PARTS / f"{mark}.part", target)
        self._done += coming.have
        return coming

    def _together(self, files: list[Coming]) -> list[Coming]:
        """Bring the next of `files` in one stream; those that are still to come."""
        asked: list[Coming] = []
        room = shutil.disk_usage(self._dest / PARTS).free
        while len(asked) < min(_MANY, len(files)) and (room := room - _lacks(files[len(asked)])) >= 0:
            asked.append(files[len(asked)])
        if not asked:
            raise _no_room(files[0])
        while len(asked) > 1 and len(packed_names([_words(one) for one in asked])) > _LONGEST:
            del asked[len(asked) // 2 :]
        lacking = [one for one in asked if _lacks(one)]
        again = [one for one in asked if not _lacks(one) and not self._ended(one)]
        if lacking:
            with self._host.send([_words(one) for one in lacking]) as stream:
                again += self._taken(stream, lacking)
        return [*again, *files[len(asked) :]]

    def _taken(self, stream: Stream, asked: list[Coming]) -> list[Coming]:
        pace, parser, at, spoke = _Pace(stream, ""), FrameParser(), 0, False
        again: list[Coming] = []
        try:
            while at < len(asked):
                pace.name = asked[at].entry.name
                frames = parser.feed(data := pace.next())
                if not data:
                    raise ConnectionFailed(_check_end(stream, "") or "the host sent only some of the results")
                for frame in frames:
                    one, spoke = asked[at], True
                    if not isinstance(frame, (FileFrame, Withheld)) or frame.number != at:
                        raise ConnectionFailed("the host sent a file other than the one asked for", code="protocol")
                    if isinstance(frame, Withheld):
                        one.problem = shortened(frame.why)
                    elif not one.add(frame.data):
                        # However much more of it comes: the others are asked for anew.
                        return [*again, *([] if self._ended(one) else [one]), *asked[at + 1 :]]
                    elif frame.data:
                        self.bytes += len(frame.data)
                        self._tell(one.entry, len(frame.data), files=0)
                        continue
                    again += [] if self._ended(one) else [one]
                    at += 1
                    if at == len(asked):
                        break
            return again
        except ConnectionFailed as error:
            if error.code != "protocol" or spoke:
                raise
            # A run of the last release: its program sends one file at a time.
            self._sends = False
            return asked
        finally:
            for one in asked[at : at + 1]:
                one.close()

    def _alone(self, one: Coming) -> list[Coming]:
        """Bring one file; itself, where it is to be tried once more."""
        lacks = _lacks(one)
        if lacks > shutil.disk_usage(one.part.parent).free:
            raise _no_room(one)
        if lacks:
            with self._host.read(f"out/{one.entry.name}", one.have) as stream:
                pace = _Pace(stream, one.entry.name)
                try:
                    while (data := pace.next()) and one.add(data):
                        self.bytes += len(data)
                        self._tell(one.entry, len(data), files=0)
                finally:
                    one.close()
                if one.have < one.entry.size and one.problem is None:
                    one.problem = _check_end(stream, one.entry.name)
        return [] if self._ended(one) else [one]

    def _ended(self, one: Coming) -> bool:
        """What came of `one` is settled; False: it is to be fetched anew, from its first byte."""
        one.end()
        if one.problem is None:
            self._whole.append(one)
            self._tell(one.entry, 0)
            if len(self._whole) >= _MANY:
                self._settle()
            return True
        self._done -= one.have
        one.part.unlink(missing_ok=True)
        one.tried += 1
        if one.tried == 2:
            self.refused.append((_quoted(one.entry), one.problem))
            return True
        one.problem = None
        one.begin()
        return False

    def _settle(self) -> None:
        """Give the files that have come whole their names, durably."""
        whole, self._whole = self._whole, []
        if not whole:
            return
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Coming.sync, whole))
        for one in whole:
            _make_folders(self._dest, one.target.parent)
            one.part.replace(one.target)
            self.verified.append(one.entry)
        for folder in {one.target.parent for one in whole}:
            disk.sync_folder(folder)

    def _tell(self, entry: FileEntry, size: int, files: int = 1) -> None:
        self._done += size
        self._came += files
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S or self._came == self._files:
            self._told_at = now
            what = f"{self._came} of {self._files} files," if self._files > 1 else entry.name
            self._emit(StepProgress(_TITLE, what, done=self._done, total=self._total, unit="B"))


def _quoted(entry: FileEntry) -> str:
    """Its name for a message."""
    return shortened(repr(entry.name))


def _lacks(one: Coming) -> int:
    return max(0, one.entry.size - one.have)


def _words(one: Coming) -> tuple[str, int, int]:
    return f"out/{one.entry.name}", one.have, _lacks(one) + 1


def _no_room(one: Coming) -> ConnectionFailed:
    free = shutil.disk_usage(one.part.parent).free
    return ConnectionFailed(
        f"{_quoted(one.entry)} has {one.entry.size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free here",
        hint="free space on this computer and pull again",
        consequence="nothing is lost: the host has it all, and what arrived is kept",
        code="disk_full",
    )


class _Pace:
    """The pieces of a stream, as long as they come: a byte now and then would keep a pull for ever."""

    def __init__(self, stream: Stream, name: str) -> None:
        self.bytes = 0
        self._stream = stream
        self.name = name
        self._began = time.monotonic()

    def next(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            ConnectionFailed: nothing came for a minute, or next to nothing for ten.
        """
        try:
            data = self._stream.read(QUIET_S)
        except TimeoutError as error:
            raise self._stalled(f"nothing came of {self.name} for {QUIET_S:.0f} s") from error
        self.bytes += len(data)
        took = time.monotonic() - self._began
        if data and took > 10 * QUIET_S + self.bytes / _SLOWEST:
            raise self._stalled(f"only {self.bytes} bytes came of {self.name} in {took:.0f} s")
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
        if links.stay_inside(dest, path):
            path.unlink()  # of an earlier manifest
        if disk.in_the_way(path):
            raise ArtifactRefused(f"{path} here is a link or a file, not a folder")
    return path / last


def _make_folders(dest: Path, folder: Path) -> None:
    path = dest
    for segment in folder.relative_to(dest).parts:
        if not disk.present(path / segment):
            (path / segment).mkdir()
            disk.sync_folder(path)
        path = path / segment


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
