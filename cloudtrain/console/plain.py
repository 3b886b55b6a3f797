"""One fact a line, nothing redrawn: pipes, log files, screen readers, dumb terminals."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from cloudtrain.console import failure, summary
from cloudtrain.console.base import Reporter
from cloudtrain.console.colour import painted
from cloudtrain.console.text import NARROW, UnfiguredLog, epoch_header, epoch_row, screen_safe, seconds, size, wrapped
from cloudtrain.errors import CloudtrainError
from cloudtrain.events import (
    Event,
    LogLines,
    Metric,
    Noted,
    PhaseChanged,
    StepDone,
    StepProgress,
    StepStarted,
    Warned,
)
from cloudtrain.outcome import Result
from cloudtrain.plan import Plan

HEARTBEAT_S = 60.0
_PROGRESS_EVERY_S = 10.0


class PlainReporter(Reporter):
    """Messages with the time of day on stderr, the Results block on stdout.

    Args:
        colour: the words that begin a line have theirs.
    """

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour
        self._said_at = time.monotonic()
        self._header_shown = False
        self._unfigured = UnfiguredLog()

    def emit(self, event: Event) -> None:
        """Show one event."""
        match event:
            case StepStarted(title, detail, limit_s):
                limit = f" (at most {seconds(limit_s)})" if limit_s else ""
                self._say(f"step {title}{f' {detail}' if detail else ''}{limit}")
            case StepProgress(title, detail, done, total, unit):
                if time.monotonic() - self._said_at >= _PROGRESS_EVERY_S:
                    self._say(f"step {title} {progress(detail, done, total, unit)}")
            case StepDone(title, detail, taken):
                self._say(f"ok   {title}{f' {detail}' if detail else ''} {seconds(taken)}")
            case Metric():
                self._metric(event)
            case LogLines(data):
                for line in self._unfigured.feed(data):
                    self._line(line)
            case Noted(message):
                self._say(f"note {message}")
            case Warned(message, hint):
                self._say(f"warn {message}")
                if hint:
                    self._say(f"hint {hint}")
            case PhaseChanged():
                pass

    def _metric(self, event: Metric) -> None:
        self._unfigured.figures_came()
        values = event.values
        if event.kind == "epoch":
            if not self._header_shown:
                self._line(epoch_header(_width() or NARROW))
                self._header_shown = True
            self._line(epoch_row(values, _width() or NARROW))
        elif event.kind == "warning":
            self._say(f"warn {screen_safe(str(values.get('message', '')))}")
        elif event.kind == "data" and isinstance(values.get("done"), int | float):
            if time.monotonic() - self._said_at >= _PROGRESS_EVERY_S:
                self._say(f"data set {progress('', values['done'], values.get('total'), 'B')}")
        elif event.kind == "step" and time.monotonic() - self._said_at >= HEARTBEAT_S:
            self._say(f"epoch {values.get('epoch')} step {values.get('step')} of {values.get('steps')}")

    def plan(self, plan: Plan) -> None:
        """Show what is about to be done and what it can cost."""
        self._write(summary.plan_lines(plan, _width()))

    def result(self, result: Result) -> None:
        """Show how the run ended."""
        for line in self._unfigured.rest():
            self._line(line)
        block = summary.block_lines(result)
        if block:
            sys.stdout.write("\n".join(block) + "\n")
            sys.stdout.flush()
        for line in summary.ending_lines(result):
            self._line(f"ok   {line}" if not line.startswith("left") else f"warn {line}")
        self._line(f"{summary.status_word(result)}: {result.run}, {seconds(result.seconds)}")
        error = summary.error_of(result)
        if error is not None:
            self.failure(error)

    def failure(self, error: CloudtrainError) -> None:
        """Show why it did not work."""
        for line in failure.lines(error):
            # Not `_line`: a hint holds a command to copy, which stays whole.
            self._write([line])

    def _say(self, text: str) -> None:
        self._said_at = time.monotonic()
        self._line(f"{time.strftime('%H:%M:%S')} {screen_safe(text)}")

    def _line(self, text: str) -> None:
        # On a terminal lines break between words; in a pipe or a file one fact is one line.
        width = _width()
        hang = len(text) - len(text.lstrip()) + 2
        self._write(wrapped(text, width, hang) if width else [text])

    def _write(self, lines: Sequence[str]) -> None:
        sys.stderr.write("".join(f"{painted(line) if self._colour else line}\n" for line in lines))
        sys.stderr.flush()


def _width() -> int | None:
    """Columns of the terminal behind stderr; None: there is none, a line may be as long as it is."""
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else None


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
