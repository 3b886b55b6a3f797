"""One fact a line, nothing redrawn: pipes, log files, screen readers, dumb terminals."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

from cloudtrain.console.colour import painted
from cloudtrain.console.lines import print_lines
from cloudtrain.console.pages import failure, summary
from cloudtrain.console.reporters.base import Reporter, columns_of
from cloudtrain.console.reporters.pulse import Pulse
from cloudtrain.console.reporters.training import Training, cost_words
from cloudtrain.console.reporters.watched import Watched
from cloudtrain.console.text import NARROW, JobLog, epoch_header, epoch_row, in_table, progress, results_block
from cloudtrain.core import events
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.plan import Plan
from cloudtrain.core.states import RunState
from cloudtrain.core.text import fitted, screen_safe, seconds
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run

HEARTBEAT_S = 60.0
_PROGRESS_EVERY_S = 10.0
_TENTHS_EVERY_S = 2.0
_OPEN_AFTER_S = 0.5


class PlainReporter(Reporter):
    """Messages with the time of day on stderr, the Results block on stdout.

    Of a run that is followed a quiet minute ends with a line that says how it stands. A line of its log without an end
    is shown when nothing more has come for a moment, and goes on where it stands; one that is drawn again and again,
    every 10 s and when it is done.

    Args:
        colour: the words that begin a line have theirs.
        tenths: progress is shown at every tenth of the way, for a person who listens; else every 10 s.
        heartbeat_s: seconds without a word after which one is said.
    """

    def __init__(self, *, colour: bool = False, tenths: bool = False, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._colour = colour
        self._tenths = tenths
        self._tenth: tuple[object, int] = (None, 0)
        self._said_at = time.monotonic()
        self._header_shown = False
        self._job_log = JobLog()
        self._drawn: list[str] = []  # the log's open rows when they were last said
        self._open = ""  # of a line without an end what stands on the screen,
        self._goes_on = False  # and whether it is the last thing there
        self._speaking = threading.RLock()
        self._step: tuple[str, float, float | None] | None = None
        self._step_progress = ""
        self._training = Training()
        self._trains = False
        self._watched = Watched()
        self._heartbeat_s = heartbeat_s
        self._pulse: Pulse | None = None
        self._awaited: Pulse | None = None

    def emit(self, event: events.Event) -> None:
        """Show one event."""
        with self._speaking:
            self._emit(event)

    def _emit(self, event: events.Event) -> None:
        match event:
            case events.StepStarted(title, detail, limit_s):
                self._step, self._step_progress = (title, time.monotonic(), limit_s), detail
                limit = f" (at most {seconds(limit_s)})" if limit_s else ""
                self._say(f"step {title}{f' {detail}' if detail else ''}{limit}")
            case events.StepProgress(title, detail, done, total, unit):
                self._step_progress = progress(detail, None if unit == "s" else done, total, unit)
                share = done / total if done is not None and total and unit != "s" else None
                self._progress(f"step {title} {progress(detail, done, total, unit)}", title, share)
            case events.StepDone(title, detail, taken):
                self._step = None
                self._say(f"ok   {title}{f' {detail}' if detail else ''} {seconds(taken)}")
            case events.Metric():
                self._metric(event)
            case events.FiguresTold(told):
                self._training.take_row(told)
            case events.LogLines(data):
                self._log(self._job_log.feed(data))
                if time.monotonic() - self._said_at >= _PROGRESS_EVERY_S:
                    self._open_rows()
                elif self._awaited is not None and self._job_log.open_rows(1):
                    self._awaited.said()
            case events.Noted(message):
                self._say(f"note {message}")
            case events.Warned(message, hint):
                self._say(f"warn {message}")
                if hint:
                    self._say(f"hint {hint}")
            case events.PhaseChanged(_, state):
                self._trains = state is RunState.RUNNING
                self._log(() if self._trains else self._job_log.rest(final=True))
                self._watched.look()

    def _metric(self, event: events.Metric) -> None:
        self._job_log.figures_came()
        values = event.values
        self._training.take(event.kind, values)
        self._trains = self._trains or event.kind in ("start", "step", "epoch")
        self._watched.look(if_due=True)
        if event.kind == "epoch":
            if not self._header_shown and in_table(values):
                self._line(epoch_header(columns_of(sys.stderr) or NARROW))
                self._header_shown = True
            self._line(epoch_row(values, columns_of(sys.stderr) or NARROW))
        elif event.kind == "warning":
            self._say(f"warn {values.get('message') or ''}")
        elif event.kind == "data" and values.get("done") is not None:
            done, total = values["done"], values.get("total")
            share = max(0.0, min(1.0, done / total)) if total else None
            self._progress(f"data set {progress('', done, total, 'B')}", "data set", share)
        elif event.kind == "step" and self._tenths and self._training.step and self._training.steps:
            share = self._training.step / self._training.steps
            self._progress(", ".join(self._training.words()), ("epoch", self._training.epoch), share)

    def _progress(self, text: str, of: object, share: float | None) -> None:
        """Say how far something is, if that is worth a line: by the clock, or at a tenth that is not the last."""
        quiet = time.monotonic() - self._said_at
        if not self._tenths or share is None:
            if quiet >= _PROGRESS_EVERY_S:
                self._say(text)
            return
        tenth = int(10 * share)
        before = self._tenth[1] if self._tenth[0] == of else 0
        if before < tenth < 10 and quiet >= _TENTHS_EVERY_S:
            self._tenth = (of, tenth)
            self._say(f"{text}, {10 * tenth} %")

    def _beat(self) -> bool:
        """A quiet minute is over: what is being waited for, for how long, what it costs; False: nothing is."""
        with self._speaking:
            return self._stands()

    def _stands(self) -> bool:
        if self._step is not None:
            title, since, limit = self._step
            passed = seconds(time.monotonic() - since) + (f" of at most {seconds(limit)}" if limit else "")
            told = [" ".join(part for part in ("step", title, self._step_progress) if part), passed]
        elif self._trains:
            self._log(self._job_log.rest())
            self._open_rows()
            told = self._training.words() or ["training goes on"]
            told += cost_words(self._watched.money(), self._watched.passed_s())
        else:
            return False
        self._say(", ".join(told))
        return True

    def about(self, run: Run, again: Callable[[], Run]) -> None:
        """The run that the events are of. From now on a quiet minute has a word: whoever follows a run closes this."""
        self.close()
        self._watched.about(run, again)
        self._job_log.figured = self._watched.figured
        self._pulse = Pulse(self._beat, self._heartbeat_s)
        self._awaited = Pulse(self._awaits_end, _OPEN_AFTER_S)

    def close(self) -> None:
        """Nothing is waited for any more."""
        for pulse in (self._pulse, self._awaited):
            if pulse is not None:
                pulse.stop()
        if self._goes_on:
            self._write([])

    def plan(self, plan: Plan) -> None:
        """Show what is about to be done and what it can cost."""
        self._watched.plan = plan
        self._job_log.figured = self._watched.figured
        self._write(summary.plan_lines(plan, columns_of(sys.stderr)))

    def result(self, result: Result) -> None:
        """Show how the run ended."""
        self.close()
        self._log(self._job_log.rest(final=True))
        print_lines(*results_block(result.metrics))
        for line in summary.ending_lines(result):
            self._line(f"ok   {line}" if not line.startswith("left") else f"warn {line}")
        self._line(f"{summary.status_word(result)}: {result.run}, {seconds(result.seconds)}")
        error = summary.error_of(result)
        if error is not None:
            self.failure(error)

    def failure(self, error: CloudtrainError) -> None:
        """Show why it did not work."""
        self.close()
        for line in failure.lines(error):
            # Not `_line`: a hint holds a command to copy, which stays whole.
            self._write([line])

    def _log(self, rows: Sequence[str]) -> None:
        for row in rows:
            begun, self._open = self._open, ""
            if begun and row.startswith(begun):
                rest = row[len(begun) :]
                if self._goes_on:
                    self._goes_on = False
                    self._put(f"{rest}\n")
                elif rest.strip():
                    self._line(rest)
            elif row not in self._drawn:
                self._line(row)
        if rows:
            self._drawn = []

    def _awaits_end(self) -> bool:
        """The log has not grown for a moment: what its last line says so far. Always False: it is said but once."""
        with self._speaking:
            if not self._job_log.drawn:
                self._open_rows()
        return False

    def _open_rows(self) -> None:
        """What is drawn, or has no end yet, as far as that was not said."""
        rows = self._job_log.open_rows()
        if self._job_log.drawn or len(rows) != 1:
            for row in rows:
                if row not in self._drawn:
                    self._line(row)
            self._drawn = rows
        elif rows[0].startswith(self._open) and rows[0] != self._open:
            self._put(rows[0][len(self._open) :])
            self._open, self._goes_on = rows[0], True

    def _say(self, text: str) -> None:
        self._line(f"{time.strftime('%H:%M:%S')} {screen_safe(text)}")

    def _line(self, text: str) -> None:
        # On a terminal lines break between words; in a pipe or a file one fact is one line.
        self._write(fitted([text], columns_of(sys.stderr)))
        if self._pulse is not None and (self._step is not None or self._trains):
            self._pulse.said()

    def _write(self, lines: Sequence[str]) -> None:
        ended, self._goes_on = "\n" if self._goes_on else "", False
        self._put(ended + "".join(f"{painted(line) if self._colour else line}\n" for line in lines))

    def _put(self, text: str) -> None:
        self._said_at = time.monotonic()
        sys.stderr.write(text)
        sys.stderr.flush()
