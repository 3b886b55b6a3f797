"""Several runs side by side: what came out, and which settings differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cloudtrain.report import tables, words
from cloudtrain.report.facts import Facts
from cloudtrain.report.reading import mapping, text
from cloudtrain.report.record import build


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a cell for each run.

    Attributes:
        setting: it is something that was chosen; else something that came out.
        note: human-readable: how many times the larger is of the smaller.
    """

    label: str
    cells: tuple[str, ...]
    setting: bool
    note: str = ""

    @property
    def differs(self) -> bool:
        """Whether a setting is not the same in all runs."""
        return self.setting and len(set(self.cells)) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs, and the rows of their table."""

    runs: tuple[Facts, ...]
    rows: tuple[Row, ...]


def compare(runs: Sequence[Facts]) -> Comparison:
    """The table of `runs`. Of the many hyper-parameters only those that differ are in it."""
    rows = [
        _row("last test acc", runs, lambda facts: words.percent(facts.last.test_acc if facts.last else None)),
        _row("best test acc", runs, lambda facts: words.percent(facts.best.test_acc if facts.best else None)),
        _row("best epoch", runs, lambda facts: str(facts.best.epoch) if facts.best else "–"),
        _row("best train acc", runs, lambda facts: words.percent(facts.best_train_acc)),
        *_figures(runs),
        _row("parameters", runs, lambda facts: f"{facts.parameters:,}" if facts.parameters is not None else "–"),
        _row("goals met", runs, _goals),
        _row("status", runs, lambda facts: words.status(facts)[0]),
        *_told(runs, tables.settings),
        _row("device", runs, lambda facts: words.device(facts) or "–", setting=True),
        _row("where", runs, words.where, setting=True),
        _row("PyTorch", runs, lambda facts: text(facts.settings.get("torch")) or "–", setting=True),
        _row("code", runs, _code, setting=True),
    ]
    rows += [row for row in _told(runs, tables.recipe) if row.differs]
    times = [facts.training_seconds for facts in runs]
    rows.append(Row("training time", tuple(map(words.span, times)), False, _times(times)))
    rows.append(_row("cost", runs, words.short_cost))
    return Comparison(tuple(runs), tuple(row for row in rows if set(row.cells) != {"–"}))


def record(found: Comparison) -> dict[str, Any]:
    """JSON-ready: the table, and the whole report of each run."""
    return {
        "schema_version": 1,
        "runs": [build(facts) for facts in found.runs],
        "differs": [row.label for row in found.rows if row.differs],
        "rows": [{"label": row.label, "cells": list(row.cells), "differs": row.differs} for row in found.rows],
    }


def _row(label: str, runs: Sequence[Facts], cell: Callable[[Facts], str], *, setting: bool = False) -> Row:
    return Row(label, tuple(cell(facts) for facts in runs), setting)


def _told(runs: Sequence[Facts], rows: Callable[[Facts], list[tuple[str, str]]]) -> list[Row]:
    """A row for every label that any run has, in the order first met."""
    told = [dict(rows(facts)) for facts in runs]
    labels = dict.fromkeys(label for settings in told for label in settings)
    return [Row(label, tuple(settings.get(label, "–") for settings in told), True) for label in labels]


def _figures(runs: Sequence[Facts]) -> list[Row]:
    """A row for every further figure that any run has told."""
    told = [{one.name: words.extent(one) for one in facts.curves} for facts in runs]
    names = dict.fromkeys(name for figures in told for name in figures)
    return [Row(name, tuple(figures.get(name, "–") for figures in told), False) for name in names]


def _goals(facts: Facts) -> str:
    if not facts.goals:
        return "–"
    open_ = sum(words.goal_verdict(facts, goal) == "not judged" for goal in facts.goals)
    met = sum(goal.met is True for goal in facts.goals)
    return f"{met} of {len(facts.goals) - open_}{f', {open_} not judged' if open_ else ''}"


def _code(facts: Facts) -> str:
    found = text(mapping(facts.receipt.get("code")).get("digest"))
    return found[:12] if found else "–"


def _times(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value]
    if len(known) < 2 or len(known) < len(seconds) or max(known) < 1.5 * min(known):
        return ""
    factor = max(known) / min(known)
    return f"{factor:.0f}x" if factor >= 9.5 else f"{factor:.1f}x"
