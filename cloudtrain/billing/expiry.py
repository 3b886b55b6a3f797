"""When a run ends by itself, what becomes of its machine then, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloudtrain.core.errors import CloudtrainError, HostKeyMismatch, UsageError
from cloudtrain.core.events import Warned
from cloudtrain.core.instance import Instance
from cloudtrain.core.plan import Plan
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.store import Run

if TYPE_CHECKING:
    from cloudtrain.lifecycle.session import Context, Link

# Between SIGTERM and SIGKILL.
STOP_GRACE_S = 20.0
# The job ends this long before its machine does, in seconds: it saves, its results are hashed, and a client that
# follows pulls them. Of a short lease, a part.
MARGIN_S = 300.0
MARGIN_PART = 0.1


def margin_s(limit_s: float) -> float:
    """Seconds between the job's deadline and the machine's, for a run of so many seconds."""
    return min(MARGIN_S, MARGIN_PART * limit_s)


def expires_at(run: Run, instance: Instance | None = None) -> float | None:
    """Unix seconds at which the run's own machine ends itself, as last known here; None: it has none, or never."""
    instance = instance or run.instance
    if instance is None or not instance.owned:
        return None
    at = instance.details.get("expires_at")
    return float(at) if at else None


def deadline(run: Run, instance: Instance) -> float | None:
    """Unix seconds at which the supervisor ends the job; None: never."""
    if not run.plan.limit_s:
        return None
    end = expires_at(run, instance)
    return end - margin_s(run.plan.limit_s) if end else run.created_at + run.plan.limit_s


def stop_grace_s(run: Run, instance: Instance) -> float:
    """Seconds that the job gets to save when its deadline has come; they end before the machine does."""
    if not run.plan.limit_s or expires_at(run, instance) is None:
        return STOP_GRACE_S
    return min(STOP_GRACE_S, margin_s(run.plan.limit_s) / 2)


def parks(plan: Plan) -> bool:
    """Whether a machine of this plan keeps its disk when it ends itself."""
    ec2 = plan.spec.ec2
    return ec2 is not None and not ec2.instance_id and not ec2.spot and plan.spec.limits.if_i_vanish == "park"


def parked_per_day(plan: Plan) -> float | None:
    """USD that a parked machine of this plan costs a day: its disk. None: not known."""
    usd = plan.offer.details.get("parked_per_day")
    return float(usd) if usd is not None else None


def ends_at(run: Run) -> float | None:
    """Unix seconds at which the run ends whatever it does, as last known here; None: never."""
    at = expires_at(run)
    if at is not None:
        return at
    return run.created_at + run.plan.limit_s if run.plan.limit_s else None


def away(run: Run, now: float) -> bool:
    """Whether the run's machine is parked, or may be by now without anybody here having seen it."""
    if run.state.final or run.life is InstanceLife.TERMINATED:
        return False
    end = expires_at(run)
    return run.life is InstanceLife.PARKED or (run.state is RunState.RUNNING and end is not None and now >= end)


def keep(run: Run, link: Link) -> None:
    """In RUNNING: the machine parks from now on where it would have ended itself, and does so soon after the job's end.

    Looked at by every command that resumes the run, so that one which was killed in between is made good.
    """
    if run.state is not RunState.RUNNING or not parks(run.plan):
        return
    try:
        instance = link.find()
        if link.journal.read().get("parks") == instance.id:
            return
        if link.provider.keep(instance, link.journal, link.context.emit):
            link.supervisor().lease(grace=run.plan.spec.limits.grace_s)
            link.journal.write({"parks": instance.id})
    except HostKeyMismatch:
        raise
    except CloudtrainError as error:
        link.context.emit(
            Warned(
                f"the machine may delete its disk when it ends itself: {error.message}",
                hint="stay with the run, or pull before its limit; the next command tries again",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A later end for a run.

    Attributes:
        before, after: unix seconds at which it ends whatever it does.
        at_most_usd: the most it can cost with the later end, rounded up to the cent; None where nothing is billed.
    """

    before: float
    after: float
    at_most_usd: float | None


def extension(run: Run, context: Context, by_s: float) -> Extension:
    """What `by_s` more seconds would mean for `run`, from the registry alone.

    Raises:
        UsageError: it has ended, is parked, does not train yet, or has no limit.
    """
    hint = f"cloudtrain pull {run.name}"
    if run.state.final:
        raise _not_extended(f"{run.name} has ended ({run.state.value})", f"cloudtrain show {run.name}")
    if run.state is RunState.PULLING or away(run, context.clock()):
        raise _not_extended(f"{run.name} does not train any more", hint)
    if run.state is not RunState.RUNNING:
        raise _not_extended(f"{run.name} does not train yet", f"cloudtrain logs {run.name}")
    before = ends_at(run)
    if before is None:
        raise _not_extended(f"{run.name} has no limit that could be moved", f"cloudtrain logs {run.name}")
    moved = context.store.read_journal(run.name).get("ends_at")
    before = float(moved) if moved and expires_at(run) is None else before
    after = before + by_s
    prices = [c.most_per_hour or c.price_per_hour for c in run.plan.offer.candidates]
    known = [price for price in prices if price]
    billed = run.plan.at_most_usd is not None and known
    parked_s = float(run.instance.details.get("parked_s") or 0.0) if run.instance else 0.0
    seconds = after - run.created_at - parked_s
    return Extension(
        before=before, after=after, at_most_usd=-(-max(known) * seconds / 36 // 1) / 100 if billed else None
    )


def extend(run: Run, context: Context, by_s: float) -> Extension:
    """Move a run's end: the machine's own timer, its tag, the job's deadline, the registry. Works beside a command that
    follows the run.

    Raises:
        UsageError: there is nothing to extend.
        ConnectionFailed: the machine cannot be reached, or did not take the new end; it ends at the old one.
    """
    # What only shows a run needs neither, and `ls` is to answer before anybody wonders.
    from cloudtrain.lifecycle.session import Link
    from cloudtrain.run_folder import receipt

    run = context.store.get(run.name)
    told = extension(run, context, by_s)
    with Link(run, context, wakes=False) as link:
        if link.supervisor().poll().state != "running":
            raise _not_extended(f"{run.name} does not train any more", f"cloudtrain pull {run.name}")
        instance = link.find()
        margin = 0.0
        # The machine first: a job must never outlive it.
        if link.provider.extend(instance, link.transport(), told.after, link.journal, context.emit):
            run = context.store.note(
                run, instance=replace(instance, details={**instance.details, "expires_at": told.after})
            )
            margin = margin_s(run.plan.limit_s or 0.0)
        link.supervisor().lease(deadline=told.after - margin)
        link.journal.write({"ends_at": told.after})
        receipt.update(run, context.store, context.emit)
    return told


def _not_extended(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was changed", code="not_extended")
