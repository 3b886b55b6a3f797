"""`cloudtrain logs`: the console log on stdout, everything about it on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cloudtrain.console.lines import print_lines, tell, writing
from cloudtrain.console.pages import failure, summary
from cloudtrain.console.reporters.base import Reporter, columns_of, lines_of, may_redraw
from cloudtrain.console.reporters.pulse import Pulse
from cloudtrain.console.reporters.training import cost_words
from cloudtrain.console.reporters.watched import Watched
from cloudtrain.core import disk
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.events import Event, LogLines, Noted, PhaseChanged, StepDone, StepStarted, Warned
from cloudtrain.core.plan import Plan
from cloudtrain.core.secrets import HiddenBytes, Place, blanked
from cloudtrain.core.states import RunState
from cloudtrain.core.terminal import MOST_LINE, LogText
from cloudtrain.core.text import folded, screen_safe, seconds
from cloudtrain.run_folder.log_times import LogTimes
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run

_CHUNK = 1 << 18


class LogView(Reporter):
    """On a terminal lines are made safe, and below those that are done stands what is drawn or has no end yet, and
    while the run trains how long it has been going, what it costs and who ends it; into a pipe or file go the log's own
    bytes.

    Args:
        raw: those go to a terminal, too: the user has asked for it.
        stamped: each line begins with the time of day here at which it was written.
    """

    def __init__(self, *, raw: bool = False, stamped: bool = False) -> None:
        self._raw = raw or not sys.stdout.isatty()
        self._stamped = stamped
        self._times: LogTimes | None = None
        self._line = b""  # raw with times: the one whose end is still to come
        self._newest = "--:--:--"  # when the last bytes were written
        self._text = LogText()
        self._bytes = HiddenBytes()
        self._secrets: Sequence[Place] = ()
        self._drawn: list[str] = []  # the rows that stand on the screen and are not done
        self._path: Path | None = None
        self._shown = 0
        self._set_up = False
        self._watched: Watched | None = None
        self._lives = False  # its last row tells of the run
        self._drawing_lock = threading.RLock()
        self._pulse = Pulse(self._tick, 1.0)

    def about(self, run: Run, again: Callable[[], Run]) -> None:
        """A run that is being set up has no log yet."""
        self._set_up = not (run.state.trains or run.state.final)
        self._watched = Watched()
        self._watched.about(run, again)
        self._live(run.state)

    def _live(self, state: RunState) -> None:
        self._lives = self._watched is not None and state is RunState.RUNNING and not self._raw
        if self._lives and may_redraw(sys.stdout):
            self._pulse.said()

    def _tick(self) -> bool:
        """The last row once more, as of now; whether there is one."""
        try:
            if self._lives:
                self.write(b"")
        except OSError:  # the story's own thread will find that nobody reads
            return False
        return self._lives

    def _foot(self, width: int) -> list[str]:
        if not self._lives or self._watched is None:
            return []
        words = cost_words(self._watched.money(), self._watched.passed_s())
        told = f"{', '.join(words)}   {self.keys}"
        return [told if len(told) <= width else ", ".join(words)[:width]]

    def emit(self, event: Event) -> None:
        """Show log lines, notes, warnings, and the steps before there is a log; nothing else of the story."""
        match event:
            case LogLines(data, offset):
                # Between our look at the file and this event another command may have written to it.
                self._catch_up(offset)
                self.write(data[max(0, self._shown - offset) :], end=offset + len(data), live=True)
                self._shown = max(self._shown, offset + len(data))
            case PhaseChanged(_, state):
                self._set_up = not (state.trains or state.final)
                self._live(state)
                if state is RunState.PROVISIONING:
                    self._shown = 0  # another machine: its log begins at its first byte
            case StepStarted(title, detail) if self._set_up:
                self._say(f"step  {title:<12}{detail}".rstrip())
            case StepDone(title, detail, taken) if self._set_up:
                self._say(f"ok    {title:<12}{detail}  {seconds(taken)}")
            case Noted(message):
                self._say(message)
            case Warned(message, hint):
                self._say(f"warn  {message}")
                if hint:
                    self._say(f"hint  {hint}")
        if self._watched is not None:
            self._watched.look(if_due=True)

    def write(self, data: bytes, *, final: bool = False, end: int | None = None, live: bool = False) -> None:
        """Show raw bytes of the log.

        Args:
            end: where in the log they end, in bytes, where that is known.
            live: they have just come.
        """
        with self._drawing_lock, writing():
            if self._raw and not self._stamped:
                sys.stdout.buffer.write(self._bytes.feed(data, final=final))
            else:
                given = self._stamps(data, final, end, live) if self._stamped else self._text.feed(data, final=final)
                lines = list(given)
                drawing = self._drawing()
                if lines or drawing != self._drawn:
                    self._draw(lines, drawing)
            sys.stdout.flush()

    def _drawing(self) -> list[str]:
        """The rows that are not done, as they fit on the screen below those that are."""
        if self._raw or not may_redraw(sys.stdout):
            return []
        stamp = f"{_clock(time.time())} " if self._stamped else ""
        width = max(20, columns_of(sys.stdout) or 0) - 1 - len(stamp)
        # An old console of Windows knows no way up.
        most = 1 if sys.platform == "win32" else max(1, lines_of(sys.stdout) - 1)
        foot = self._foot(width + len(stamp)) if most > 1 else []
        rows = [part for row in self._text.open_rows(width * most) for part in folded(row, width)]
        return [f"{stamp}{row}" for row in rows[-(most - len(foot)) :]] + foot

    def _draw(self, lines: Sequence[str], drawing: Sequence[str]) -> None:
        """`lines` for good and `drawing` below them. In one go: what goes for a moment blinks."""
        blank = " " * (max(20, columns_of(sys.stdout) or 0) - 1)
        undrawn = "\x1b[A".join([f"\r{blank}\r"] * len(self._drawn))
        sys.stdout.write(undrawn + "".join(f"{line}\n" for line in lines) + "\n".join(drawing))
        self._drawn = [*drawing]

    def _stamps(self, data: bytes, final: bool, end: int | None, live: bool) -> Iterator[str]:
        """Rows, each with the time of the line by whose end it was done."""
        *lines, rest = (self._line + data).split(b"\n")
        if self._raw:  # a line is held back until its end comes, or it is very long
            if rest and (final or len(rest) > MOST_LINE):
                lines, rest = [*lines, rest], b""
            self._line = rest
        left = sum(len(line) + 1 for line in lines) + len(rest)
        for line in lines:
            left -= len(line) + 1
            stamp = self._stamp(end - left if end is not None else None, live) if data else self._newest
            if self._raw:
                sys.stdout.buffer.write(f"{stamp} ".encode() + HiddenBytes().feed(line, final=True) + b"\n")
            else:
                yield from (f"{stamp} {shown}" for shown in self._text.feed(line + b"\n"))
        stamp = self._stamp(end, live) if rest and data else self._newest
        if not self._raw:
            yield from (f"{stamp} {shown}" for shown in self._text.feed(rest, final=final))

    def _stamp(self, end: int | None, live: bool) -> str:
        at = self._times.at(end) if self._times is not None and end is not None else None
        at = time.time() if at is None and live else at
        self._newest = _clock(at) if at is not None else "--:--:--"
        return self._newest

    def show_file(
        self,
        path: Path,
        *,
        last: int | None = None,
        since: float | None = None,
        times: LogTimes | None = None,
        secrets: Sequence[Place] = (),
    ) -> None:
        """Show a local log, its last `last` lines, or what was written after `since` (unix seconds, by `times`); hide
        what stands at the places of `secrets`."""
        self._path, self._times, self._shown, self._secrets = path, times, 0, secrets
        if not disk.is_plain(path):
            return
        self._shown = tail_offset(path, last) if last is not None else 0
        if since is not None and times is not None:
            self._shown = max(self._shown, line_start(path, times.size_before(since)))
        self._catch_up(None)

    def _catch_up(self, end: int | None) -> None:
        """Show what the file holds beyond what was shown, up to `end`."""
        if self._path is None or not disk.is_plain(self._path):
            return
        with disk.plain(self._path) as file:
            file.seek(self._shown)
            while end is None or self._shown < end:
                chunk = file.read(_CHUNK if end is None else min(_CHUNK, end - self._shown))
                if not chunk:
                    return
                chunk = blanked(chunk, self._shown, self._secrets)
                self._shown += len(chunk)
                self.write(chunk, end=self._shown)

    def plan(self, plan: Plan) -> None:
        """Logs plan nothing."""

    def result(self, result: Result) -> None:
        """Say how the run ended."""
        self._still()
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
        self._still()
        self.write(b"", final=True)
        for line in failure.lines(error):
            self._say(line)

    def close(self) -> None:
        """See `Reporter.close`. What is written next begins a line."""
        self._still()
        if self._bytes.held or self._drawn:
            self.write(b"", final=bool(self._bytes.held))
        if self._drawn:
            self._drawn = []
            print_lines("")

    def _still(self) -> None:
        """Nothing is drawn of the run any more."""
        self._lives = False
        self._pulse.stop()

    def _say(self, text: str) -> None:
        with self._drawing_lock:
            drawn = self._drawn
            if drawn:
                with writing():
                    self._draw([], [])
                    sys.stdout.flush()
            tell(screen_safe(text))
            if drawn:
                self.write(b"")


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def line_start(path: Path, offset: int) -> int:
    """The first start of a line of `path` at `offset` or after it, in bytes."""
    if offset <= 0:
        return 0
    with disk.plain(path) as file:
        file.seek(offset - 1)
        return offset - 1 + len(file.readline())


def tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` lines of `path` begin, in bytes. Reads from the end."""
    with disk.plain(path) as file:
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
