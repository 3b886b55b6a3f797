"""The log and the events of a running job, into files here that are the host's bytes, no more and no fewer.

The size of the local file is the offset: what is on the disk here has been received, whatever became of the process
that received it. So a killed command, a lost link and a second command all resume in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cloudtrain.core import disk, told
from cloudtrain.core.errors import GONE, RECLAIMED, ConnectionFailed, HostKeyMismatch
from cloudtrain.core.events import Emit, GpuUse, LogLines, Metric, Noted, Warned
from cloudtrain.transfer.download import full_disk_told
from cloudtrain.transfer.frames import Beat, End, EventsFrame, GpuFrame, LogFrame, Notice, Shrunk
from cloudtrain.transfer.supervisor import Supervisor

# Waits before each attempt to reach the host again, in seconds; an arriving frame starts the list anew.
BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_SYNC_EVERY_S = 1.0
_NO_SPACE_WAIT_S = 5.0
# A training that says nothing for so long may hang, in seconds; it is reported again after twice as long, and so on.
SILENT_S = 300.0


class Link(Protocol):
    """A way to the host that can be dropped and made again."""

    def supervisor(self) -> Supervisor:
        """A client of the run's supervisor over an open connection, reconnecting if need be."""

    def drop(self) -> None:
        """Forget the connection; the next `supervisor()` makes a new one."""


