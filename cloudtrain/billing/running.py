"""Whether money is being spent, as far as this computer's registry knows: `billing` of `--json`. No network."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from cloudtrain.billing import expiry
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import iso
from cloudtrain.store import Run, Store


def now(name: str = "") -> dict[str, Any]:
    """Of the run `name`, or of all runs here where none is named. Nothing of a run that is not known is billed."""
    try:
        store = Store()
        runs = [store.get(known) for known in store.names() if not name or known == name]
        return of([(run, store.read_journal(run.name)) for run in runs], time.time())
    except CloudtrainError:
        # A registry that cannot be read hides what it knows: neither yes nor no would be true.
        return {"running": None, "parked": None, "ends_by": None}


def of(runs: Iterable[tuple[Run, RunNotes]], at: float) -> dict[str, Any]:
    """What machines that cloudtrain launched for `runs`, each with its journal, may cost at `at` (unix seconds).

    Returns:
        `running`: one may be up and billed by the hour; `parked`: the disk of one may be billed; `ends_by`: ISO 8601
        UTC, when the last of those that may be up has ended itself, null where none is, or where one should have
        ended and that is not confirmed.
    """
    ends: list[float | None] = []
    parked = False
    for run, notes in runs:
        ec2 = run.plan.spec.ec2
        if ec2 is None or ec2.rehearsal or ec2.instance_id:
            continue
        end = expiry.ends_at(run)
        over = end is not None and at >= end
        if _may_be_up(run, notes):
            ends.append(None if over else end)
        parked = (
            parked or run.life is InstanceLife.PARKED or (over and _may_be_up(run, notes) and expiry.parks(run.plan))
        )
    last = None if None in ends else max((end for end in ends if end is not None), default=None)
    return {"running": bool(ends), "parked": parked, "ends_by": iso(last)}


def _may_be_up(run: Run, notes: RunNotes) -> bool:
    if run.life.may_be_up:
        return True
    # A launch without a usable answer may show up yet, an end that was not confirmed may not have come.
    return run.life is InstanceLife.NONE and notes.owed
