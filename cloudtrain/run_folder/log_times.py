"""When which line of a log was written: the host's `console.times`, and a copy of it beside the log."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.decode import count, moment

NAME = "console.times"
MOST_BYTES = 16 * 2**20  # a line of some 20 bytes a second of a month


class LogTimes:
    """Times of a log's bytes, to a second.

    Args:
        entries: (unix seconds, bytes that the log had by then), both growing.
    """

    def __init__(self, entries: list[tuple[float, int]]) -> None:
        self._times = [at for at, _ in entries]
        self._sizes = [size for _, size in entries]

    @classmethod
    def read(cls, path: Path) -> LogTimes:
        """Those of a local copy; none where there is none. A line that makes no sense is passed over."""
        entries: list[tuple[float, int]] = []
        with suppress(OSError):
            with disk.plain(path) as file:
                lines = file.read(MOST_BYTES).splitlines()
            for line in lines:
                with suppress(ValueError):
                    at, size = line.split()
                    entry = moment(float(at)), count(int(size))
                    if not entries or (entry[1] > entries[-1][1] and entry[0] >= entries[-1][0]):
                        entries.append(entry)
        return cls(entries)

    def at(self, end: int) -> float | None:
        """Unix seconds at which the log had grown to `end` bytes; None: not known."""
        index = bisect_left(self._sizes, end)
        return self._times[index] if index < len(self._times) else None

    def size_before(self, at: float) -> int:
        """How many bytes the log had before `at` (unix seconds); 0 where that is not known."""
        index = bisect_left(self._times, at)
        return self._sizes[index - 1] if index else 0
