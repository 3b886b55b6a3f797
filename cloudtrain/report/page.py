"""`report.html` and the page of `compare --html`: one file each, no script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2

from cloudtrain.report import commands, pictures, tables, words
from cloudtrain.report.chart import Chart, Series, accuracy_chart, figure_chart, loss_chart
from cloudtrain.report.comparison import Comparison
from cloudtrain.report.facts import Facts
from cloudtrain.report.record import MOST_MISTAKES
from cloudtrain.run_folder.figures import Curve

TRAIN, TEST = 0, 1
LAST_LINES = 30
# Of a job that tells very many epochs: rows of the table, points of a line.
MOST_ROWS, MOST_POINTS = 500, 1000
# Of a job that tells very many figures.
MOST_CHARTS = 12


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cloudtrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def report(facts: Facts) -> str:
    """The page of one run."""
    return _environment().get_template("report.html").render(_report_values(facts))


def comparison(found: Comparison) -> str:
    """The page of several runs side by side."""
    runs = found.runs
    charts = [
        accuracy_chart(
            [Series(facts.name, look, _points(facts, "test_acc")) for look, facts in enumerate(runs)],
            title="Test accuracy of each epoch",
            summary="; ".join(_ended(facts) for facts in runs),
            goal=None,
            best=None,
        ),
        loss_chart(
            [Series(facts.name, look, _points(facts, "test_loss")) for look, facts in enumerate(runs)],
            title="Test loss of each epoch",
            summary="; ".join(_losses(facts) for facts in runs),
            best=None,
        ),
    ]
    names = dict.fromkeys(curve.name for facts in runs for curve in facts.curves)
    more = [_compared(name, runs) for name in tuple(names)[:MOST_CHARTS]]
    last = min(MOST_ROWS, max((facts.last.epoch for facts in runs if facts.last), default=0))
    template = _environment().get_template("compare.html")
    return template.render(
        found=found,
        charts=[chart for chart in charts if chart],
        more=[chart for chart in more if chart],
        epochs=range(1, last + 1),
        figures=[{epoch.epoch: epoch for epoch in facts.epochs} for facts in runs],
        words=words,
        commands=commands,
    )


def _compared(name: str, runs: Sequence[Facts]) -> Chart | None:
    told = [(look, facts.name, one) for look, facts in enumerate(runs) for one in facts.curves if one.name == name]
    axis = told[0][2].axis
    return figure_chart(
        [Series(run, look, _thinned(one.points)) for look, run, one in told if one.axis == axis],
        title=name,
        summary="; ".join(f"{run} ended at {words.figure(one)}" for _, run, one in told),
        axis=axis,
    )


def _ended(facts: Facts) -> str:
    last = facts.last
    return f"{facts.name} ended at {words.percent(last.test_acc)}" if last else f"{facts.name} has no epoch"


def _losses(facts: Facts) -> str:
    told = [epoch.test_loss for epoch in facts.epochs if epoch.test_loss is not None]
    return f"{facts.name} {words.loss(told[0])} to {words.loss(told[-1])}" if told else f"{facts.name} reported no loss"


def _report_values(facts: Facts) -> dict[str, Any]:
    found = pictures.of(facts.receipt) if facts.answers else None
    mistakes = facts.answers.mistakes[:MOST_MISTAKES] if facts.answers else ()
    return {
        "facts": facts,
        "words": words,
        "tables": tables,
        "commands": commands,
        "status": words.status(facts),
        "charts": _charts(facts),
        "more": [_drawn(one) for one in facts.curves[:MOST_CHARTS]],
        "epochs": facts.epochs[-MOST_ROWS:],
        "phases": _phases(facts),
        "matrix": _matrix(facts),
        "mistakes": [(mistake, found.data_url(mistake.index) if found else None) for mistake in mistakes],
        "has_pictures": found is not None,
        "last_lines": [line for line in facts.log if line.strip()][-LAST_LINES:],
        "finished": facts.receipt.get("ended_how") == "finished",
    }


def _charts(facts: Facts) -> list[Chart]:
    best = facts.best
    scored = "held out" if facts.held_out else "test"
    found = [
        accuracy_chart(
            [Series("train", TRAIN, _points(facts, "train_acc")), Series(scored, TEST, _points(facts, "test_acc"))],
            title="Accuracy of each epoch",
            summary=words.curve_summary(facts),
            goal=words.target_accuracy(facts) if facts.subset is None and not facts.held_out else None,
            best=(best.epoch, best.test_acc) if best and best.test_acc is not None else None,
        ),
        loss_chart(
            [Series("train", TRAIN, _points(facts, "train_loss")), Series(scored, TEST, _points(facts, "test_loss"))],
            title="Loss of each epoch",
            summary=words.loss_summary(facts),
            best=(best.epoch, best.test_loss) if best and best.test_loss is not None else None,
        ),
    ]
    return [chart for chart in found if chart]


def _drawn(one: Curve) -> Chart | None:
    series = [Series(one.name, TEST, _thinned(one.points))]
    return figure_chart(series, title=one.name, summary=words.course(one), axis=one.axis)


def _points(facts: Facts, figure: str) -> Sequence[tuple[float, float]]:
    return _thinned([(at.epoch, value) for at in facts.epochs if (value := getattr(at, figure)) is not None])


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = 1 + len(points) // MOST_POINTS
    return points[::every] if every == 1 else [*points[:-1:every], points[-1]]


def _phases(facts: Facts) -> list[dict[str, Any]]:
    spans = facts.phases
    whole = sum(spans.values()) or 1.0
    return [
        {"state": state, "label": words.PHASES.get(state, state), "seconds": spent, "share": 100 * spent / whole}
        for state, spent in spans.items()
    ]


def _matrix(facts: Facts) -> list[dict[str, Any]]:
    """A row a digit: counts with the strength of their colour from 0 to 5, accuracy, how many were missed."""
    matrix = facts.confusion
    if matrix is None:
        return []
    worst = max((count for d, row in enumerate(matrix) for a, count in enumerate(row) if a != d), default=0)
    missed = [sum(row) - row[digit] for digit, row in enumerate(matrix)]
    most_missed = max(missed, default=0) or 1
    return [
        {
            "digit": digit,
            "cells": [("right" if digit == a else f"wrong{_strength(n, worst)}", n) for a, n in enumerate(row)],
            "total": sum(row),
            "missed": missed[digit],
            "bar": 100 * missed[digit] / most_missed,
            "accuracy": words.class_accuracy(matrix, digit),
        }
        for digit, row in enumerate(matrix)
    ]


def _strength(count: int, worst: int) -> int:
    """0 for none, else 1 to 5 by the square root, so that single mistakes can be seen beside frequent ones."""
    return 0 if not count else max(1, round(5 * (count / worst) ** 0.5))
