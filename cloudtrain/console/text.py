"""Words, numbers and foreign text made fit for a screen. Pure: nothing here prints."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core.text import LogText, ordinal, percent, seconds, size


class UnfiguredLog:
    """The log lines of a job that tells no figures: such a job is shown by its own words, the others by their figures.

    The first lines are held back for a moment, since a job's first event may come just after them.
    """

    HOLD_S = 3.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._text = LogText()
        self._held: list[str] = []
        self._since: float | None = None
        self._silent = False
        self._lock = threading.RLock()

    def figures_came(self) -> None:
        """The job tells figures: show no line of its log."""
        with self._lock:
            self._silent = True
            self._held = []

    def feed(self, data: bytes) -> list[str]:
        """The lines to show now."""
        with self._lock:
            lines = self._text.feed(data)
            if self._silent:
                return []
            if self._since is None:
                self._since = self._clock()
            self._held += lines
            if self._holds and len(self._held) < 200:
                return []
            return self.rest()

    def rest(self, *, final: bool = False) -> list[str]:
        """What is still held back, when nothing more will come for a while; any thread may ask.

        Args:
            final: nothing more comes: also a line that has no end.
        """
        with self._lock:
            lines = self._text.feed(b"", final=True) if final else []
            held, self._held = [*self._held, *([] if self._silent else lines)], []
            return held

    @property
    def last(self) -> str | None:
        """The log's last line as it stands now, if it is not among those that were shown, else ""; None: the job tells
        figures, or nothing at all."""
        with self._lock:
            if self._silent or self._since is None:
                return None
            return self._text.unfinished or (self._held[-1] if self._held and not self._holds else "")

    @property
    def _holds(self) -> bool:
        return self._since is not None and self._clock() - self._since < self.HOLD_S


NARROW = 52
"""Columns below which the table of epochs and others show fewer figures."""

EPOCH_HEADER_NARROW = "  epoch  test acc     time"


def epoch_header(width: int) -> str:
    """The header above the rows of `epoch_row`."""
    return EPOCH_HEADER if width >= NARROW else EPOCH_HEADER_NARROW


EPOCH_HEADER = "  epoch  train acc  test loss  test acc     time"


def epoch_row(values: Mapping[str, Any], width: int = NARROW) -> str:
    """One finished epoch, below `epoch_header`."""
    count = "/".join("?" if values.get(name) is None else str(values[name]) for name in ("epoch", "epochs"))
    loss = values.get("test_loss")
    taken = values.get("seconds")
    train = f"{percent(values.get('train_acc')):>9}  {f'{loss:.4f}' if isinstance(loss, float) else '-':>9}  "
    row = (
        f"{count:>7}  {train if width >= NARROW else ''}{percent(values.get('test_acc')):>8}"
        f"  {seconds(taken) if taken is not None else '-':>7}"
    )
    return f"{row}  best" if values.get("best") else row


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
