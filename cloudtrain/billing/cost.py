"""What a run has cost so far, by the price of its machine."""

from __future__ import annotations

from cloudtrain.store import Run


def cost(run: Run, now: float) -> float | None:
    """USD so far by the price of the plan; EC2 bills by the second, a minute at least. None: nothing is billed."""
    return None if run.plan.spec.rehearsal else would_cost(run, now)


def would_cost(run: Run, now: float) -> float | None:
    """What the time so far costs at the instance's price, whether it is billed or rehearsed."""
    instance = run.instance
    if instance is None or not instance.owned or instance.price_per_hour is None:
        return None
    # A machine's GPU is billed until its lease is over at the latest, and not while it is parked. A run that went on
    # after its spot instance was taken back has had others before (`lifecycle/spot.py`, `priced`).
    details = instance.details
    # A machine that is kept (`lifecycle/machine_end.py`) is billed beyond its run's end.
    ended_at = None if details.kept_until else run.ended_at
    until = min(ended_at or now, details.ended_at or now, details.expires_at or float("inf"))
    began = details.began_at or run.created_at
    seconds = max(60.0, until - began - (details.parked_s or 0.0))
    return instance.price_per_hour * seconds / 3600 + details.before_usd
