"""What a run has cost so far: the time for which its machine was up, at the plan's price, and its disk while parked.

A stretch is the time from a start of the machine to its next stop or end (`Instance.details`: `began_at`, `ended_at`);
what came before it is reckoned up (`before_usd`). EC2 bills by the second, each stretch for a minute at least
(https://aws.amazon.com/ec2/pricing/on-demand/).
"""

from __future__ import annotations

from dataclasses import replace

from cloudtrain.core.instance import Instance
from cloudtrain.core.states import InstanceLife
from cloudtrain.store import Run

LEAST_S = 60.0
DAY_S = 86400.0


def cost(run: Run, now: float) -> float | None:
    """USD so far, at `now` (unix seconds). None: nothing is billed."""
    return None if run.plan.spec.rehearsal else would_cost(run, now)


def hourly(run: Run) -> float | None:
    """USD an hour while its machine is up. None: nothing is billed."""
    instance = None if run.plan.spec.rehearsal else run.instance
    return instance.price_per_hour if instance is not None and instance.owned else None


def would_cost(run: Run, now: float) -> float | None:
    """What the time so far costs at the instance's price, whether it is billed or rehearsed."""
    instance = run.instance
    if instance is None or not instance.owned or instance.price_per_hour is None:
        return None
    until = _until(run, instance, now)
    usd = instance.details.before_usd + _stretch(run, instance, until)
    if run.life is InstanceLife.PARKED:
        usd += (run.plan.offer.details.parked_per_day or 0.0) * max(0.0, now - until) / DAY_S
    return usd


def _stretch(run: Run, instance: Instance, until: float) -> float:
    """USD of the machine's last stretch, to its end at `until`."""
    details = instance.details
    # Rows of an earlier release know of no stretches.
    began = details.began_at if details.began_at is not None else run.created_at + (details.parked_s or 0.0)
    return (instance.price_per_hour or 0.0) * max(LEAST_S, until - began) / 3600


def _until(run: Run, instance: Instance, now: float) -> float:
    """Unix seconds at which the machine's last stretch has ended, `now` if it may go on.

    Its lease ends it, whoever knows; a run that is over has given its machine back, unless that is kept or not
    confirmed.
    """
    ended = instance.details.ended_at
    if ended is not None:
        return min(ended, now)
    given_back = run.ended_at if not run.life.may_be_up and not instance.details.kept_until else None
    return min(at for at in (now, given_back, instance.details.expires_at) if at is not None)


def ended(instance: Instance, at: float | None, now: float, *, disk_per_day: float = 0.0) -> Instance:
    """`instance`, of which EC2 says that it is parked or has ended, since `at` (unix seconds).

    Args:
        at: None: EC2 does not say since when; it is its lease's end or `now`, and earlier if that was known before.
        disk_per_day: USD, of one that was parked until it ended.
    """
    details = instance.details
    if not instance.owned:
        return instance
    before = details.ended_at
    if at is None:
        at = before or min(now, details.expires_at or now)
    usd = details.before_usd + disk_per_day * max(0.0, at - (before or at)) / DAY_S
    return replace(instance, details=replace(details, ended_at=min(at, before or at), before_usd=usd))


def down(
    run: Run, life: InstanceLife, at: float | None, now: float, instance: Instance | None = None
) -> Instance | None:
    """The machine of `run`, which EC2 says is `life` now (parked, or gone), since `at`, as the registry has it: whoever
    looks may know it from before another command has started it again.

    Args:
        run: its row, just read.
        instance: as whoever looks knows it, where the row has none or another one.
    """
    known = run.instance if instance is None or (run.instance and run.instance.id == instance.id) else instance
    if known is None:
        return None
    gone = run.life is InstanceLife.PARKED and life is not InstanceLife.PARKED
    disk = run.plan.offer.details.parked_per_day if gone else None
    return ended(known, at or now if gone else at, now, disk_per_day=disk or 0.0)


def woken(run: Run, instance: Instance, now: float) -> Instance:
    """`instance`, that of the parked `run` which runs again: what the run has cost until then is reckoned up."""
    assert run.instance is not None
    before, began = run.instance.details, instance.details.began_at or now
    parked_s = (before.parked_s or 0.0) + max(0.0, began - (before.ended_at or began))
    usd = would_cost(run, began) or 0.0
    return replace(instance, details=replace(instance.details, began_at=began, before_usd=usd, parked_s=parked_s))


def handed_over(run: Run, instance: Instance, to: str, now: float) -> tuple[Instance, Instance]:
    """`instance`, the kept machine of `run`, which is the run `to`'s from `now` on, as each of the two has it: what
    they cost is together what EC2 bills for it."""
    details = replace(instance.details, kept_until=None)
    left = replace(details, token="", ended_at=now, before_usd=run.instance.details.before_usd if run.instance else 0.0)
    taken = replace(details, run=to, before_usd=-_stretch(run, instance, now), parked_s=None)
    return replace(instance, life=InstanceLife.NONE, details=left), replace(instance, details=taken)
