"""A terminal: finished steps and epochs stay in the scrollback, and below them a few lines are redrawn."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cloudtrain.console import failure, summary
from cloudtrain.console.base import Reporter
from cloudtrain.console.plain import progress
from cloudtrain.console.text import (
    EPOCH_HEADER,
    UnfiguredLog,
    epoch_row,
    money,
    percent,
    screen_safe,
    seconds,
)
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
from cloudtrain.states import RunState


class LiveReporter(Reporter):
    """Draws on stderr; the Results block goes to stdout."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._step: tuple[str, str, float, float | None] | None = None
        self._step_progress = ""
        self._epoch: dict[str, Any] = {}
        self._best: dict[str, Any] = {}
        self._header_shown = False
        self._unfigured = UnfiguredLog()
        self._plan: Plan | None = None
        self._began = time.monotonic()
        self._began_at = time.time()

    def emit(self, event: Event) -> None:
        """Show one event."""
        match event:
            case StepStarted(title, detail, limit_s):
                self._step = (title, detail, time.monotonic(), limit_s)
                self._step_progress = ""
            case StepProgress(_, detail, done, total, unit):
                self._step_progress = progress(detail, done, total, unit)
            case StepDone(title, detail, taken):
                self._step = None
                self._say("ok", "green", f"{title:<13} {detail}", seconds(taken))
            case Metric():
                self._metric(event)
            case LogLines(data):
                for line in self._unfigured.feed(data):
                    self._print(Text(line))
            case Noted(message):
                self._say("ok", "green", message)
            case Warned(message, hint):
                self._say("warn", "yellow", message)
                if hint:
                    self._print(Text(f"      {screen_safe(hint)}", style="dim"))
            case PhaseChanged(_, state):
                if state is not RunState.RUNNING:
                    self._epoch = {}
        self._refresh()

    def _metric(self, event: Metric) -> None:
        self._unfigured.figures_came()
        values = dict(event.values)
        match event.kind:
            case "step":
                self._epoch = {**self._epoch, **values}
            case "start":
                self._epoch = {**self._epoch, "epochs": values.get("epochs")}
            case "epoch":
                if not self._header_shown:
                    self._print(Text(EPOCH_HEADER, style="dim"))
                    self._header_shown = True
                if values.get("best"):
                    self._best = values
                self._print(Text(epoch_row(values)))
            case "data" if isinstance(values.get("done"), int | float):
                self._step_progress = f"data set {progress('', values['done'], values.get('total'), 'B')}"
            case "warning":
                self._say("warn", "yellow", str(values.get("message", "")))

    def plan(self, plan: Plan) -> None:
        """Show what is about to be done and what it can cost."""
        self._plan = plan
        for i, line in enumerate(summary.plan_lines(plan)):
            self._print(Text(line, style="bold" if i == 0 else ""))

    def result(self, result: Result) -> None:
        """Show how the run ended."""
        self.close()
        for line in self._unfigured.rest():
            self._print(Text(line))
        block = summary.block_lines(result)
        if block:
            sys.stdout.write("\n".join(block) + "\n")
            sys.stdout.flush()
        for line in summary.ending_lines(result):
            word, style = ("warn", "yellow") if line.startswith("left") else ("ok", "green")
            self._say(word, style, line)
        self._say(summary.status_word(result), "bold", f"{result.run}, {seconds(result.seconds)}")
        error = summary.error_of(result)
        if error is not None:
            self.failure(error)

    def failure(self, error: CloudtrainError) -> None:
        """Show why it did not work."""
        self.close()
        for line in failure.lines(error):
            word, _, rest = line.partition(":")
            style = {"error": "bold red", "hint": "bold cyan"}.get(word)
            self._print(Text.assemble((f"{word}:", style), rest) if style else Text(line))

    def close(self) -> None:
        """Take the redrawn lines away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _say(self, word: str, style: str, text: str, aside: str = "") -> None:
        line = Text.assemble((f"{word:<5} ", style), screen_safe(text))
        if aside:
            room = self._console.width - line.cell_len - len(aside) - 1
            line.append(" " * max(room, 2) if room < 60 else "   ").append(aside, style="dim")
        self._print(line)

    def _print(self, line: Text) -> None:
        self._console.print(line)

    def _refresh(self) -> None:
        if self._step is None and not self._epoch:
            self.close()
        elif self._live is None:
            self._live = Live(
                get_renderable=self._drawing,
                console=self._console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _drawing(self) -> Group:
        """The redrawn lines, made anew at each refresh so that times tick."""
        parts: list[Any] = []
        if self._step is not None:
            title, detail, since, limit = self._step
            line = Text(f"{title:<13} {detail} {self._step_progress} ".rstrip() + " ")
            line.append(seconds(time.monotonic() - since), style="dim")
            if limit:
                line.append(f" of at most {seconds(limit)}", style="dim")
            parts.append(Spinner("line", line))
        elif self._epoch:
            parts += self._training()
        return Group(*parts)

    def _training(self) -> list[Any]:
        now = self._epoch
        bar = Table.grid(padding=(0, 1))
        step, steps = now.get("step"), now.get("steps")
        cells: list[Any] = [Text(f"epoch {now.get('epoch', '-')}/{now.get('epochs', '-')}")]
        if isinstance(step, int) and isinstance(steps, int) and steps > 0:
            if self._console.width >= 60:
                cells.append(ProgressBar(total=steps, completed=step, width=min(30, self._console.width - 50)))
            rate = now.get("rate")
            cells.append(Text(f"step {step}/{steps}"))
            if isinstance(rate, int | float) and rate > 0:
                left = (steps - step) / rate
                cells.append(Text(f"{rate:.0f} it/s"))
                cells.append(Text(f"{seconds(left)} left in this epoch", style="dim"))
        bar.add_row(*cells)
        lines: list[Any] = [bar]
        if self._best:
            goal = "goal 99.40% " + ("met" if (self._best.get("test_acc") or 0) >= 99.4 else "not yet")
            lines.append(
                Text(f"best test acc {percent(self._best.get('test_acc'))} (epoch {self._best.get('epoch')})  {goal}")
            )
        passed = seconds(time.monotonic() - self._began)
        ec2 = self._plan.spec.ec2 if self._plan is not None else None
        if self._plan is not None and self._plan.at_most_usd is not None and self._plan.price_per_hour:
            spent = self._plan.price_per_hour * (time.monotonic() - self._began) / 3600
            cost = f"cost about {money(spent)} of at most {money(self._plan.at_most_usd)}, {passed}"
            if ec2 is not None and ec2.rehearsal:
                cost = f"rehearsal, nothing is billed; on EC2 {cost}"
            elif ends := summary.ends_by(self._plan, self._began_at):
                cost += f", ends itself by {ends}"
        else:
            cost = f"{passed}, nothing is billed"
        lines.append(Text(f"{cost}   Ctrl-C leaves it training", style="dim"))
        return lines
