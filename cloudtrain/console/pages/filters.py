"""Which runs a listing shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cloudtrain.billing import expiry
from cloudtrain.config.table import duration
from cloudtrain.core.errors import StoreDamaged, UsageError
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import meant
from cloudtrain.run_folder.outcome import lives
from cloudtrain.store import Run, Store

# Runs that `ls` shows besides those that live.
LATEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs a listing shows; None everywhere: all.

    Attributes:
        since: unix seconds; runs planned before then are left out.
    """

    model: int | None = None
    status: str | None = None
    where: str | None = None
    since: float | None = None

    WHERE: ClassVar = ("local", "host", "ec2", "rehearsal")
    STATUS: ClassVar = ("living", "parked", "kept", *(state.value for state in RunState), "done", "limit")

    @classmethod
    def of(cls, *, model: int | None, status: str | None, where: str | None, since: str | None) -> Filter:
        """A filter of words as typed.

        Raises:
            UsageError: a word that stands for nothing.
        """
        for flag, word, known in (("--status", status, cls.STATUS), ("--where", where, cls.WHERE)):
            if word is not None and word not in known:
                hint = meant(word, known, f"one of {', '.join(known)}")
                raise UsageError(f"{flag}: there is no {word!r}", hint=hint, code="bad_setting")
        try:
            began = time.time() - duration(since) if since is not None else None
        except ValueError as error:
            raise UsageError(f"--since: {error}", hint="--since 3d", code="bad_setting") from error
        return cls(model=model, status=status, where=where, since=began)

    def takes(self, run: Run) -> bool:
        """Whether `run` is shown."""
        spec = run.plan.spec
        place = "rehearsal" if spec.rehearsal else spec.target.value
        return (
            self.model in (None, spec.train.model)
            and self.where in (None, place)
            and (self.since is None or run.created_at >= self.since)
            and (self.status is None or self.status in _words(run))
        )


def _words(run: Run) -> set[str]:
    """The words of `Filter.status` that hold for a run."""
    words = {run.state.value}
    if not run.state.final:
        words.add("living")
    if run.state is RunState.SUCCEEDED:
        words.add("done")
    if run.state is RunState.STOPPED and run.stop == "deadline":
        words.add("limit")
    if run.life is InstanceLife.PARKED:
        words.add("parked")
    if expiry.is_kept(run, time.time()):
        words.add("kept")
    return words


def latest(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Of `runs`, latest first: the latest 20 and each older one that lives or may be billed; how many are left out."""
    shown = [run for number, run in enumerate(runs) if number < LATEST or lives(run)]
    return shown, len(runs) - len(shown)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Runs that are shown, latest first.

    Attributes:
        hidden: how many more there are that a screen has no room for.
        damaged: rows that cannot be read.
    """

    runs: list[Run]
    hidden: int
    damaged: list[StoreDamaged]


def choose(store: Store, kept: Filter, *, last: int | None = None, everything: bool = False) -> Chosen:
    """The runs that `kept` takes: `everything`, or the `last` ones alone; else the latest 20, and whatever lives."""
    damaged: list[StoreDamaged] = []
    if kept == Filter() and last is None and not everything:
        # Of many runs few are shown, and the others are not read.
        runs = store.runs(damaged.append, latest=LATEST)
        return Chosen(runs, len(store.names()) - len(runs) - len(damaged), damaged)
    found = [run for run in store.runs(damaged.append) if kept.takes(run)][:last]
    return Chosen(found, 0, damaged) if everything or last is not None else Chosen(*latest(found), damaged)
