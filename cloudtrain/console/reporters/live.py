"""A terminal: finished steps and epochs stay in the scrollback, and below them a few lines are redrawn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.text import Text

from cloudtrain.console.lines import print_lines
from cloudtrain.console.pages import failure, summary
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.console.reporters.training import Training
from cloudtrain.console.reporters.watched import Watched
from cloudtrain.console.text import NARROW, JobLog, epoch_header, epoch_row, in_table, progress, results_block
from cloudtrain.core import events
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.figures import EVENTS, row
from cloudtrain.core.plan import Plan
from cloudtrain.core.states import RunState
from cloudtrain.core.text import folded, screen_safe, seconds, wrapped
from cloudtrain.core.told import EVENTS as EVENTS_FILE
from cloudtrain.core.told import read_events
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run

_WORD = 6  # columns of "ok", "warn", and of what hangs below them
_TITLE = 14
_ASIDE_AT = 79
_SPIN, _SPIN_ASCII = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"


class LiveReporter(Reporter):
    """Draws on stderr; the Results block goes to stdout.

    Args:
        clock: seconds that only go forward; wall: unix seconds. Tests hand in their own.
        ticking: redraw by itself, eight times a second, so that times tick; else only when something comes.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ticking: bool = True,
    ) -> None:
        # Lines are broken between words here; what is wider than the terminal all the same must not be cut by Rich.
        self._console = console or Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._clock, self._ticking = clock, ticking
        self._live: _Redrawn | None = None
        self._step: tuple[str, str, float, float | None] | None = None
        self._step_progress = ""
        self._training = Training()
        self._trains = False
        self._header_shown = False
        self._job_log = JobLog(clock)
        self._watched = Watched(clock, wall)

    def emit(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.StepStarted(title, detail, limit_s):
                self._step = (title, detail, self._clock(), limit_s)
                self._step_progress = ""
            case events.StepProgress(_, detail, done, total, unit):
                # How long it has taken, of at most how long, ticks beside it.
                self._step_progress = progress(detail, None if unit == "s" else done, total, unit)
            case events.StepDone(title, detail, taken):
                self._step = None
                self._done(title, detail, taken)
            case events.Metric():
                self._metric(event)
            case events.FiguresTold(told):
                self._training.take_row(told)
            case events.GpuUse():
                self._training.take_gpu(event)
            case events.LogLines(data):
                self._log(self._job_log.feed(data))
            case events.Noted(message):
                self._say("ok", "green", message)
            case events.Warned(message, hint):
                self._say("warn", "yellow", message)
                if hint:
                    self._print(Text(f"{'':<{_WORD}}{screen_safe(hint)}", style="dim"))
            case events.PhaseChanged(_, state):
                self._trains = state is RunState.RUNNING
                self._log(() if self._trains else self._job_log.rest(final=True))
                self._watched.look()
        self._refresh()

    def _metric(self, event: events.Metric) -> None:
        self._job_log.figures_came()
        values = dict(event.values)
        self._training.take(event.kind, values)
        match event.kind:
            case "start" | "step":
                self._trains = True
            case "epoch":
                self._trains = True
                if not self._header_shown and in_table(values):
                    self._print(Text(epoch_header(self._console.width), style="dim"))
                    self._header_shown = True
                self._print(Text(epoch_row(values, self._console.width)))
            case "data" if values.get("done") is not None:
                self._step_progress = f"data set {progress('', values['done'], values.get('total'), 'B')}"
            case "warning":
                self._say("warn", "yellow", values.get("message") or "")
        self._watched.look(if_due=True)

    def about(self, run: Run, again: Callable[[], Run]) -> None:
        """The run that the events are of, and a look at how it stands later: another command may have extended it."""
        self._watched.about(run, again)
        self._job_log.figured = self._watched.figured
        if not run.state.final and not self._training.told:
            for values in read_events(run.folder / EVENTS_FILE):
                self._training.take(values.get("kind", ""), values)
                if not self._watched.figured and (told := row(values, EVENTS)) is not None:
                    self._training.take_row(told)

    def plan(self, plan: Plan) -> None:
        """Show what is about to be done and what it can cost."""
        self._watched.plan = plan
        self._job_log.figured = self._watched.figured
        for i, line in enumerate(summary.plan_lines(plan, self._console.width)):
            self._print(Text(line, style="bold" if i == 0 else ""))

    def result(self, result: Result) -> None:
        """Show how the run ended."""
        self.close()
        self._log(self._job_log.rest(final=True))
        print_lines(*results_block(result.metrics))
        for line in summary.ending_lines(result):
            word, style = ("warn", "yellow") if line.startswith("left") else ("ok", "green")
            self._say(word, style, line, hang=_WORD + 9 if self._console.width >= NARROW else _WORD)
        self._say(summary.status_word(result), "bold", f"{result.run}, {seconds(result.seconds)}")
        error = summary.error_of(result)
        if error is not None:
            self.failure(error)

    def failure(self, error: CloudtrainError) -> None:
        """Show why it did not work."""
        self.close()
        for line in failure.lines(error, self._console.width):
            word = line.partition(":")[0]
            shown = Text(line)
            shown.stylize({"error": "bold red", "hint": "bold cyan"}.get(word, ""), 0, len(word) + 1)
            self._print(shown)

    def close(self) -> None:
        """Take the redrawn lines away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _done(self, title: str, detail: str, taken: float) -> None:
        narrow = self._console.width < NARROW
        text = f"{title}  {detail}" if narrow else f"{title:<{_TITLE}}{detail}"
        aside = seconds(taken)
        if taken < 1 and _WORD + len(text) + len(aside) + 2 > min(self._console.width, _ASIDE_AT):
            aside = ""  # not worth a line of its own
        self._say("ok", "green", text, aside, hang=_WORD if narrow else _WORD + _TITLE)

    def _say(self, word: str, style: str, text: str, aside: str = "", *, hang: int = _WORD) -> None:
        width = self._console.width
        lines = wrapped(f"{word:<{_WORD - 1}} {screen_safe(text)}", width, hang)
        if aside:
            room = min(width, _ASIDE_AT) - len(lines[-1]) - len(aside)
            if room >= 2:
                lines[-1] += " " * room + aside
            else:
                lines.append(aside.rjust(min(width, _ASIDE_AT)))
        for i, line in enumerate(lines):
            shown = Text(line)
            if i == 0:
                shown.stylize(style, 0, len(word))
            if aside and i == len(lines) - 1:
                shown.stylize("dim", len(line) - len(aside))
            self._print(shown)

    def _log(self, lines: Sequence[str]) -> None:
        if lines:
            self._print(Text("\n".join(lines)))  # at once: what is drawn below them is drawn again but once

    def _print(self, line: Text) -> None:
        self._console.print(line)

    def _refresh(self) -> None:
        if self._step is None and not self._trains:
            self.close()
        elif self._live is None:
            self._live = _Redrawn(
                get_renderable=self._drawing,
                console=self._console,
                auto_refresh=self._ticking,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
        elif not self._ticking:
            self._live.refresh()

    def _drawing(self) -> Text:
        """The redrawn lines, made anew at each refresh so that times tick."""
        # One column stays free: a terminal that is written full may wrap, and the count of lines would be wrong.
        width = max(1, self._console.width - 1)
        if self._step is None and not self._trains:
            return Text()  # on its way to be taken away
        if self._step is not None:
            lines = self._step_lines(width)
        else:
            watched, ascii_only = self._watched, self._console.options.ascii_only
            passed, cost = watched.passed_s(), watched.money()
            lines = self._training.lines(width, passed, cost, self.keys, ascii_only=ascii_only)
            room = max(1, self._console.height - 1 - len(lines))
            rows = [*self._job_log.held, *self._job_log.open_rows(width * room)]
            lines[:0] = [part for row in rows for part in folded(row, width)][-room:]
        drawn = Text("\n".join(line[:width] for line in lines[: max(1, self._console.height - 1)]), no_wrap=True)
        if self._step is None:
            drawn.stylize("dim", drawn.plain.rfind("\n") + 1)
        if self._live is not None:
            self._live.drawing = drawn.plain
        return drawn

    def _step_lines(self, width: int) -> list[str]:
        assert self._step is not None
        title, detail, since, limit = self._step
        passed = self._clock() - since
        ascii_only = self._console.options.ascii_only
        spin = _SPIN_ASCII if ascii_only else _SPIN
        ticking = seconds(passed) + (f" of at most {seconds(limit)}" if limit else "")
        told = " ".join(part for part in (screen_safe(detail), screen_safe(self._step_progress)) if part)
        line = f"{spin[int(passed * 8) % len(spin)]:<{_WORD}}{title:<{_TITLE}}{told}".rstrip()
        room = min(width, _ASIDE_AT) - len(line) - len(ticking)
        if room >= 2:
            return [line + " " * room + ticking]
        return [line, f"{'':<{_WORD}}{ticking}"]


class LiveLines:
    """Lines on stdout that are drawn over each other; the last ones stay."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._drawn = Text()
        self._live = _Redrawn(
            get_renderable=lambda: self._drawn,
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveLines:
        self._live.start()
        return self

    def __exit__(self, *exit_info: object) -> None:
        self._live.stop()

    @property
    def width(self) -> int:
        """Columns that a line may have. One stays free: a terminal that is written full may wrap."""
        return max(1, self._console.width - 1)

    def show(self, lines: Sequence[str]) -> None:
        """Draw `lines`, as many as the screen has, and in any case the last one."""
        most = max(2, self._console.height - 1)
        if len(lines) > most:
            lines = [*lines[: most - 2], f"... {len(lines) - most + 1} more lines", lines[-1]][-most:]
        self._drawn = Text.from_ansi("\n".join(lines), no_wrap=True)
        self._live.drawing = self._drawn.plain
        self._live.refresh()


class _Redrawn(Live):
    """Rich's Live, which goes back up by as many lines as it drew. A terminal that was made narrower since then shows
    them as more lines, and what is not counted would stay in the scrollback."""

    drawing = ""
    """The lines that are drawn next; whoever makes them puts them here too."""
    _shown: tuple[str, int] | None = None

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Count the lines that are on the screen now, then go on as ever."""
        width = self.console.width
        if self._shown is not None and self._live_render._shape is not None and width < self._shown[1]:
            rows = sum(max(1, math.ceil(cell_len(line) / width)) for line in self._shown[0].split("\n"))
            self._live_render._shape = (width, rows)
        self._shown = (self.drawing, width)
        return super().process_renderables(renderables)
