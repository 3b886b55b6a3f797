"""What is known of a run that trains, as the few lines that are redrawn below the scrollback. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudtrain.console.text import figure_words
from cloudtrain.core.events import GpuUse
from cloudtrain.core.figures import EVENTS, Row, position, trust
from cloudtrain.core.text import money, percent, seconds

_BLOCKS = "▁▂▃▄▅▆▇█"
_BLOCKS_ASCII = "_.:-=+*#"
_BAR = ("━", "╸", " ")
_BAR_ASCII = ("#", "-", " ")
_SPARKS = 20
_GPU_SAMPLES = 10  # of some seconds each
_MOST_FIGURES = 64
_STARVED = 40.0  # percent: a GPU that is less busy waits for what it is given, most of the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What the run costs, as far as the screen may say.

    Attributes:
        spent: USD so far; None: nothing is billed.
        at_most: USD that it can cost.
        ends: time of day at which it ends itself.
        rehearsed: nothing is billed; the figures are those of the real run.
    """

    spent: float | None = None
    at_most: float | None = None
    ends: str | None = None
    rehearsed: bool = False


@dataclass(slots=True)
class Training:
    """The figures that a job has told so far.

    Attributes:
        figures: of a job that calls them as it likes the newest of each name, with its row.
    """

    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    rate: float | None = None
    goal: float | None = None
    accuracies: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    figures: dict[str, tuple[float, Row]] = field(default_factory=dict)
    _epoch_s: list[float] = field(default_factory=list)
    _gpu: deque[GpuUse] = field(default_factory=lambda: deque(maxlen=_GPU_SAMPLES))

    @property
    def told(self) -> bool:
        """Whether there is anything to draw."""
        return self.epoch is not None or self.step is not None

    def take(self, kind: str, values: Mapping[str, Any]) -> None:
        """Take in one event of the job."""
        if kind == "start":
            # A run that goes on after an interruption starts again; its epochs so far stay.
            self.epochs = _whole(values.get("epochs")) or self.epochs
            self.steps = _whole(values.get("steps")) or self.steps
            self.goal = _number(values.get("goal_test_acc")) or self.goal
        elif kind == "step":
            self.epoch = _whole(values.get("epoch")) or self.epoch
            self.step = _whole(values.get("step"))
            self.steps = _whole(values.get("steps")) or self.steps
            self.rate = _number(values.get("rate"))
        elif kind == "epoch":
            self.epoch = _whole(values.get("epoch")) or self.epoch
            self.epochs = _whole(values.get("epochs")) or self.epochs
            self.step = self.steps
            accuracy, taken = _number(values.get("test_acc")), _number(values.get("seconds"))
            if accuracy is not None:
                self.accuracies.append(accuracy)
                if values.get("best"):
                    self.best, self.best_epoch = accuracy, self.epoch
            if taken is not None:
                self._epoch_s.append(taken)

    def take_row(self, told: Row) -> None:
        """Take in figures of a job that calls them as it likes."""
        for name, value in told.values.items():
            known = self.figures.get(name)
            if known is None or trust(told.origin) <= trust(known[1].origin):
                self.figures[name] = value, told
        for name in list(self.figures)[:-_MOST_FIGURES]:
            del self.figures[name]

    def take_gpu(self, use: GpuUse) -> None:
        """Take in how busy the host's GPUs are."""
        self._gpu.append(use)

    def left_s(self) -> float | None:
        """Seconds until the last epoch is done, by the speed so far; None where nothing tells."""
        if self.step is None or self.steps is None or not self.rate:
            return None
        epoch = self.epoch or 1
        later = max(0, (self.epochs or epoch) - epoch)
        whole = sum(self._epoch_s) / len(self._epoch_s) if self._epoch_s else self.steps / self.rate
        return (self.steps - self.step) / self.rate + later * whole

    def words(self) -> list[str]:
        """How far the training is, as the parts of a line without a bar; empty where nothing tells."""
        step = f" step {self.step} of {self.steps}" if self.step is not None and self.steps else ""
        way = [f"{self._head()}{step}", *self._pace()] if self.told else []
        return [*way, *self._figure_parts()]

    def _figure_parts(self) -> list[str]:
        parts = figure_words({name: value for name, (value, _) in self.figures.items()})
        if not parts:
            return []
        rows = [told for _, told in self.figures.values()]
        at = position(rows[-1].epoch, rows[-1].step) if not self.told else ""
        origins = {told.origin for told in rows} - {EVENTS}
        return [*parts, *([at] if at else []), *(f"from {origin}" for origin in sorted(origins, key=trust))]

    def lines(self, width: int, passed_s: float, cost: Money, keys: str, *, ascii_only: bool = False) -> list[str]:
        """The redrawn lines, none wider than `width` columns; `keys` says what can be pressed."""
        lines = [self._progress(width, ascii_only)] if self.told else []
        if self.accuracies:
            lines.append(self._accuracy(width, ascii_only))
        if parts := self._figure_parts():
            lines += _wrap_parts("figures", parts, width)
        if self._gpu:
            lines += _wrap_parts("gpu", self._gpu_parts(), width)
        lines += _wrap_parts("cost", cost_words(cost, passed_s), width)
        lines.append(keys[:width])
        return lines

    def _gpu_parts(self) -> list[str]:
        busy = sum(use.percent for use in self._gpu) / len(self._gpu)
        newest = self._gpu[-1]
        parts = [f"{busy:.0f} % busy"]
        if newest.used_mib is not None and newest.total_mib:
            parts.append(f"{newest.used_mib / 1024:.1f} of {newest.total_mib / 1024:.0f} GB")
        if len(self._gpu) == _GPU_SAMPLES and busy < _STARVED and self.rate:
            parts.append("input-bound: it waits")
        return parts

    def _head(self) -> str:
        if self.epoch is None:
            return "training" if self.steps else f"step {self.step}"
        return f"epoch {self.epoch}/{self.epochs}" if self.epochs else f"epoch {self.epoch}"

    def _pace(self) -> list[str]:
        left = self.left_s()
        return [
            *([_per_second(self.rate)] if self.rate else []),
            *([f"{seconds(left)} left"] if left is not None else []),
        ]

    def _progress(self, width: int, ascii_only: bool) -> str:
        head = self._head()
        told: list[str] = []
        share = None
        if self.step is not None and self.steps:
            share = min(1.0, self.step / self.steps)
            told.append(f"step {self.step}/{self.steps}")
        told += self._pace()
        if share is not None:
            room = width - len(head) - sum(len(part) + 2 for part in told) - 2
            if room >= 8:
                return _fitting([head, _bar(share, min(room, 28), ascii_only), *told], width, drop=())
            told[0] = f"{100 * share:.0f} %"
        return _fitting([head, *told], width, drop=(2, 1))

    def _accuracy(self, width: int, ascii_only: bool) -> str:
        newest, best, goal, short_goal = percent(self.accuracies[-1]), "", "", ""
        if self.best is not None:
            best = f"best {percent(self.best)} (epoch {self.best_epoch})"
        if self.goal is not None:
            # The goal is judged on the last epoch, so the newest is what counts so far.
            short_goal = f"goal {percent(self.goal)}"
            goal = f"{short_goal} {'met' if self.accuracies[-1] >= self.goal else 'not yet'}"
        line = ""
        for sparks, rest in ((_SPARKS, (best, goal)), (_SPARKS, (goal,)), (8, (short_goal,)), (8, ())):
            drawn = sparkline(self.accuracies[-sparks:], self.goal, ascii_only=ascii_only)
            line = "  ".join(part for part in (f"test acc  {drawn}", newest, *rest) if part)
            if len(line) <= width:
                return line
        return line[:width]


