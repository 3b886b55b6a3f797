"""Sentences and labels of a report: the same in HTML, Markdown and on the screen. Pure."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import datetime

from cloudtrain.core.figures import shown
from cloudtrain.core.text import counted, money, seconds
from cloudtrain.report.facts import Facts, Goal
from cloudtrain.report.reading import mapping, number, text
from cloudtrain.run_folder.figures import Curve

PHASES = {
    "planned": "preparing",
    "provisioning": "getting the machine",
    "booting": "connecting",
    "syncing": "sending the code",
    "running": "training",
    "pulling": "fetching results",
}
_ENDINGS = {
    "finished": ("done", "The training finished and its results are here."),
    "failed": ("failed", "The training program failed."),
    "not_started": ("not started", "The training never began."),
    "stopped": ("stopped", "The run was stopped before its end."),
    "limit": ("ended by its limit", "The run reached its time or cost limit before its end."),
    "spot": ("interrupted", "AWS took the spot instance back before the end."),
    "lost": ("lost", "Its machine or its supervisor ended without a record of how the training stood."),
}
MNIST_TRAIN, MNIST_TEST = 60_000, 10_000


def status(facts: Facts) -> tuple[str, str]:
    """One or two words for how the run ended, and a sentence."""
    if facts.living:
        state = text(facts.receipt.get("status")) or "unknown"
        return state, "The run had not ended when this was written: figures are those of the epochs so far."
    how = str(facts.receipt.get("ended_how"))
    return _ENDINGS.get(how, (how, f"The run was ended: {how}."))


def subject(facts: Facts) -> str:
    """What was trained: "Model 3", a command, or the name of a training package of one's own."""
    model = facts.settings.get("model", facts.train.get("model"))
    if facts.shipped or "model" in facts.settings:
        return f"Model {model}"
    if facts.command:
        return text(shlex.join(facts.command)) or "a command"
    return f"Job {text(facts.train.get('module')) or 'of your own'}"


def where(facts: Facts) -> str:
    """Where it ran, without names of computers."""
    machine, target = facts.machine, facts.receipt.get("target")
    if target == "local":
        return "a local computer"
    if target == "host":
        return "a machine reached by SSH"
    kind = text(machine.get("instance_type")) or "an EC2 instance"
    return f"{kind}, rehearsed" if facts.receipt.get("rehearsal") else kind


def device(facts: Facts) -> str | None:
    """The chip that trained."""
    return text(facts.settings.get("device_name")) or text(facts.settings.get("device"))


def date(facts: Facts) -> str | None:
    """The day on which the run was planned, UTC: 23 November 2026."""
    try:
        at = datetime.fromisoformat(str(facts.receipt.get("created")))
    except ValueError:
        return None
    return f"{at.day} {at:%B %Y}"


def percent(value: float | None, places: int = 2) -> str:
    """An accuracy as people read it, "–" for none."""
    return "–" if value is None else f"{value:.{places}f}%"


def sureness(confidence: float) -> str:
    """A confidence from 0 to 1 as people read it, never rounded up to a certainty that it is not."""
    return f"{math.floor(1000 * confidence) / 10:.1f}%"


