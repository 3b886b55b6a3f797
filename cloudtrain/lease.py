"""When a run ends by itself, what becomes of its machine then, and what that costs."""

from __future__ import annotations

from cloudtrain.errors import CloudtrainError, HostKeyMismatch
from cloudtrain.events import Warned
from cloudtrain.link import Link
from cloudtrain.plan import Plan
from cloudtrain.provider.base import Instance
from cloudtrain.states import InstanceLife, RunState
from cloudtrain.store import Run

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
    if run.state is not RunState.RUNNING or not parks(run.plan) or link.journal.read().get("parks"):
        return
    try:
        if link.provider.keep(link.find(), link.journal, link.context.emit):
            link.supervisor().lease(grace=run.plan.spec.limits.grace_s)
            link.journal.write({"parks": True})
    except HostKeyMismatch:
        raise
    except CloudtrainError as error:
        link.context.emit(
            Warned(
                f"the machine may delete its disk when it ends itself: {error.message}",
                hint="stay with the run, or pull before its limit; the next command tries again",
            )
        )