def sparkline(values: Sequence[float], goal: float | None = None, *, ascii_only: bool = False) -> str:
    """One column a value; the tallest is the goal, or the highest value where that is above it."""
    if not values:
        return ""
    low, high = min(values), max([*values, *([goal] if goal is not None else [])])
    blocks = _BLOCKS_ASCII if ascii_only else _BLOCKS
    span = high - low
    return "".join(
        blocks[round((value - low) / span * (len(blocks) - 1)) if span else len(blocks) // 2] for value in values
    )


def _per_second(rate: float) -> str:
    return f"{rate:.0f} it/s" if rate >= 9.5 else f"{rate:.1f} it/s"


def _bar(share: float, width: int, ascii_only: bool) -> str:
    full, half, empty = _BAR_ASCII if ascii_only else _BAR
    halves = round(share * width * 2)
    drawn = full * (halves // 2) + (half if halves % 2 else "")
    return drawn + empty * (width - len(drawn))


def _fitting(parts: list[str], width: int, *, drop: Sequence[int]) -> str:
    """The parts side by side; where they are too wide those in `drop` go, in that order, and then the last ones."""
    kept = dict(enumerate(parts))
    for index in [*drop, *range(len(parts) - 1, 0, -1)]:
        if len("  ".join(kept.values())) <= width:
            break
        kept.pop(index, None)
    return "  ".join(kept.values())[:width]


def cost_words(cost: Money, passed_s: float) -> list[str]:
    """What it costs, how long it has been going, when it ends itself: the parts of a line."""
    passed = seconds(passed_s)
    ends = [f"ends itself by {cost.ends}"] if cost.ends else []
    if cost.spent is None:
        return ["nothing is billed", passed, *ends]
    most = f" of at most {money(cost.at_most)}" if cost.at_most is not None else ""
    if cost.rehearsed:
        return ["nothing is billed", f"on EC2 {money(cost.spent)}{most}", passed]
    return [f"{money(cost.spent)}{most}", passed, *ends]


def _wrap_parts(title: str, parts: list[str], width: int) -> list[str]:
    """`title` and the parts with commas between, in as many lines as it takes; no part is broken where it fits."""
    indent = 10
    lines, line = [], f"{title:<{indent}}{parts[0]}"
    for part in parts[1:]:
        # The comma that ends a line needs its column too.
        if len(line) + 3 + len(part) <= width:
            line += f", {part}"
        else:
            lines.append(f"{line},")
            line = " " * indent + part
    return [line[:width] for line in [*lines, line]]


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None
