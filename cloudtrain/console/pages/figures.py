"""Figures of runs that are not the shipped job's, as cells and lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cloudtrain.core.figures import DECLARED, Figure, position, shown
from cloudtrain.core.text import columns, percent, screen_safe, shortened
from cloudtrain.run_folder.figures import Curve, Told
from cloudtrain.store import Run

_WHAT = 28


def whats(runs: Sequence[Run]) -> tuple[str, list[str]]:
    """A heading, and of each run what it trains: its command, else its model."""
    if not any(run.plan.spec.job.command for run in runs):
        return "MODEL", [str(run.plan.spec.train.model) for run in runs]
    return "WHAT", [what(run, _WHAT) for run in runs]


def what(run: Run, most: int = 200) -> str:
    """What a run trains, in at most so many characters."""
    job = run.plan.spec.job
    return shortened(job.line, most) if job.command else f"model {run.plan.spec.train.model}"


def cells(runs: Sequence[Run]) -> tuple[str, list[str]]:
    """A heading, and of each run the figure that stands for it: a declared one, else the best test accuracy, else the
    newest."""
    figures = [_of(run) for run in runs]
    if not any(figures):
        commands = bool(runs) and all(run.plan.spec.job.command for run in runs)
        return "FIGURE" if commands else "TEST ACC", [percent(run.progress.best_test_acc) for run in runs]
    told = [run.progress.best_test_acc for run in runs]
    return "FIGURE", [
        line(figure) if figure else "-" if best is None else f"test acc {percent(best)}"
        for figure, best in zip(figures, told, strict=True)
    ]


def _of(run: Run) -> Figure | None:
    figure = run.progress.figure
    if figure is None or (run.progress.best_test_acc is not None and figure.origin != DECLARED):
        return None
    return figure


def line(figure: Figure, most: int = 24) -> str:
    """ "val_loss 0.4123"."""
    name = screen_safe(figure.name)
    return f"{name if len(name) <= most else f'{name[: most - 1]}…'} {shown(figure.value)}"


def ending(figure: Figure) -> str:
    """ "val_loss 0.4123 at step 2,000, from lines of the log"."""
    at = position(figure.epoch, figure.step)
    return f"{line(figure, 80)}{f' at {at}' if at else ''}, from {screen_safe(figure.origin)}"


def table(told: Told, curves: Sequence[Curve]) -> list[str]:
    """The lines of all figures of one run, and what is not among them."""
    rows = [
        [screen_safe(one.name), *map(shown, (one.last, one.low, one.high)), one.where, one.origin] for one in curves
    ]
    lines = columns(["figure", "last", "lowest", "highest", "at", "from"], rows, right=(1, 2, 3)) if rows else []
    return [*lines, *(f"note     {screen_safe(note)}" for note in told.notes)]
