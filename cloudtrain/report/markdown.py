"""`cloudtrain report --format md`: the section to hand in: targets, results, analysis figures, layers, console log."""

from __future__ import annotations

import re

from cloudtrain.core.text import counted, ordinal, screen_safe
from cloudtrain.report import commands, tables, words
from cloudtrain.report.facts import Facts


def section(facts: Facts) -> str:
    """The section as Markdown, one line break at its end."""
    subject = escaped(words.subject(facts))
    parts = [
        [f"# {subject}"],
        ["### Targets:", *([f" - {escaped(goal.goal)}" for goal in facts.goals] or [" - none were set"])],
        ["### Results:", *_results(facts)],
        ["### Analysis:", *_analysis(facts)],
    ]
    blocks = ["\n".join(lines) for lines in parts]
    if facts.layers:
        blocks.append(f"## Layers of {subject}\n\n{fenced(facts.layers)}")
    if facts.log:
        blocks.append(f"## Console Log for {subject}\n\n{fenced(log_text(facts))}")
    return "\n\n".join(blocks) + "\n"


def _results(facts: Facts) -> list[str]:
    last, best, lines = facts.last, facts.best, []
    if facts.receipt.get("ended_how") != "finished":
        lines.append(f" - {escaped(words.status(facts)[1])}")
    if facts.message:
        lines.append(f" - Why: {escaped(facts.message)}")
    if facts.parameters is not None:
        lines.append(f" - Parameters: {facts.parameters / 1000:.1f}k")
    if facts.best_train_acc is not None:
        lines.append(f" - Best Train Accuracy: {facts.best_train_acc:.2f}")
    if facts.opened is not None:
        epoch = facts.opened.epoch
        lines.append(f" - Test Accuracy: {facts.opened.test_acc:.2f} ({ordinal(epoch)} Epoch, the one look at it)")
    elif best is not None and best.test_acc is not None and not facts.held_out:
        lines.append(f" - Best Test Accuracy: {best.test_acc:.2f} ({ordinal(best.epoch)} Epoch)")
    if last is not None and last.test_acc is not None and not facts.held_out:
        lines.append(
            f" - Test Accuracy of the last epoch: {last.test_acc:.2f} ({ordinal(last.epoch)} Epoch); "
            "the best epoch is picked on the test set"
        )
    lines += [f" - {escaped(one.name)}: {escaped(words.course(one))}" for one in facts.curves]
    for goal in facts.goals:
        reached = f" ({words.goal_value(goal)})" if goal.value is not None else ""
        lines.append(f" - Target {escaped(goal.goal)}: {words.goal_verdict(facts, goal)}{reached}")
    return lines or [" - The training program reported no figures"]


def _analysis(facts: Facts) -> list[str]:
    """Figures to build an analysis on. What they mean is for the author to say."""
    told = [
        words.subset_note(facts),
        words.held_out_note(facts),
        words.rehearsal_note(facts),
        words.curve_summary(facts),
        words.loss_summary(facts),
    ]
    matrix = facts.confusion
    if matrix:
        told.append(f"In epoch {facts.confusion_epoch}: {words.confusion_summary(matrix)}")
        scores = [(words.class_accuracy(matrix, digit), digit) for digit in range(len(matrix))]
        known = [(score, digit) for score, digit in scores if score is not None]
        if known:
            (low, hardest), (high, easiest) = min(known), max(known, key=lambda pair: (pair[0], -pair[1]))
            told.append(f"Hardest digit: {hardest} ({low:.2f}% right); easiest: {easiest} ({high:.2f}%).")
    seconds = facts.training_seconds
    if seconds is not None:
        each = seconds / len([epoch for epoch in facts.epochs if epoch.seconds is not None])
        chip = words.device(facts)
        on = f" on {chip}" if chip else ""
        told.append(f"{counted(len(facts.epochs), 'epoch')} took {words.span(seconds)}{on}, {words.span(each)} each.")
    told.append(f"Cost: {words.cost(facts)}")
    settings = ", ".join(f"{label} {value}" for label, value in tables.settings(facts))
    told.append(f"Settings: {settings}." if settings else None)
    lines = [f" - {escaped(line)}" for line in told if line]
    return [*lines, f" - Repeat it: {code(commands.rerun(facts))}, or {code(commands.run(facts))}"]


def log_text(facts: Facts) -> str:
    """The console log without empty lines at either end."""
    lines = list(facts.log)
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    return "\n".join(lines)


def escaped(text: str) -> str:
    """One line of text that Markdown leaves as it is."""
    line = re.sub(r"([\\`*_\[\]])", r"\\\1", screen_safe(" ".join(text.split())))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)


def code(text: str) -> str:
    """`text` as inline code, whatever it holds."""
    line = screen_safe(" ".join(text.split()))
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str) -> str:
    """`text` as a block of code that nothing in it can end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
