"""`cloudtrain logs`: the console log on stdout, everything about it on stderr."""

from __future__ import annotations

import sys
from pathlib import Path

from cloudtrain.console import failure, summary
from cloudtrain.console.base import Reporter
from cloudtrain.console.text import LogText, screen_safe
from cloudtrain.errors import CloudtrainError
from cloudtrain.events import Event, LogLines, Noted, PhaseChanged, Warned
from cloudtrain.outcome import Result
from cloudtrain.plan import Plan
from cloudtrain.states import RunState

_CHUNK = 1 << 18


class LogView(Reporter):
    """On a terminal lines are made safe; into a pipe or file go the log's own bytes.

    Args:
        raw: those go to a terminal, too: the user has asked for it.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw or not sys.stdout.isatty()
        self._text = LogText()
        self._path: Path | None = None
        self._shown = 0

    def emit(self, event: Event) -> None:
        """Show log lines, notes and warnings; nothing else of the story."""
        match event:
            case LogLines(data, offset):
                # Between our look at the file and this event another command may have written to it.
                self._catch_up(offset)
                self.write(data[max(0, self._shown - offset) :])
                self._shown = max(self._shown, offset + len(data))
            case PhaseChanged(_, RunState.PROVISIONING):
                self._shown = 0  # another machine: its log begins at its first byte
            case Noted(message):
                self._say(message)
            case Warned(message, hint):
                self._say(f"warn  {message}")
                if hint:
                    self._say(f"hint  {hint}")

    def write(self, data: bytes, *, final: bool = False) -> None:
        """Show raw bytes of the log."""
        if self._raw:
            sys.stdout.buffer.write(data)
        else:
            for line in self._text.feed(data, final=final):
                sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def show_file(self, path: Path, *, last: int | None = None) -> None:
        """Show a local log, or its last `last` lines."""
        self._path = path
        if not path.exists():
            return
        self._shown = tail_offset(path, last) if last is not None else 0
        self._catch_up(None)

    def _catch_up(self, end: int | None) -> None:
        """Show what the file holds beyond what was shown, up to `end`."""
        if self._path is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._shown)
            while end is None or self._shown < end:
                chunk = file.read(_CHUNK if end is None else min(_CHUNK, end - self._shown))
                if not chunk:
                    return
                self.write(chunk)
                self._shown += len(chunk)

    def plan(self, plan: Plan) -> None:
        """Logs plan nothing."""

    def result(self, result: Result) -> None:
        """Say how the run ended."""
        self._catch_up(None)
        self.write(b"", final=True)
        for line in summary.ending_lines(result):
            self._say(line)
        self._say(f"{summary.status_word(result)}: {result.run}")
        error = summary.error_of(result)
        if error is not None:
            self.failure(error)

    def failure(self, error: CloudtrainError) -> None:
        """Say why it did not work."""
        self.write(b"", final=True)
        for line in failure.lines(error):
            self._say(line)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{screen_safe(text)}\n")
        sys.stderr.flush()


def tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` lines of `path` begin, in bytes. Reads from the end."""
    with path.open("rb") as file:
        position = file.seek(0, 2)
        if lines <= 0:
            return position
        # A final newline ends the last line, it does not begin another one.
        wanted, block = lines, b""
        first = True
        while position > 0:
            step = min(_CHUNK, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            end = len(block)
            if first and block.endswith(b"\n"):
                end -= 1
            first = False
            while (at := block.rfind(b"\n", 0, end)) >= 0:
                wanted -= 1
                if wanted == 0:
                    return position + at + 1
                end = at
        return 0
