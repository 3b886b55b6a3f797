"""Where the lines, ticks and labels of a learning curve go. Numbers in, numbers out: a template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460.0, 300.0
LEFT, TOP, BOTTOM = 52.0, 14.0, 40.0
# Room for the names at the lines' ends, by the longest; on a narrow screen their letters are this wide.
LETTER, MOST_LETTERS = 8.6, 16
LOSSES = (1e-9, 1e9)
# Labels at the lines' ends keep this distance.
LABEL_GAP = 15.0


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, its look (index of colour and dashes), and its (epoch, value) points in order."""

    name: str
    look: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what stands beside it."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn series: an SVG path, its dots where there are few, its label at the right end."""

    name: str
    look: int
    path: str
    dots: tuple[tuple[float, float], ...]
    label_y: float
    end: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that is pointed out, with a guide to the label, which stands where the lines are not."""

    x: float
    y: float
    label: str
    anchor: str
    label_y: float
    guide_end: float


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a template needs. Coordinates are in the units of the SVG's viewBox, WIDTH x HEIGHT."""

    title: str
    summary: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    goal: Tick | None
    marks: tuple[Mark, ...]
    right: float
    axis: str = "epoch"
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


Scale = Callable[[float], float]


def accuracy_chart(
    series: Sequence[Series], *, title: str, summary: str, goal: float | None, best: tuple[int, float] | None
) -> Chart | None:
    """Accuracies in percent on a scale that widens towards 100, where good networks differ; None without a point.

    Equal factors of the error rate are equal distances: 90, 99 and 99.9% are evenly spaced.
    """
    values = [value for line in series for _, value in line.points]
    if not values:
        return None
    values += [goal] if goal else []
    errors = [min(max(100 - value, 0.01), 100.0) for value in values]
    low, high = min(errors) / 1.25, max(errors) * 1.15

    def y(value: float) -> float:
        error = min(max(100 - value, low), high)
        return _between(math.log(high / error), math.log(high / low))

    steps = (80, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    ticks = [Tick(y(100 - error), f"{100 - error:g}") for error in steps if low <= error <= high]
    if len(ticks) < 2:
        ticks = [Tick(y(100 - error), f"{100 - error:.2f}") for error in (min(errors), max(errors))]
    goal_tick = Tick(y(goal), f"goal {goal:g}%") if goal else None
    marked = (best[0], best[1], f"best {best[1]:.2f}% in epoch {best[0]}") if best else None
    # Accuracies rise: the lower right is free.
    return _chart(
        series, y, _thin(ticks), title=title, summary=summary, goal=goal_tick, best=marked, mark_y=HEIGHT - BOTTOM - 8
    )


def loss_chart(series: Sequence[Series], *, title: str, summary: str, best: tuple[int, float] | None) -> Chart | None:
    """Losses on a logarithmic scale; None without a point.

    What is not above zero cannot be drawn and is left out; what has exploded is drawn at the edge.
    """
    low, high = LOSSES
    series = [
        Series(line.name, line.look, [(x, min(max(value, low), high)) for x, value in line.points if value > 0])
        for line in series
    ]
    values = [value for line in series for _, value in line.points]
    if not values:
        return None
    low, high = min(values) / 1.15, max(values) * 1.15

    def y(value: float) -> float:
        return _between(math.log(min(max(value, low), high) / low), math.log(high / low))

    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    # A range of many decades, as after a loss that exploded, is marked by decades alone.
    digits = (1, 2, 5) if last - first <= 5 else (1,)
    every = max(1, (last - first) // 8)
    steps = [digit * 10.0**power for power in range(first, last + 1, every) for digit in digits]
    ticks = [Tick(y(step), f"{step:g}") for step in steps if low <= step <= high]
    if len(ticks) < 2:
        ticks = [Tick(y(value), f"{value:.3g}") for value in (min(values), max(values))]
    marked = (best[0], best[1], f"best epoch, {best[0]}") if best and best[1] > 0 else None
    return _chart(series, y, _thin(ticks), title=title, summary=summary, goal=None, best=marked, mark_y=TOP + 6)


def figure_chart(series: Sequence[Series], *, title: str, summary: str, axis: str) -> Chart | None:
    """Any figure on a scale of equal distances; None without a point."""
    values = [value for line in series for _, value in line.points]
    if not values:
        return None
    low, high = min(values), max(values)
    # At least so much that the ticks can be told apart.
    margin = max(0.05 * (high - low) or 0.05 * abs(high) or 1.0, 1e-4 * max(abs(low), abs(high)))
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return _between(value - low, high - low)

    step = 10.0 ** math.floor(math.log10(max((high - low) / 4, 1e-300)))
    step = next(step * digit for digit in (1, 2, 5, 10) if (high - low) / (step * digit) <= 6)
    first = math.ceil(low / step)
    ticks = [Tick(y(at * step), f"{at * step:.6g}") for at in range(first, first + 8) if at * step <= high]
    return _chart(series, y, _thin(ticks), title=title, summary=summary, goal=None, best=None, mark_y=TOP, axis=axis)


def _between(part: float, whole: float) -> float:
    """Where a value lies that is `part` of `whole` up the vertical axis."""
    share = part / whole if whole > 0 else 0.5
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _chart(
    series: Sequence[Series],
    y: Scale,
    y_ticks: Sequence[Tick],
    *,
    title: str,
    summary: str,
    goal: Tick | None,
    best: tuple[int, float, str] | None,
    mark_y: float,
    axis: str = "epoch",
) -> Chart:
    epochs = [epoch for line in series for epoch, _ in line.points]
    first, last = min(epochs), max(epochs)

    drawn = [line for line in series if line.points]
    names = [_short(line.name) for line in drawn]
    right = WIDTH - 10 - LETTER * max(map(len, names))

    def x(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + 8 + share * (right - LEFT - 16), 1)

    ends = _apart([y(line.points[-1][1]) for line in drawn])
    lines = []
    for line, name, label_y in zip(drawn, names, ends, strict=True):
        points = tuple((x(epoch), y(value)) for epoch, value in line.points)
        path = "M" + " L".join(f"{px:g} {py:g}" for px, py in points)
        dots = points if len(points) <= 3 else ()
        lines.append(Line(name, line.look, path, dots, label_y, points[-1]))
    whole = math.ceil(first), math.floor(last)
    ticks: Sequence[float] = _epoch_ticks(*whole) if whole[0] <= whole[1] else list(dict.fromkeys((first, last)))
    marks = []
    if best is not None and last > first:
        px, py = x(best[0]), y(best[1])
        anchor = "end" if px > (LEFT + right) / 2 else "start"
        end = mark_y - 13 if mark_y > py else mark_y + 5
        marks.append(Mark(px, py, best[2], anchor, mark_y, end))
    return Chart(
        title=title,
        summary=summary,
        right=round(right, 1),
        lines=tuple(lines),
        x_ticks=tuple(Tick(x(at), f"{at:,}" if axis != "epoch" else f"{at:g}") for at in ticks),
        axis=axis,
        y_ticks=tuple(y_ticks),
        goal=goal,
        marks=tuple(marks),
    )


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def _epoch_ticks(first: int, last: int, most: int = 8) -> list[int]:
    """Whole epochs, at most `most` of them, the first and the last among them."""
    step = next(
        step for power in range(12) for digit in (1, 2, 5) if (last - first) / (step := digit * 10**power) < most
    )
    even = [epoch for epoch in range(first, last, step) if last - epoch > step / 2 or epoch == first]
    return sorted({*even, last})


def _thin(ticks: Sequence[Tick], apart: float = 20.0) -> list[Tick]:
    """`ticks` without those that would touch another's label."""
    kept: list[Tick] = []
    for tick in ticks:
        if all(abs(tick.at - other.at) >= apart for other in kept):
            kept.append(tick)
    return kept


def _apart(wanted: Sequence[float]) -> list[float]:
    """`wanted` heights moved so that none is nearer than LABEL_GAP to another, and all are on the chart."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    above = -math.inf
    for index in order:
        placed[index] = max(wanted[index], above + LABEL_GAP, TOP)
        above = placed[index]
    below = HEIGHT - BOTTOM + LABEL_GAP
    for index in reversed(order):
        placed[index] = round(min(placed[index], below - LABEL_GAP), 1)
        below = placed[index]
    return placed
