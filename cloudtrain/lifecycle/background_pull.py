"""Finished results of a run come down while it trains, so that a machine which goes without a word takes little along.

It works beside the story, on channels of its own over the connection that the log comes on: it opens none itself, and
where that one is down or frozen, the log's own deadlines end both. It never fails a run, and never holds one up.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, CloudtrainError, ConnectionFailed
from cloudtrain.core.events import Emit, Noted, discard
from cloudtrain.core.notes import FileEntry, Journal, RunNotes
from cloudtrain.lifecycle import checkpoints
from cloudtrain.run_folder import artifacts, event_files, files
from cloudtrain.transfer import pull
from cloudtrain.transfer.answers import Manifest
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Completed, Stream

# What a job tells when it has finished files.
KINDS = frozenset({"checkpoint", "epoch"})
# Without a word of the job, in seconds; and between the end of one look and the next, however much it tells.
EVERY_S = 60.0
SPACING_S = 2.0
# How long the final pull waits for this one to let go of the folder, in seconds: what it holds up is one disk write.
LET_GO_S = 10.0
# Event files that are read on at a look while they grow, bytes of each, and how long one waits for them, in seconds.
MOST_FOLLOWED, MOST_GROWN, STALLS_S = 20, 4 * 2**20, 30.0
# The wish to end is looked up this often, in seconds, while nothing comes from the host.
_LOOK_S = 0.5


def keep(folder: Path, journal: Journal) -> None:
    """A run ends and its machine is gone: what had come down, and is here still, is what was pulled of it."""
    notes = journal.read(RunNotes)
    if notes.pulled is None and notes.trickled:
        journal.write(RunNotes(pulled=tuple(entry for entry in notes.trickled if files.is_here(entry, folder))))
    # Parts are for the host that has the rest.
    if disk.is_folder(folder / artifacts.PARTS):
        shutil.rmtree(folder / artifacts.PARTS, ignore_errors=True)


class Living(Protocol):
    """A way to the host that may be down."""

    def living(self) -> Supervisor | None:
        """A client of the supervisor over the connection that is open, if one is; opens none."""


class Trickle:
    """Fetches in the background what the host's manifest has and `outputs` allows, small files first.

    Use it as a context manager around the time that a run is followed; when that is left nothing of it goes on that
    could be in the final pull's way.

    Args:
        mib_s: rate in MiB a second on average; what the peer may send ahead on a channel comes on top. 0: nothing is
            fetched.
        most: bytes of all results, unless more are wanted; None: no limit.
        keeps: bytes of what came and is no result any more, as of checkpoints that a program rotates; the latest stay.
        emit: gets one note about each streak of failures, from the thread that calls `heard` or `close`.
        every_s, spacing_s: see EVERY_S, SPACING_S.
    """

    def __init__(
        self,
        session: Living,
        folder: Path,
        outputs: tuple[str, ...],
        journal: Journal,
        emit: Emit,
        *,
        mib_s: float,
        most: float | None = None,
        keeps: float = inf,
        every_s: float = EVERY_S,
        spacing_s: float = SPACING_S,
    ) -> None:
        self._session = session
        self._folder = folder
        self._outputs = outputs
        self._journal = journal
        self._emit = emit
        self._bytes_s = mib_s * 2**20
        self._most = most
        self._keeps = keeps
        self._every_s = every_s
        self._spacing_s = spacing_s
        self._wake = threading.Event()
        self._ended = threading.Event()
        # Held while files are written into the folder, so that `close` knows whether there is anything to wait for.
        self._writing = threading.Lock()
        self._told: Mapping[str, Any] | None = None
        self._notes: list[str] = []
        self._failing = False
        self._rest_s = 0.0
        self._noted = RunNotes()
        self._here: tuple[str, ...] = ()
        # Of each event file that grows: bytes that have come; and those that nobody has asked for yet.
        self._had: dict[str, int] = {}
        self._grown: deque[tuple[str, int, bytes]] = deque()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Trickle:
        if self._bytes_s > 0:
            self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exit_info: object) -> None:
        self.close()

    def heard(self, values: Mapping[str, Any]) -> None:
        """The job has told `values`; it returns at once."""
        if values.get("kind") == "checkpoint":
            self._told = dict(values)
        if values.get("kind") in KINDS:
            self._wake.set()
        self._say()

    def arrived(self) -> tuple[str, ...]:
        """Names in the run's folder of what the last look has brought or found there; each look's are given once."""
        here, self._here = self._here, ()
        return here

    def grown(self) -> list[tuple[str, int, bytes]]:
        """What has come of event files that are still being written: name, offset, bytes; each piece is given once."""
        # One by one: the other thread may add a piece meanwhile, and none may be lost.
        return [self._grown.popleft() for _ in range(len(self._grown))]

    def close(self) -> None:
        """End it. From here on it writes nothing more into the folder."""
        self._ended.set()
        self._wake.set()
        # A look at the manifest that goes on finds that it is over, and writes nothing: it need not be waited for.
        if self._thread is not None and self._writing.acquire(timeout=LET_GO_S):
            self._writing.release()
        self._say()

    def _say(self) -> None:
        while self._notes:
            self._emit(Noted(self._notes.pop(0)))

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            if self._ended.is_set():
                return
            try:
                self._look()
                self._failing = False
            except CloudtrainError as error:
                self._failed(error.message)
            except Exception as error:  # whatever it is: the run must not hear of it, and the final pull tells
                self._failed(f"{type(error).__name__}: {error}")
            self._ended.wait(max(self._spacing_s, self._rest_s))

    def _failed(self, why: str) -> None:
        if not self._failing and not self._ended.is_set():
            self._notes.append(f"results could not be fetched while it trains ({why}); the next epoch tries again")
        self._failing = True

    def _look(self) -> None:
        """Bring what is new.

        Raises:
            CloudtrainError: not everything came.
        """
        supervisor = self._session.living()
        if supervisor is None:
            return
        told = self._told  # before the manifest: the checkpoint there holds what was told, or more
        began = time.monotonic()
        most = None if self._journal.read(RunNotes).take_all else self._most
        found = supervisor.manifest(most)
        entries = found.files
        # A host or a link that takes long for it is not kept busy with it.
        self._rest_s = 4 * (time.monotonic() - began)
        with self._writing:
            if self._ended.is_set():
                return
            coming = checkpoints.in_manifest(told, entries)
            if coming is not None and coming != self._journal.read(RunNotes).checkpoint:
                self._journal.write(RunNotes(checkpoint_coming=coming))
            try:
                paced, outputs = self._paced(supervisor), self._outputs
                report = pull.pull(paced, entries, self._folder, outputs=outputs, most=most, emit=discard)
                here = list(report.files)
            except ArtifactRefused:
                # The job has replaced a file since the manifest was made, most likely. The others are here.
                here, _ = files.apart(entries, self._folder)
            notes = RunNotes(trickled=(*self._stays(found), *here))
            if coming is not None and any(entry.name == coming.name for entry in here):
                notes |= RunNotes(checkpoint=coming, checkpoint_coming=None)
            if notes != self._noted:
                self._journal.write(notes)
                self._noted = notes
                self._here = tuple(entry.here for entry in here)
        growing = [FileEntry(name, 0, "") for name in event_files.among(found.growing)[:MOST_FOLLOWED]]
        self._follow(supervisor, pull.wanted(growing, self._outputs))

    def _follow(self, supervisor: Supervisor, growing: Sequence[FileEntry]) -> None:
        """Read on in event files: their figures need not wait until nothing more is written."""
        for entry in growing:
            offset, pieces = self._had.get(entry.name, 0), list[bytes]()
            with self._paced(supervisor).read(f"out/{entry.name}", offset) as stream:
                while sum(map(len, pieces)) < MOST_GROWN and (data := stream.read(STALLS_S)):
                    pieces.append(data)
            if data := b"".join(pieces):
                self._grown.append((entry.name, offset, data))
                self._had[entry.name] = offset + len(data)

    def _stays(self, found: Manifest) -> list[FileEntry]:
        """What came before and is no finished result now: a program writes it anew, or has removed it. Of the latter
        the oldest go, where it is too much."""
        results, growing = {entry.name for entry in found.files}, set(found.growing)
        stays = [one for one in self._journal.read(RunNotes).trickled if one.name not in results]
        removed = [one for one in stays if one.link is None and one.name not in growing]
        over = sum(one.size for one in removed) - self._keeps
        for one in removed:
            if over > 0:
                over -= one.size
                stays.remove(one)
                if files.is_here(one, self._folder):
                    (self._folder / one.here).unlink()
        return stays

    def _paced(self, supervisor: Supervisor) -> _PacedHost:
        began, sent = time.monotonic(), 0

        def wait_for_turn(size: int) -> None:
            nonlocal sent
            sent += size
            self._ended.wait(max(0.0, began + sent / self._bytes_s - time.monotonic()))

        return _PacedHost(supervisor, lambda stream: _Paced(stream, self._ended, wait_for_turn))


@dataclass(frozen=True, slots=True)
class _PacedHost:
    """A host whose streams are paced."""

    supervisor: Supervisor
    pace: Callable[[Stream], Stream]

    def read(self, name: str, offset: int = 0) -> Stream:
        return self.pace(self.supervisor.read(name, offset))

    def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
        return self.pace(self.supervisor.send(asked))


class _Paced(Stream):
    """A stream at a given rate, which ends as soon as it is no longer wanted."""

    def __init__(self, inner: Stream, ended: threading.Event, wait_for_turn: Callable[[int], None]) -> None:
        self._inner = inner
        self._ended = ended
        self._wait_for_turn = wait_for_turn

    def read(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while not self._ended.is_set():
            left = deadline - time.monotonic()
            try:
                data = self._inner.read(min(_LOOK_S, max(0.0, left)))
            except TimeoutError:
                if left <= _LOOK_S:
                    raise
                continue
            self._wait_for_turn(len(data))
            return data
        raise ConnectionFailed("it is no longer wanted", code="ended")

    def finish(self, timeout: float) -> Completed:
        return self._inner.finish(timeout)

    def close(self) -> None:
        self._inner.close()