class GrowingFile:
    """A local copy of a file that only grows on the host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_told(path.parent):
            self._file = disk.plain_to_append(path)
        self.size = os.fstat(self._file.fileno()).st_size
        # Bytes here that the host's file no longer has: above zero only after it was cut there.
        self._kept = 0
        self._synced_at = time.monotonic()

    def append(self, offset: int, data: bytes) -> bytes:
        """Write the part of `data` (the host's bytes from `offset` on) that is not here yet, and return that part.

        Raises:
            ConnectionFailed: `offset` leaves a gap; nothing was written.
            OSError: the disk is full; the file is as it was before the call.
        """
        if offset > self.size:
            raise ConnectionFailed(f"{self.path.name}: the host sent byte {offset}, byte {self.size} was next")
        new = data[self.size - offset :]
        if not new:
            return b""
        try:
            self._file.write(new)
            self._file.flush()
        except OSError:
            # A part may have reached the file: cut it off, or the next offset would be wrong. Closing may try to flush
            # what is left in the buffer, and fail again.
            self._reopen()
            raise
        self.size += len(new)
        now = time.monotonic()
        if now - self._synced_at > _SYNC_EVERY_S:
            os.fsync(self._file.fileno())
            self._synced_at = now
        return new

    def _reopen(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._file = disk.plain_to_append(self.path)
        os.ftruncate(self._file.fileno(), self._kept + self.size)

    def restart(self, size: int) -> None:
        """Take the host's file of `size` bytes as the one that grows from now on; what is here stays above it."""
        self._kept += self.size - size
        self.size = size

    def close(self) -> None:
        """Make it durable and close it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


class PassingBytes:
    """Stands in for a GrowingFile where another command keeps the files: counts, and keeps nothing."""

    def __init__(self, size: int) -> None:
        self.size = size

    def append(self, offset: int, data: bytes) -> bytes:
        """The part of `data` that was not seen yet."""
        new = data[max(0, self.size - offset) :]
        self.size = max(self.size, offset + len(data))
        return new

    def restart(self, size: int) -> None:
        """The host's file was cut to `size` bytes."""
        self.size = size

    def close(self) -> None:
        """Nothing to do."""


class Silence:
    """Notices that a training which lives says nothing."""

    def __init__(self) -> None:
        self.broken()

    def broken(self) -> None:
        """Something new has come."""
        self._since = time.monotonic()
        self._told_after = SILENT_S

    def too_long(self) -> float | None:
        """Seconds of silence, once they are worth telling; None otherwise."""
        silent = time.monotonic() - self._since
        if silent < self._told_after:
            return None
        self._told_after *= 2
        return silent


class Follower:
    """Follows one run until it ends on the host.

    Args:
        folder: the run's folder here; `console.log` and `events.jsonl` grow in it.
        keep: False where another command writes the two files: what is new since then is only emitted.
        link: way to the host.
        emit: gets LogLines and Metric for what is new, and what goes wrong on the way.
        on_event: gets each object of `events.jsonl` that is new here, before it is emitted.
        on_frame: is called whenever the host says anything, be it that it lives.
        sleep: waits between attempts; tests hand in their own.
    """

    def __init__(
        self,
        folder: Path,
        link: Link,
        emit: Emit,
        *,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
        on_frame: Callable[[], None] = lambda: None,
        keep: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._link = link
        self._emit = emit
        self._on_event = on_event
        self._on_frame = on_frame
        self._keep = keep
        self._sleep = sleep
        self._failures = 0
        self._odd = False
        self._silence = Silence()

    def run(self) -> End:
        """Follow to the end.

        Raises:
            ConnectionFailed: the host could not be reached again; the run goes on, its bytes stay there. With the code
            `GONE` or `RECLAIMED` it has ended.
            HostKeyMismatch: another machine answered; nothing was sent to it.
        """
        log, events = map(self._open, told.LOG_FILES)
        try:
            while True:
                try:
                    end = self._follow_once(log, events)
                except HostKeyMismatch:
                    raise
                except ConnectionFailed as error:
                    self._link.drop()
                    self._wait_to_reconnect(error)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    self._emit(
                        Warned(
                            f"this disk is full: {self._folder} cannot grow; the log on the host is whole",
                            hint="free some space, this command goes on by itself",
                        )
                    )
                    self._sleep(_NO_SPACE_WAIT_S)
                else:
                    return end
        finally:
            log.close()
            events.close()

    def _open(self, name: str) -> GrowingFile | PassingBytes:
        path = self._folder / name
        if self._keep:
            return GrowingFile(path)
        return PassingBytes(path.stat().st_size if disk.is_plain(path) else 0)

    def _follow_once(self, log: GrowingFile | PassingBytes, events: GrowingFile | PassingBytes) -> End:
        supervisor = self._link.supervisor()
        with supervisor.follow(log.size, events.size) as frames:
            for frame in frames:
                self._on_frame()
                if self._failures:
                    self._failures = 0
                    self._emit(Noted("reconnected"))
                if not isinstance(frame, (Beat, GpuFrame)):
                    self._silence.broken()
                match frame:
                    case LogFrame(offset, data):
                        new = log.append(offset, data)
                        if new:
                            self._emit(LogLines(new, log.size - len(new)))
                    case EventsFrame(offset, data):
                        for values in told.events(events.append(offset, data), self._no_event):
                            if self._on_event is not None:
                                self._on_event(values)
                            self._emit(Metric(values.get("kind", ""), values))
                    case Shrunk(file, size):
                        kept = "what had arrived here before is kept"
                        self._emit(Warned(f"{file} on the host was cut to {size} bytes; {kept}"))
                        (log if file == told.LOG else events).restart(size)
                    case Notice():
                        self._emit(Warned(frame.text()))
                    case GpuFrame(gpus):
                        if (use := _gpu_use(gpus)) is not None:
                            self._emit(use)
                    case Beat():
                        if (silent := self._silence.too_long()) is not None:
                            span = f"{silent / 60:.0f} min" if silent >= 60 else f"{silent:.0f} s"
                            self._emit(
                                Warned(
                                    f"the training has said nothing for {span}; it may hang",
                                    hint="cloudtrain stop ends it; its limit does, where it has one",
                                )
                            )
                    case End():
                        return frame
        raise ConnectionFailed("the host closed the stream")

    def _no_event(self) -> None:
        """A line of `events.jsonl` is no event: told once, whatever the job writes there."""
        if not self._odd:
            self._odd = True
            self._emit(
                Warned(
                    "the job wrote a line into its events that is not an event; such lines are skipped",
                    hint="they are in events.jsonl; docs/your-own-job.md says what an event is",
                )
            )

    def _wait_to_reconnect(self, error: ConnectionFailed) -> None:
        if error.code in (GONE, RECLAIMED, "parked"):
            raise error
        if self._failures >= len(BACKOFF_S):
            raise ConnectionFailed(
                f"the host cannot be reached: {error.message}",
                hint="cloudtrain logs (picks up where this one stopped)",
                consequence="the run goes on, its log and results stay on the host",
                detail=error.detail,
            ) from error
        wait = BACKOFF_S[self._failures]
        self._failures += 1
        again = f"Reconnecting in {wait:g} s ({self._failures} of {len(BACKOFF_S)})"
        self._emit(Warned(f"connection lost; training goes on. {again}"))
        self._sleep(wait)


def _gpu_use(gpus: Sequence[tuple[int | None, int | None, int | None]]) -> GpuUse | None:
    """All GPUs as one; None where none tells how busy it is."""
    busy = [percent for percent, _, _ in gpus if percent is not None]
    used, total = [used for _, used, _ in gpus], [total for _, _, total in gpus]
    if not busy:
        return None
    return GpuUse(
        sum(busy) / len(busy),
        None if None in used else sum(filter(None, used)),
        None if None in total else sum(filter(None, total)),
    )
