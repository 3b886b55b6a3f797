"""When a run ends by itself, what becomes of its machine then, and what that costs."""

from __future__ import annotations

from cloudtrain.billing.cost import hourly
from cloudtrain.core.instance import Instance
from cloudtrain.core.plan import Plan
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import an_hour, past, time_of_day
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
    return instance.details.expires_at or None


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


def ends_at(run: Run) -> float | None:
    """Unix seconds at which the run ends whatever it does, as last known here; None: never."""
    instance = run.instance
    # A machine that stays has the moved end of the job; one of the user's in EC2 may have a lease of another run.
    ours = instance is not None and (instance.owned or instance.provider is not Target.EC2)
    at = instance.details.expires_at if instance is not None and ours else None
    if at:
        return at
    return run.created_at + run.plan.limit_s if run.plan.limit_s else None


def away(run: Run) -> bool:
    """Whether the machine of a run that has not ended is parked: EC2 has said so."""
    return not run.state.final and run.life is InstanceLife.PARKED


def overdue_s(run: Run, now: float) -> float | None:
    """Seconds by which the machine of a run is past its end at `now` (unix seconds) without EC2 having said that it has
    ended; None: it is not."""
    end = expires_at(run)
    return now - end if run.life.may_be_up and not run.state.final and end is not None and now >= end else None


def overdue_words(run: Run, now: float) -> str:
    """ "should have ended by 22:21, not confirmed; cloudtrain stop NAME", of a run that is overdue."""
    return f"should have ended by {past(expires_at(run) or now, now)}, not confirmed; cloudtrain stop {run.name}"


def late_s(run: Run, now: float) -> float | None:
    """Seconds by which a job that ends on a machine which stays is past its limit at `now` (unix seconds), and its end
    is not known here; None: it is not."""
    end = ends_at(run)
    if run.state is not RunState.RUNNING or run.ending is not None or expires_at(run) is not None or end is None:
        return None
    return now - end if now >= end + STOP_GRACE_S else None


def late_words(run: Run, now: float) -> str:
    """ "its limit was 22:21, and its end is not known here; cloudtrain logs NAME", of a run that is late."""
    return f"its limit was {past(ends_at(run) or now, now)}, and its end is not known here; cloudtrain logs {run.name}"


def kept_until(run: Run) -> float | None:
    """Unix seconds at which the machine of an ended run that is kept ends itself; None: it has none such, as far as is
    known here."""
    if not run.state.final or run.life is not InstanceLife.RUNNING or run.instance is None:
        return None
    return run.instance.details.kept_until or None


def is_kept(run: Run, now: float) -> bool:
    """Whether the run's machine is kept and its time is not over at `now` (unix seconds)."""
    at = kept_until(run)
    return at is not None and now < at


def kept_hint(run: Run) -> str:
    """What to do with a machine that is kept, in words."""
    name = run.name
    return f"cloudtrain ssh {name} logs in, cloudtrain run --on {name} trains on it, cloudtrain stop {name} ends it now"


def kept_words(run: Run, now: float) -> str:
    """ "kept until 15:04 at $0.526 an hour", of a machine that is kept."""
    return f"kept until {time_of_day(kept_until(run) or now, now)}" + an_hour(hourly(run), " at ")
