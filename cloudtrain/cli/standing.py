"""A command that fails while the run's machine is up says so: what it costs, who ends it, and when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cloudtrain.billing import expiry
from cloudtrain.billing.cost import hourly
from cloudtrain.core.errors import GONE, RECLAIMED, Busy, CloudtrainError
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import an_hour, money, time_of_day
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.store import Run, Store

# The loudest error names machine, price and lease itself; the others say that the machine is up no more.
_SAY_IT_THEMSELVES = frozenset({"release_pending", "parked", GONE, RECLAIMED})


@contextmanager
def told(name: str, store: Store) -> Iterator[None]:
    """Add to a failure inside what becomes of the machine of run `name`, if it has one that is up."""
    try:
        yield
    except Busy:
        raise
    except CloudtrainError as error:
        if error.code not in _SAY_IT_THEMSELVES and name in store.names():
            said = machine(store.get(name), store, time.time())
            error.consequence = "; ".join(filter(None, [error.consequence, said])) or None
        raise
    except Exception as error:
        # Whatever it is: a machine that is up and unsaid costs money.
        with suppress(CloudtrainError):
            said = machine(store.get(name), store, time.time())
            error.add_note(said) if said else None
        raise


def machine_up(run: Run, now: float) -> str | None:
    """What becomes of the run's own machine by itself, in words; None: it has none that is up, as far as is known.

    Args:
        now: unix seconds.
    """
    instance, end = run.instance, expiry.expires_at(run)
    if instance is None or end is None or not run.life.may_be_up:
        return None
    if now >= end:
        return f"{instance.id} {expiry.overdue_words(run, now)}"
    keeps = expiry.parks(run.plan) and run.state.trains
    fate = "parks itself, with its disk," if keeps else "ends itself"
    return f"{instance.id} may be running{an_hour(hourly(run), ' at ')}; it {fate} by {time_of_day(end, now)}"


def machine(run: Run, store: Store, now: float) -> str | None:
    """Of the run's own machine, or of one that was started for it; None: there is none that costs anything,
    as far as is known at `now` (unix seconds)."""
    spec, ec2 = run.plan.spec, store.read_notes(run.name, Ec2Notes)
    if ec2.release_pending is not None:
        debt, end = ec2.release_pending, expiry.expires_at(run)
        costs = an_hour(None if spec.rehearsal else debt.price, ", may be billed at ")
        by = f", and ends itself by {time_of_day(end, now)}" if end is not None and end > now else ""
        return f"{debt.id} was to end, and EC2 has not confirmed it{costs}{by}"
    if run.life is InstanceLife.PARKED and run.instance is not None:
        usd = run.plan.offer.details.parked_per_day
        costs = f", its disk costs {money(usd)} a day" if usd and not spec.rehearsal else ""
        return f"{run.instance.id} is parked{costs}"
    if ec2.started is not None and not run.state.final:
        return f"{ec2.started}, an instance of yours, was started for it and may be up"
    before = run.instance is None or run.instance.details.ended_at is not None
    own = spec.ec2 is not None and not spec.ec2.instance_id
    if run.life is InstanceLife.LAUNCHING and before and own:
        return _launch(ec2, now, billed=not spec.rehearsal)
    if expiry.is_kept(run, now) and run.instance is not None:
        return f"{run.instance.id} is {expiry.kept_words(run, now)}"
    return machine_up(run, now)


def _launch(ec2: Ec2Notes, now: float, *, billed: bool) -> str:
    """How far a launch has come."""
    slot = ec2.request.slot if ec2.request is not None else None
    if ec2.instance is not None:
        what, price = f"{ec2.instance.id} is coming up", ec2.instance.price
    elif slot is not None:
        what, price = f"EC2 was asked for {slot}, and has not answered: one may be coming up", slot.price
    else:
        return "no machine has been asked for"
    costs = an_hour(price if billed else None, " at ")
    end = ec2.attempt.expires_at if ec2.attempt else None
    return what + costs + (f"; it ends itself by {time_of_day(end, now)}" if end is not None and now < end else "")
