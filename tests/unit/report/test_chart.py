"""Learning curves: every point on the chart, labels apart, nothing drawn that was not told."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.report.chart import LABEL_GAP, Chart, Series, accuracy_chart, loss_chart


def heights(path: str) -> list[float]:
    return [float(pair.split()[1]) for pair in re.split("[ML]", path) if pair]


def accuracy(*lines: list[tuple[int, float]], goal: float | None = None) -> Chart:
    series = [Series(f"run {number}", number, points) for number, points in enumerate(lines)]
    best = max((p for line in lines for p in line), key=lambda point: point[1])
    chart = accuracy_chart(series, title="t", summary="s", goal=goal, best=best)
    assert chart is not None
    return chart


def test_nines_are_evenly_spaced() -> None:
    chart = accuracy([(1, 90.0), (2, 99.0), (3, 99.9)])
    first, second, third = heights(chart.lines[0].path)
    assert first > second > third
    assert abs((first - second) - (second - third)) < 0.5


def test_the_goal_is_a_line_between_its_neighbours() -> None:
    chart = accuracy([(1, 98.0), (2, 99.5)], goal=99.4)
    low, high = heights(chart.lines[0].path)
    assert chart.goal is not None and high < chart.goal.at < low and chart.goal.label == "goal 99.4%"


def test_one_epoch_is_a_dot_in_the_middle() -> None:
    chart = accuracy([(1, 97.0)])
    (dot,) = chart.lines[0].dots
    assert chart.left < dot[0] < chart.right and [tick.label for tick in chart.x_ticks] == ["1"]


def test_fifteen_epochs_have_even_ticks() -> None:
    chart = accuracy([(epoch, 90 + epoch / 2) for epoch in range(1, 16)])
    assert [tick.label for tick in chart.x_ticks] == ["1", "3", "5", "7", "9", "11", "13", "15"]


def test_nothing_told_is_nothing_drawn() -> None:
    empty = [Series("train", 0, [])]
    assert accuracy_chart(empty, title="", summary="", goal=99.4, best=None) is None
    assert loss_chart([Series("train", 0, [(1, 0.0)])], title="", summary="", best=None) is None


POINTS = st.lists(
    st.tuples(st.integers(1, 10**8), st.floats(-1e300, 1e300)), min_size=1, max_size=6, unique_by=lambda p: p[0]
)


@given(st.lists(POINTS, min_size=1, max_size=8), st.floats(0.001, 100) | st.none(), st.booleans())
def test_everything_is_on_the_chart_and_labels_are_apart(
    lines: list[list[tuple[int, float]]], goal: float | None, losses: bool
) -> None:
    lines = [sorted(line) for line in lines]
    series = [Series(f"run {number}", number, points) for number, points in enumerate(lines)]
    best = lines[0][0]
    chart = (
        loss_chart(series, title="t", summary="s", best=best)
        if losses
        else accuracy_chart(series, title="t", summary="s", goal=goal, best=best)
    )
    if chart is None:
        assert losses and all(value <= 0 for line in lines for _, value in line)
        return
    ys = [y for line in chart.lines for y in heights(line.path)]
    ys += [tick.at for tick in chart.y_ticks] + [mark.y for mark in chart.marks]
    assert all(chart.top - 0.1 <= y <= chart.bottom + 0.1 for y in ys)
    xs = [line.end[0] for line in chart.lines] + [tick.at for tick in chart.x_ticks]
    assert all(chart.left <= x <= chart.right for x in xs)
    assert 1 <= len(chart.x_ticks) <= 9
    labels = sorted(line.label_y for line in chart.lines)
    assert all(after - before >= LABEL_GAP - 0.2 for before, after in itertools.pairwise(labels))
    assert 1 <= len(chart.y_ticks) <= 15
