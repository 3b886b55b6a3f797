"""`cloudtrain report --format json`: the facts of a run for programs (docs/formats.md, "The report")."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cloudtrain.report import commands, words
from cloudtrain.report.facts import Facts
from cloudtrain.report.reading import mapping, number
from cloudtrain.run_folder.figures import Curve

SCHEMA_VERSION = 1
MOST_MISTAKES = 60
MOST_POINTS = 1000


def build(facts: Facts) -> dict[str, Any]:
    """JSON-ready. Accuracies percent, times seconds and ISO 8601 UTC, money USD; null where something is not known."""
    last, best, receipt = facts.last, facts.best, facts.receipt
    cost = mapping(receipt.get("cost"))
    answers, matrix = facts.answers, facts.confusion
    return {
        "schema_version": SCHEMA_VERSION,
        "run": facts.name,
        "status": words.status(facts)[0],
        "ended_how": receipt.get("ended_how"),
        "message": facts.message,
        "created": receipt.get("created"),
        "ended": receipt.get("ended"),
        "rehearsal": bool(receipt.get("rehearsal")),
        "subset": facts.subset,
        "parameters": facts.parameters,
        "last": asdict(last) if last else None,
        "best": {**asdict(best), "picked_on": facts.scored_on} if best else None,
        "opened": {key: getattr(facts.opened, key) for key in ("epoch", "test_loss", "test_acc")}
        if facts.opened
        else None,
        "best_train_acc": facts.best_train_acc,
        "goals": [asdict(goal) for goal in facts.goals],
        "epochs": [asdict(epoch) for epoch in facts.epochs],
        "figures": [_figure(one) for one in facts.curves],
        "confusion": {
            "epoch": facts.confusion_epoch,
            "matrix": [list(row) for row in matrix],
            "class_acc": [words.class_accuracy(matrix, digit) for digit in range(len(matrix))],
        }
        if matrix
        else None,
        "mistakes": {
            "pictures": answers.total,
            "wrong": len(answers.mistakes),
            "most_confident": [asdict(mistake) for mistake in answers.mistakes[:MOST_MISTAKES]],
        }
        if answers
        else None,
        "phases": facts.phases,
        "training_seconds": facts.training_seconds,
        "cost": {key: cost.get(key) for key in ("billed", "estimate", "price_per_hour", "price_date")},
        "cost_usd": number(cost.get("estimate")) if cost.get("billed") else None,
        "settings": dict(facts.settings),
        "machine": dict(facts.machine),
        "commands": {"rerun": commands.rerun(facts), "run": commands.run(facts)},
    }


def _figure(one: Curve) -> dict[str, Any]:
    ends = {"last": one.last, "lowest": one.low, "highest": one.high}
    every = 1 + len(one.points) // MOST_POINTS
    points = [*one.points[:-1:every], one.points[-1]]
    return {"name": one.name, "origin": one.origin, "axis": one.axis, **ends, "points": [list(at) for at in points]}
