"""Words, numbers and foreign text made fit for a screen. Pure: nothing here prints."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core.figures import EVENTS, row, shown
from cloudtrain.core.terminal import MOST_LINE, LogText
from cloudtrain.core.text import ordinal, percent, seconds, shortened, size


class JobLog:
    """A job's log for a screen: the rows that are done, and below them those that it still draws.

    Attributes:
        figured: the job's figures say what its log does, and are shown in its place. They may come a moment after its
            first rows, which are not done so long.
    """

    HOLD_S = 3.0
    MOST_HELD = 200

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.figured = False
        self._clock = clock
        self._text = LogText()
        self._held: list[str] = []
        self._since: float | None = None
        self._silent = False
        self._lock = threading.RLock()

    def figures_came(self) -> None:
        """The job tells figures."""
        with self._lock:
            self._silent = self.figured

    def feed(self, data: bytes) -> list[str]:
        """The rows to show now."""
        with self._lock:
            self._held += () if self._silent else self._text.feed(data)
            if self._since is None:
                self._since = self._clock()
            waits = self.figured and self._clock() - self._since < self.HOLD_S
            return [] if waits and len(self._held) < self.MOST_HELD else self.rest()

    def rest(self, *, final: bool = False) -> list[str]:
        """What is held back, when nothing more will come for a while; any thread may ask.

        Args:
            final: nothing more comes: also what is not done.
        """
        with self._lock:
            held, self._held = [*self._held, *(self._text.feed(b"", final=True) if final else ())], []
            return [] if self._silent else held

    def open_rows(self, most: int = MOST_LINE) -> list[str]:
        """What a terminal would show below the rows that are done, of each its last `most` columns."""
        with self._lock:
            return [] if self._silent else self._text.open_rows(most)

    @property
    def held(self) -> list[str]:
        """The rows that are held back."""
        with self._lock:
            return [] if self._silent else [*self._held]

    @property
    def drawn(self) -> bool:
        """Whether a row that is not done has been drawn anew: it is not just a line whose end is still to come."""
        with self._lock:
            return self._text.drawn


NARROW = 52
"""Columns below which the table of epochs and others show fewer figures."""

EPOCH_HEADER_NARROW = "  epoch  test acc     time"


def epoch_header(width: int) -> str:
    """The header above the rows of `epoch_row`."""
    return EPOCH_HEADER if width >= NARROW else EPOCH_HEADER_NARROW


EPOCH_HEADER = "  epoch  train acc  test loss  test acc     time"


def epoch_row(values: Mapping[str, Any], width: int = NARROW) -> str:
    """One finished epoch, below `epoch_header` where `in_table` says so."""
    count = "/".join("?" if values.get(name) is None else str(values[name]) for name in ("epoch", "epochs"))
    if not in_table(values):
        taken = values.get("seconds")
        told = row(values, EVENTS)
        parts = [f"epoch {count.removesuffix('/?')}", *figure_words(told.values if told is not None else {})]
        return "  ".join([*parts, *([seconds(taken)] if taken is not None else [])])
    loss = values.get("test_loss")
    taken = values.get("seconds")
    train = f"{percent(values.get('train_acc')):>9}  {f'{loss:.4f}' if isinstance(loss, float) else '-':>9}  "
    line = (
        f"{count:>7}  {train if width >= NARROW else ''}{percent(values.get('test_acc')):>8}"
        f"  {seconds(taken) if taken is not None else '-':>7}"
    )
    return f"{line}  best" if values.get("best") else line


def in_table(values: Mapping[str, Any]) -> bool:
    """Whether an epoch tells something that the table of epochs has a column for."""
    return any(values.get(name) is not None for name in ("train_acc", "test_loss", "test_acc"))


# Figures of an event that say how the training goes on, not how good it is.
_WAY = frozenset(("seconds", "rate", "done", "total"))
_MOST_FIGURES = 8


def figure_words(values: Mapping[str, float]) -> list[str]:
    """ "val_ppl 12.31" and so on, the parts of a line."""
    words = [f"{shortened(name, 24)} {shown(value)}" for name, value in values.items() if name not in _WAY]
    more = len(words) - _MOST_FIGURES
    return [*words[:_MOST_FIGURES], f"{more} more"] if more > 0 else words


def results_block(metrics: Mapping[str, Any]) -> list[str]:
    """The closing block of a training log, from the job's own figures; empty where they are not all there."""
    parameters, epoch = metrics.get("parameters"), metrics.get("best_epoch")
    train, test = metrics.get("best_train_acc"), metrics.get("best_test_acc")
    if not isinstance(parameters, int) or not isinstance(epoch, int) or train is None or test is None:
        return []
    rule = "=" * 19
    return [
        rule,
        "Results:",
        f"Parameters: {parameters / 1000:.1f}k",
        f"Best Train Accuracy: {train:.2f}",
        f"Best Test Accuracy: {test:.2f} ({ordinal(epoch)} Epoch)",
        rule,
    ]


def shown_path(path: Path) -> str:
    """A path as a person at this folder would type it."""
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return str(path)
    return str(path) if relative.startswith("..") else relative


def progress(detail: str, done: float | None, total: float | None, unit: str) -> str:
    """How far something is, in words."""
    parts = [detail] if detail else []
    if done is not None and unit == "s":
        parts.append(f"{seconds(done)} of {seconds(total)}" if total else seconds(done))
    elif done is not None:
        shown = (
            (size(done), size(total) if total else "") if unit == "B" else (f"{done:g}", f"{total:g}" if total else "")
        )
        parts.append(f"{shown[0]} of {shown[1]}" if shown[1] else shown[0])
        if unit not in ("", "B"):
            parts[-1] += f" {unit}"
    return " ".join(parts)


def verdicts(goals: Mapping[str, Any]) -> str:
    """Goals of the job, and whether each was met; what it says neither of is not judged, as on a part of the data."""
    words = {"True": "met", "False": "not met"}
    return ", ".join(f"{goal} {words.get(str(met), 'not judged')}" for goal, met in goals.items())
