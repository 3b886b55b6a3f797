"""A machine that stays up for a while once its run's results are here (`--keep`), and then ends itself, unwatched.

Its end is on the machine before the run's story ends: it deletes itself, its timer is moved to the end that was
promised, never past the run's own, and its supervisor counts the same time by a clock of its own. Whatever of that
fails, the machine is given back at once instead.

Notes in the run's journal:

    keep_s      seconds that `stop` has asked for, in the place of the plan's; 0: the machine is to end at once
    held        {"id", "until"}: written before anything is moved, so that a command which comes back promises no more

`Instance.details` of a machine that is kept: `kept_until` (unix seconds), and `expires_at` is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cloudtrain.core.errors import CloudtrainError, UsageError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.spec import Limits, RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import time_of_day

if TYPE_CHECKING:
    from cloudtrain.core.instance import Instance
    from cloudtrain.lifecycle.session import Link
    from cloudtrain.store import Run

# Less than this before the run's own end, in seconds, is not worth staying for.
LEAST_S = 20.0
# Ends of a job by which its machine goes, whoever wants it.
_GOING = frozenset({"spot", "shutdown"})


@dataclass(frozen=True, slots=True)
class Held:
    """A machine that stays up: `leftover` is what that is, for people, with its price and its end."""

    instance: Instance
    leftover: str


def check(spec: RunSpec) -> None:
    """`spec` is of a run whose machine can be kept.

    Raises:
        UsageError: no machine is launched for it, so none is ended either.
    """
    if spec.target is Target.EC2 and spec.ec2 is not None and not spec.ec2.instance_id:
        return
    where = {Target.LOCAL: "this computer", Target.HOST: "a machine of yours"}.get(spec.target, "an instance of yours")
    raise UsageError(
        f"--keep is for a machine that is launched for the run: this one trains on {where}, which is never ended",
        hint="leave --keep out",
        consequence="nothing was changed",
        code="bad_setting",
    )


def until(run: Run) -> float | None:
    """Unix seconds at which the machine of an ended run that is kept ends itself; None: it has none such, as far as is
    known here."""
    if not run.state.final or run.life is not InstanceLife.RUNNING or run.instance is None:
        return None
    at = run.instance.details.get("kept_until")
    return float(at) if at else None


def lasts(run: Run, now: float) -> bool:
    """Whether the run's machine is kept and its time is not over at `now` (unix seconds)."""
    at = until(run)
    return at is not None and now < at


def over(run: Run, now: float) -> Instance | None:
    """The instance of `run`, given back at `now` (unix seconds): one that was kept is not billed beyond that."""
    instance = run.instance
    if instance is None or not instance.details.get("kept_until"):
        return instance
    return replace(instance, details={**instance.details, "ended_at": min(now, instance.details["kept_until"])})


def ways(run: Run) -> str:
    """What to do with a machine that is kept, for people."""
    return f"cloudtrain ssh {run.name} logs in, cloudtrain stop {run.name} ends it now"


def told(run: Run, now: float) -> str:
    """ "kept until 15:04 at $0.526 an hour", of a machine that is kept."""
    at = until(run)
    price = run.instance.price_per_hour if run.instance and not run.plan.spec.rehearsal else None
    return f"kept until {time_of_day(at or now, now)}" + (f" at ${price:.3f} an hour" if price else "")


def asked(limits: Limits, notes: Mapping[str, Any]) -> float:
    """Seconds that the run's machine is to stay up; 0: it is not to."""
    wanted = notes.get("keep_s")
    return float(limits.keep_s or 0.0) if wanted is None else float(wanted)


def take(run: Run, link: Link) -> Held | None:
    """In PULLING, with the results here: the machine stays up if that was asked for; None: it is to be given back.

    Safe to call again after a crash at any point: the end that was promised first stands.
    """
    # Here, so that a listing need not wait for it.
    from cloudtrain.billing import expiry

    notes, now, instance = link.journal.read(), link.context.clock(), link.instance
    wanted = asked(run.plan.spec.limits, notes)
    if not wanted or instance is None or notes.get("pulled") is None or notes.get("ec2_release_pending"):
        return None
    why = _why_not(run, instance, notes)
    before = notes.get("held") or {}
    end = expiry.expires_at(run, instance)
    at = float(before["until"]) if before.get("id") == instance.id else now + wanted
    at = float(int(min(at, end) if end else at))
    if why is None and at - now < LEAST_S:
        # A resumed command finds its own promise used up; only a fresh one has something to explain.
        why = "" if before else "its limit is reached"
    if why is not None:
        if why:
            link.context.emit(Noted(f"{instance.id} is not kept: {why}"))
        return None
    link.journal.write({"held": {"id": instance.id, "until": at}})

    def arrange(machine: Instance = instance) -> bool:
        if not link.provider.hold(machine, link.transport(wakes=False), at, link.journal, link.context.emit):
            return False
        # Counted from now by the machine itself: a clock that is wrong there or here moves this end by nothing.
        link.supervisor().lease(grace=max(1.0, at - link.context.clock()))
        return True

    try:
        with link.step("keep", limit_s=90) as closing:
            if not link.insist(arrange):
                return None
            closing.append(f"{instance.id} stays up until {time_of_day(at, now)}, then it ends itself")
    except CloudtrainError as error:
        link.journal.write({"held": None, "keep_s": 0.0})
        link.context.emit(
            Warned(f"{instance.id} cannot be kept and is ended now: {error.message}", hint="the results are here")
        )
        return None
    # The link's own: it may have been woken or looked up since.
    instance = link.instance or instance
    kept = replace(instance, details={**instance.details, "expires_at": at, "kept_until": at})
    return Held(kept, _leftover(run, kept, at, now))


def _why_not(run: Run, instance: Instance, notes: Mapping[str, Any]) -> str | None:
    """Why a machine is not kept although that was asked for, for people; None: it can be."""
    if not instance.owned:
        return "it is yours, and is not ended"
    if (run.ending or {}).get("stop") in _GOING:
        return "it is about to go"
    if "parked_s" in instance.details or notes.get("ec2_woken"):
        return "it had parked, and was started to fetch its results alone"
    return None


def _leftover(run: Run, instance: Instance, at: float, now: float) -> str:
    price, rehearsal = instance.price_per_hour, run.plan.spec.rehearsal
    costs = "nothing is billed for a rehearsal" if rehearsal else f"${price:.3f} an hour" if price else "billed"
    kind = f" ({instance.type})" if instance.type else ""
    end = f"kept until {time_of_day(at, now)}, then it ends itself; {costs}"
    return f"instance {instance.id}{kind}, {end}. {ways(run)}"
