"""What the end of a run means, before it is agreed to: the lines and questions of `stop`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cloudtrain.billing import expiry
from cloudtrain.billing.cost import hourly
from cloudtrain.console.pages import listing
from cloudtrain.console.text import shown_path
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.states import RunState
from cloudtrain.core.text import an_hour, columns, counted, money, screen_safe, seconds, size, time_of_day
from cloudtrain.store import Run

_NAMED = 8  # of the files that would be lost; the rest is counted


def question(run: Run, *, keep_s: float = 0.0, pull: bool = True) -> str:
    """What is asked before `run` ends."""
    machine = screen_safe(run.instance.id) if run.instance is not None and run.instance.owned else None
    if run.state.final:
        return f"{run.name} has ended and is pulled. End {machine} now, and lose what was changed on it since?"
    if not pull:
        return f"End {run.name} without pulling" + (f" and delete {machine} with what is on it?" if machine else "?")
    epoch, epochs = run.progress.epoch, run.progress.epochs
    at = f" after epoch {epoch} of {epochs}" if epoch and epochs and run.state is RunState.RUNNING else ""
    if not run.state.trains:
        return f"Stop {run.name}" + (f" and terminate {machine}?" if machine else "?")
    if expiry.away(run):
        return f"{run.name} is parked. Start {machine} to pull its results, then terminate it?"
    if keep_s:
        price = an_hour(hourly(run), " at ")
        return f"Stop {run.name}{at}, pull its results, and keep {machine} up {seconds(keep_s)} longer{price}?"
    return f"Stop {run.name}{at}, pull its results" + (f" and terminate {machine}?" if machine else "?")


def table(runs: Sequence[Run]) -> list[str]:
    """The lines of `stop --all` before it asks: each run, how it stands, and what it costs."""
    rows = [(run.name, listing.where(run), listing.status(run), _costs(run)) for run in runs]
    return [screen_safe(line) for line in columns(("NAME", "WHERE", "STATUS", "COST"), rows)]


def losses(run: Run, missing: Sequence[FileEntry] | None, why: str, notes: RunNotes) -> list[str]:
    """The lines of `stop --no-pull` before it asks: what is not here, what becomes of it, and what is here.

    Args:
        missing: finished files that are not here; None: the machine cannot be asked, and `why`.
        notes: the run's journal.
    """
    own = run.instance is not None and run.instance.owned
    fate = "deleted with the machine, for good" if own else "not fetched; it stays on the machine"
    if missing is None:
        first = f"not here, and {fate}: everything that has not come down yet; which files is not known ({why})"
    elif missing:
        named = ", ".join(f"{entry.name} ({size(entry.size)})" for entry in missing[:_NAMED])
        rest = missing[_NAMED:]
        more = f", and {len(rest)} more ({size(sum(entry.size for entry in rest))})" if rest else ""
        first = f"not here, and {fate}: {named}{more}"
    else:
        first = "every file that the training has finished so far is here"
    lines = [first]
    if run.state is RunState.RUNNING:
        lines.append(
            "the training since its last checkpoint is lost: it is not asked to save" if own else "it saves there"
        )
    come = len(notes.trickled)
    lines.append(f"here it stays: the log so far, and {counted(come, 'file')} in {shown_path(run.folder)}")
    return [screen_safe(line) for line in lines]


def _costs(run: Run) -> str:
    price = hourly(run)
    if not price:
        return "not billed" if run.plan.spec.rehearsal else "nothing"
    now = time.time()
    if expiry.away(run):
        usd = run.plan.offer.details.parked_per_day
        return f"{money(usd)} a day" if usd is not None else "its disk"
    ends = expiry.expires_at(run)
    by = f", {'ends itself' if ends > now else 'should have ended'} by {time_of_day(ends, now)}" if ends else ""
    return an_hour(price) + by
