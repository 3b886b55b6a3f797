"""The run that a reporter shows: how long it has been going, what it has cost, and when it ends itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloudtrain.billing.cost import cost, would_cost
from cloudtrain.billing.expiry import ends_at, expires_at
from cloudtrain.console.pages import summary
from cloudtrain.console.reporters.training import Money
from cloudtrain.core.plan import Plan
from cloudtrain.core.text import time_of_day
from cloudtrain.store import Run

_LOOK_EVERY_S = 15.0


class Watched:
    """What is known of the run, from its plan on. Only its maker's thread asks the registry; others may read.

    Args:
        clock: seconds that only go forward; wall: unix seconds.

    Attributes:
        plan: as it was shown, or as the run has it; None: not known yet.
        run: as it stood at the last look; None: there is none yet.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = clock, wall
        self._began, self._began_at = clock(), wall()
        self._looked_at = clock()
        self._thread = threading.get_ident()
        self._again: Callable[[], Run] | None = None
        self.plan: Plan | None = None
        self.run: Run | None = None

    def about(self, run: Run, again: Callable[[], Run]) -> None:
        """It is this run; `again` gives it as it stands later."""
        self.run, self._again = run, again
        self.plan = self.plan or run.plan

    def look(self, *, if_due: bool = False) -> None:
        """See how the run stands now, since another command may have extended it; `if_due`: a few times a minute."""
        if if_due and self._clock() - self._looked_at <= _LOOK_EVERY_S:
            return
        self._looked_at = self._clock()
        if self._again is not None and threading.get_ident() == self._thread:
            self.run = self._again()

    def passed_s(self) -> float:
        """Seconds since the run was planned."""
        return self._clock() - self._began + (self._began_at - self.run.created_at if self.run else 0.0)

    @property
    def figured(self) -> bool:
        """Whether it trains what comes along, whose figures say what its log does."""
        return self.plan is not None and self.plan.spec.job.shipped

    def money(self) -> Money:
        """What it has cost by now, and when it ends itself."""
        plan, run = self.plan, self.run
        if plan is None:
            return Money()
        if plan.price_per_hour is None:
            at = ends_at(run) if run is not None else None
            return Money(ends=time_of_day(at, self._wall()) if at else None)
        rehearsed, now = plan.spec.rehearsal, self._wall()
        spent = (would_cost(run, now) if rehearsed else cost(run, now)) if run is not None else None
        if spent is None:
            spent = plan.price_per_hour * (self._clock() - self._began) / 3600
        at = expires_at(run) if run is not None else None
        ends = None if rehearsed else summary.ends_by(plan, run.created_at if run else self._began_at, at)
        return Money(spent=spent, at_most=plan.at_most_usd, ends=ends, rehearsed=rehearsed)
