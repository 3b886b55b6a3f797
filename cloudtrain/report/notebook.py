"""`cloudtrain.load("brave-otter")`: a run's figures and weights for notebooks and scripts. Reads files, asks nobody."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from cloudtrain.core.disk import sha256
from cloudtrain.core.errors import CloudtrainError, UsageError
from cloudtrain.core.text import screen_safe
from cloudtrain.report import sources, words
from cloudtrain.report.export import missing
from cloudtrain.report.facts import Facts
from cloudtrain.store import Store


def load(run: str | Path | None = None) -> LoadedRun:
    """The run that is meant: a name, the beginning of one, its folder or a `run.json`; None: the latest.

    Raises:
        UsageError: there is no such run, or its receipt cannot be understood.
    """
    with _hint_shown():
        return LoadedRun(sources.of_path(run) if isinstance(run, Path) else sources.find(run, Store()))


@contextmanager
def _hint_shown() -> Iterator[None]:
    """The next command of a failure, where Python shows only its message."""
    try:
        yield
    except CloudtrainError as error:
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        raise


class LoadedRun:
    """A run, as it stood when it was loaded. Accuracies are in percent, losses means, times seconds."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    @property
    def name(self) -> str:
        """Its name."""
        return self._facts.name

    @property
    def status(self) -> str:
        """How it ended or stands: done, failed, stopped, running, ..."""
        return words.status(self._facts)[0]

    @property
    def folder(self) -> Path:
        """Where its results lie."""
        return self._facts.folder

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict an epoch, for `pandas.DataFrame(run.metrics)`; of a job that tells no epochs, `figures`."""
        return [asdict(epoch) for epoch in self._facts.epochs] or self.figures

    @property
    def figures(self) -> list[dict[str, Any]]:
        """All that a job of one's own has told: `epoch`, `step` (None where it did not say), and the figures there."""
        return [{"epoch": told.epoch, "step": told.step, **told.values} for told in self._facts.told.rows]

    @property
    def origins(self) -> dict[str, str]:
        """Where each of `figures` comes from: events, TensorBoard files, lines of the log, [job.figures]."""
        return dict(self._facts.told.origins or {})

    @property
    def last(self) -> dict[str, Any] | None:
        """The figures of the last epoch: the headline."""
        return asdict(self._facts.last) if self._facts.last else None

    @property
    def best(self) -> dict[str, Any] | None:
        """The figures of the epoch with the highest test accuracy: picked on what the epochs were scored on."""
        return asdict(self._facts.best) if self._facts.best else None

    @property
    def confusion(self) -> list[list[int]] | None:
        """Counts of the last epoch: row is the digit, column the answer; None where the job told none."""
        return [list(row) for row in self._facts.confusion] if self._facts.confusion else None

    @property
    def mistakes(self) -> list[dict[str, Any]]:
        """The test pictures that the best epoch got wrong, most confident first."""
        return [asdict(mistake) for mistake in self._facts.answers.mistakes] if self._facts.answers else []

    @property
    def settings(self) -> dict[str, Any]:
        """As the job resolved them."""
        return dict(self._facts.settings)

    @property
    def goals(self) -> list[dict[str, Any]]:
        """`goal`, `met` (None: the run did not get so far) and `value`."""
        return [asdict(goal) for goal in self._facts.goals]

    @property
    def receipt(self) -> dict[str, Any]:
        """The whole of `run.json`."""
        return dict(self._facts.receipt)

    def state_dict(self, which: str = "best") -> dict[str, Any]:
        """The weights of the best or the last epoch, tensors on the CPU, for `network.load_state_dict(...)`.

        Raises:
            UsageError: they are not here, are not what the run left, or PyTorch is missing.
        """
        absent = [module for module in ("torch", "safetensors") if importlib.util.find_spec(module) is None]
        with _hint_shown():
            if absent:
                raise missing(absent, "weights become tensors of PyTorch")
            path = _verified_weights(self._facts, which)
        from safetensors.torch import load_file

        return dict(load_file(path))

    def __repr__(self) -> str:
        last, best = self._facts.last, self._facts.best
        figures = f", test accuracy {words.percent(last.test_acc)} in epoch {last.epoch}" if last else ""
        if (figure := self._facts.figure) is not None and not (last and last.test_acc is not None):
            figures = f", {figure.name} {words.figure(figure)}"
        picked = f" (best {words.percent(best.test_acc)} in epoch {best.epoch})" if best and best is not last else ""
        return screen_safe(f"<run {self.name}: {words.subject(self._facts)}, {self.status}{figures}{picked}>")

    def _repr_html_(self) -> str:
        """A small table; everything in it is escaped, since jobs and hosts wrote some of it."""
        facts, last, best = self._facts, self._facts.last, self._facts.best
        rows = [("status", words.status(facts)[0]), ("where", words.where(facts))]
        if last is not None:
            rows.append(("last epoch", f"{words.percent(last.test_acc)} (epoch {last.epoch})"))
        if best is not None:
            picked = f"(epoch {best.epoch}, picked on {words.picked_on(facts)})"
            rows.append(("best epoch", f"{words.percent(best.test_acc)} {picked}"))
        rows += [(one.name, words.course(one)) for one in facts.curves[:20]]
        if facts.parameters is not None:
            rows.append(("parameters", f"{facts.parameters:,}"))
        rows += [(goal.goal, words.goal_verdict(facts, goal)) for goal in facts.goals]
        rows += [("note", note) for note in (words.subset_note(facts), words.held_out_note(facts)) if note]
        cells = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(label)}</th>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for label, value in rows
        )
        title = escape(f"{facts.name}: {words.subject(facts)}")
        return f'<table><caption style="text-align:left">{title}</caption><tbody>{cells}</tbody></table>'


def _verified_weights(facts: Facts, which: str) -> Path:
    """The weights of the best or the last epoch, whose sha256 is that of the receipt.

    Raises:
        UsageError: they are not here, or not what they were.
    """
    path = facts.weights(which)
    if path is None:
        raise UsageError(
            f"{facts.name} has no weights of the {which} epoch here",
            hint=f"cloudtrain pull {facts.name}",
            consequence="nothing was written",
            code="no_weights",
        )
    if sha256(path) != facts.artifacts[f"weights/{which}.safetensors"]:
        raise UsageError(
            f"the weights {path} are not those that the run left: their sha256 does not match",
            hint=f"cloudtrain pull {facts.name} fetches them again if its machine still exists",
            consequence="nothing was written",
            code="verify_failed",
        )
    return path
