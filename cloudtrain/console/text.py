"""Words, numbers and foreign text made fit for a screen. Pure: nothing here prints."""

from __future__ import annotations

import codecs
import os
import re
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Escape sequences of a terminal, 7- and 8-bit: CSI; OSC and other strings up to their end; any two-byte sequence.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
)


def screen_safe(text: str) -> str:
    """`text` without anything that a terminal obeys: escapes, control characters, text-direction overrides.

    Tabs stay. What is left is drawn, never executed.
    """
    if text.isprintable():  # nearly all lines, and many times quicker
        return text
    text = _ESCAPES.sub("", text)
    return "".join(c for c in text if c == "\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))


class LogText:
    """Raw log bytes, as they come, to lines for a screen: whole UTF-8, the last state of each redrawn line."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._open = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """The lines that `data` completes; with `final` also one that has no end."""
        text = self._open + self._decoder.decode(data, final)
        *lines, self._open = text.split("\n")
        if final and self._open:
            lines.append(self._open)
            self._open = ""
        return [screen_safe(_last_state(line)) for line in lines]


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
            if self._clock() - self._since < self.HOLD_S and len(self._held) < 200:
                return []
            return self.rest()

    def rest(self) -> list[str]:
        """What is still held back, when nothing more will come for a while; any thread may ask."""
        with self._lock:
            held, self._held = self._held, []
            return held


def _last_state(line: str) -> str:
    """What a terminal would show of a line that was redrawn with carriage returns."""
    if "\r" not in line:
        return line
    states = [state for state in line.split("\r") if state.strip()]
    return states[-1] if states else ""


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def seconds(value: float) -> str:
    """A span for people: 0.4 s, 12 s, 3m 05s, 1h 02m, 2 days."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 99.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24} days"


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: 812 B, 38 kB, 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.2g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def money(usd: float) -> str:
    """US dollars, to the cent, or to the tenth of one below a cent."""
    return f"${usd:.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.3f}"


def percent(value: Any) -> str:
    """An accuracy, or "-" where there is none."""
    return f"{value:.2f}%" if isinstance(value, (int, float)) else "-"


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Lines of an aligned table; the columns in `right` are set to the right."""
    rows = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    to_right = set(right)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in to_right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def wrapped(text: str, width: int, hang: int = 0) -> list[str]:
    """`text` in lines of at most `width` columns, broken between words; the second and later ones set in by `hang`.

    A word that is wider than a line stays whole: a path or a key must come out of the terminal as it went in.
    """
    if len(text) <= width:
        return [text]
    hang = hang if width - hang >= 16 else min(2, max(0, width - 16))
    return textwrap.wrap(
        text,
        max(width, 16),
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    ) or [text]


def fitted(lines: Iterable[str], width: int | None, hang: int | None = None) -> list[str]:
    """`lines`, each broken as by `wrapped` where there is a `width`.

    Args:
        hang: what second and later lines are set in by; None: two columns more than the line itself.
    """
    if width is None:
        return list(lines)
    return [
        part
        for line in lines
        for part in wrapped(line, width, len(line) - len(line.lstrip()) + 2 if hang is None else hang)
    ]


NARROW = 52
"""Columns below which the table of epochs and others show fewer figures."""

EPOCH_HEADER_NARROW = "  epoch  test acc     time"


def epoch_header(width: int) -> str:
    """The header above the rows of `epoch_row`."""
    return EPOCH_HEADER if width >= NARROW else EPOCH_HEADER_NARROW


EPOCH_HEADER = "  epoch  train acc  test loss  test acc     time"


def epoch_row(values: Mapping[str, Any], width: int = NARROW) -> str:
    """One finished epoch, below `epoch_header`."""
    count = f"{values.get('epoch', '?')}/{values.get('epochs', '?')}"
    loss = values.get("test_loss")
    taken = values.get("seconds")
    train = f"{percent(values.get('train_acc')):>9}  {f'{loss:.4f}' if isinstance(loss, float) else '-':>9}  "
    row = (
        f"{count:>7}  {train if width >= NARROW else ''}{percent(values.get('test_acc')):>8}"
        f"  {seconds(taken) if isinstance(taken, (int, float)) else '-':>7}"
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


def iso(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 UTC, to the second, for programs."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def shown_path(path: Path) -> str:
    """A path as a person at this folder would type it."""
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return str(path)
    return str(path) if relative.startswith("..") else relative