def loss(value: float | None) -> str:
    """A loss with four places, as the training log has it."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3g}"


def figure(one: Curve) -> str:
    """A figure as it ended: "0.4123 at step 2,000"."""
    return f"{shown(one.last)} at {one.where}"


def extent(one: Curve) -> str:
    """How it ended, and between what it was: "0.4123 (0.39 to 2.31)"."""
    return f"{shown(one.last)} ({shown(one.low)} to {shown(one.high)})" if len(one.points) > 1 else shown(one.last)


def course(one: Curve) -> str:
    """What a curve shows, for whoever does not see it, and where its figure is from."""
    between = f"lowest {shown(one.low)}, highest {shown(one.high)}; " if len(one.points) > 1 else ""
    return f"{figure(one)}; {between}{counted(len(one.points), 'value')} from {one.origin}."


def goal_value(goal: Goal) -> str:
    """What was reached, in the unit of the goal."""
    if goal.value is None:
        return "–"
    if "accuracy" in goal.goal:
        return percent(goal.value)
    return f"{goal.value:,.0f}" if goal.value.is_integer() else f"{goal.value:g}"


def goal_verdict(facts: Facts, goal: Goal) -> str:
    """met, not met, open, or not judged: the job ended and says neither, as of an accuracy on a part of the data."""
    # The last release said "not met" of such an accuracy, without a value.
    if goal.met is False and goal.value is None and "accuracy" in goal.goal:
        return "not judged"
    if goal.met is None and facts.receipt.get("result"):
        return "not judged"
    return {True: "met", False: "not met", None: "open"}[goal.met]


def target_accuracy(facts: Facts) -> float | None:
    """The accuracy that a goal names, in percent."""
    for goal in facts.goals:
        left, sign, right = goal.goal.partition(">=")
        if sign and "accuracy" in left:
            try:
                value = float(right.replace("%", "").strip())
            except ValueError:
                continue
            if math.isfinite(value) and 0 < value <= 100:
                return value
    return None


def subset_note(facts: Facts) -> str | None:
    """What a rehearsal on a part of the data set is worth; None for a run on all of it."""
    if facts.subset is None:
        return None
    return (
        f"Trained on the first {facts.subset:,} of {MNIST_TRAIN:,} pictures and tested on the first "
        f"{max(1, facts.subset // 6):,} of {MNIST_TEST:,}: a rehearsal. No accuracy here is for all of MNIST, "
        "and the accuracy goal is not judged."
    )


def picked_on(facts: Facts) -> str:
    """Where the best epoch was picked."""
    return facts.scored_on if facts.held_out else "the test set"


def held_out_note(facts: Facts) -> str | None:
    """What is called test in a run whose epochs were not scored on the test set; None for all others."""
    if not facts.held_out:
        return None
    told = (
        f"The epochs were scored on {facts.scored_on}: the curves, and what is called test in the tables of epochs, "
        "are measured on these. "
    )
    if facts.opened is None:
        return f"{told}The test set has not been opened."
    return f"{told}The test set was opened once, after epoch {facts.opened.epoch}: {percent(facts.opened.test_acc)}."


def rehearsal_note(facts: Facts) -> str | None:
    """That no machine of AWS was used; None where one was, or none was asked for."""
    if not facts.receipt.get("rehearsal"):
        return None
    return (
        "A rehearsal: the EC2 region was emulated on one computer, whose own processor did the training. "
        "Nothing was billed, no account was asked; the figures of the training are real."
    )


def cost(facts: Facts) -> str:
    """What it cost, in one sentence."""
    told = mapping(facts.receipt.get("cost"))
    estimate, hourly = number(told.get("estimate")), number(told.get("price_per_hour"))
    priced = f" at {money(hourly)} an hour" if hourly is not None else ""
    dated = text(told.get("price_date"))
    table = f" (price table of {dated})" if dated else ""
    if estimate is None:
        return "Nothing was billed: the machine already existed."
    if not told.get("billed"):
        return f"Nothing was billed. The same time on the real instance costs about {money(estimate)}{priced}{table}."
    return f"About {money(estimate)}{priced}{table}, by the clock; the AWS bill has the last word."


def short_cost(facts: Facts) -> str:
    """The cost as one figure."""
    told = mapping(facts.receipt.get("cost"))
    estimate = number(told.get("estimate"))
    return money(estimate) if estimate is not None and told.get("billed") else "$0"


def curve_summary(facts: Facts) -> str:
    """What the learning curves show, for whoever does not see them."""
    last, best = facts.last, facts.best
    if last is None or best is None:
        return ""
    first = next(epoch for epoch in facts.epochs if epoch.test_acc is not None)
    accuracy = f"Accuracy on {facts.scored_on}" if facts.held_out else "Test accuracy"
    told = []
    if first.epoch != last.epoch:
        told.append(
            f"{accuracy} went from {percent(first.test_acc)} in epoch {first.epoch} to {percent(last.test_acc)} "
            f"in epoch {last.epoch}; it was highest, {percent(best.test_acc)}, in epoch {best.epoch}."
        )
    else:
        told.append(f"{accuracy} was {percent(last.test_acc)} after epoch {last.epoch}, the only one.")
    if last.train_acc is not None and last.test_acc is not None:
        gap = last.test_acc - last.train_acc
        side = "above" if gap >= 0 else "below"
        told.append(f"In the last epoch it was {abs(gap):.2f} points {side} the training accuracy.")
    target = target_accuracy(facts)
    if target is not None and facts.subset is None and not facts.held_out:
        reached = next((e.epoch for e in facts.epochs if e.test_acc is not None and e.test_acc >= target), None)
        told.append(
            f"The goal of {target:g}% was first reached in epoch {reached}."
            if reached
            else f"The goal of {target:g}% was reached in no epoch."
        )
    return " ".join(told)


def loss_summary(facts: Facts) -> str:
    """The same of the losses."""
    told = [epoch for epoch in facts.epochs if epoch.test_loss is not None]
    if not told:
        return ""
    low = min(told, key=lambda epoch: epoch.test_loss or 0.0)
    name = f"Loss on {facts.scored_on}" if facts.held_out else "Test loss"
    return (
        f"{name} went from {loss(told[0].test_loss)} to {loss(told[-1].test_loss)}; "
        f"it was lowest, {loss(low.test_loss)}, in epoch {low.epoch}."
    )


def confusion_summary(matrix: Sequence[Sequence[int]]) -> str:
    """How many were right, and what was mixed up most."""
    total = sum(map(sum, matrix))
    right = sum(row[digit] for digit, row in enumerate(matrix))
    told = f"{right:,} of {total:,} test pictures are right, {total - right:,} wrong."
    counts = [(n, digit, answer) for digit, row in enumerate(matrix) for answer, n in enumerate(row) if digit != answer]
    worst = sorted((-n, digit, answer) for n, digit, answer in counts if n)[:3]
    pairs = [f"{digit} taken for {answer} ({-n})" for n, digit, answer in worst]
    return f"{told} Most frequent: {', '.join(pairs)}." if pairs else told


def class_accuracy(matrix: Sequence[Sequence[int]], digit: int) -> float | None:
    """Share of a digit's pictures that were answered right, in percent; None for a digit that does not occur."""
    total = sum(matrix[digit])
    return 100 * matrix[digit][digit] / total if total else None


def span(value: float | None) -> str:
    """A span of time, human-readable, "–" for none."""
    return "–" if value is None else seconds(value)
