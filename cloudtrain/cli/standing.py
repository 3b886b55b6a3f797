"""A command that fails while the run's machine is up says so: what it costs, who ends it, and when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cloudtrain.billing import expiry
from cloudtrain.core.errors import GONE, RECLAIMED, Busy, CloudtrainError, UsageError
from cloudtrain.core.text import time_of_day
from cloudtrain.store import Run, Store

# The loudest error names machine, price and lease itself; the others say that the machine is up no more.
_SAY_IT_THEMSELVES = frozenset({"release_pending", "parked", GONE, RECLAIMED})


@contextmanager
def told(name: str, store: Store) -> Iterator[None]:
    """Add to a failure inside what becomes of the machine of run `name`, if it has one that is up."""
    try:
        yield
    except (Busy, UsageError):
        raise
    except CloudtrainError as error:
        if error.code not in _SAY_IT_THEMSELVES and name in store.names():
            said = machine_up(store.get(name), time.time())
            error.consequence = "; ".join(filter(None, [error.consequence, said])) or None
        raise
    except Exception as error:
        # Whatever it is: a machine that is up and unsaid costs money.
        with suppress(CloudtrainError):
            said = machine_up(store.get(name), time.time())
            error.add_note(said) if said else None
        raise


def machine_up(run: Run, now: float) -> str | None:
    """What becomes of the run's own machine by itself, for people; None: it has none that is up, as far as is known.

    Args:
        now: unix seconds.
    """
    instance, end = run.instance, expiry.expires_at(run)
    if instance is None or end is None or not run.life.may_be_up:
        return None
    if now >= end:
        return f"{instance.id} {expiry.overdue_words(run, now)}"
    rehearsal = run.plan.spec.rehearsal
    price = f" at ${instance.price_per_hour:.3f} an hour" if instance.price_per_hour and not rehearsal else ""
    keeps = expiry.parks(run.plan) and run.state.trains
    fate = "parks itself, with its disk," if keeps else "ends itself"
    return f"{instance.id} is still up{price}; it {fate} by {time_of_day(end, now)}"
