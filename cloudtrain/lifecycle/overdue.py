"""Whoever follows a run holds its end, too: a machine that outlives it is ended through EC2, whatever its host says.

The end counts by a clock of this computer's that nobody sets. It is held beside the story, by a thread of its own, so
that a host which answers slowly for ever, or says that all is well, holds nothing up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloudtrain.billing import cost, expiry
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.events import Emit, Event, StepProgress, Warned, discard
from cloudtrain.core.notes import Journal, RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import time_of_day
from cloudtrain.provider.base import Provider
from cloudtrain.store import Run, Store

# A machine has this long after its end to have ended itself, in seconds.
AFTER_S = 60.0
# Of a run that is being stopped, what its host may take to end the job beyond the job's grace, in seconds.
STOP_S = 60.0
# What is fetched last may take this long, in seconds, and longer while it comes at the pace of a slow link.
LAST_S = 1800.0
_SLOW_LINK = 8000.0  # bytes a second
_LOOK_S = 5.0


def steady() -> float:
    """Seconds by a clock that nobody sets, and that goes on while this computer sleeps."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        if hasattr(time, name):
            return time.clock_gettime(getattr(time, name))
    return time.monotonic()


def is_due(run: Run, now: float) -> bool:
    """Whether the machine of `run` is to be ended through EC2 at `now` (unix seconds), unless it has ended."""
    late = expiry.overdue_s(run, now)
    return late is not None and late >= AFTER_S


class Guard:
    """Holds the end of one run's machine for as long as a session with it lasts.

    Args:
        clock: unix seconds, looked at once; steady: see there.
        holds: else it does nothing.

    Attributes:
        wakes: a parked machine may be started again for its results. Not once it had to be ended for holding them back,
            or had to be ended twice.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        provider: Provider,
        journal: Journal,
        clock: Callable[[], float],
        steady: Callable[[], float],
        *,
        holds: bool = True,
    ) -> None:
        self._run, self._store, self._provider, self._journal = run.name, store, provider, journal
        ours = run.plan.spec.target is Target.EC2 and not (run.plan.spec.ec2 and run.plan.spec.ec2.instance_id)
        self._ours = holds and ours
        self._steady, self._began = steady, clock() - steady()
        self._last_by: float | None = None
        self._why = ""
        self._came = 0.0
        self._asked = 0
        self._failed = False
        self._told: list[Event] = []
        self._acts = threading.Lock()
        self._left = threading.Event()
        self.wakes = True

    def start(self) -> None:
        """Hold it from now on."""
        if self._ours:
            threading.Thread(target=self._hold, name=f"end of {self._run}", daemon=True).start()

    def close(self) -> None:
        """The session is over. A call to EC2 that has begun is waited for."""
        self._left.set()
        with self._acts:
            pass

    def say(self, emit: Emit) -> None:
        """Tell what was done meanwhile, from the caller's thread."""
        while self._told:
            emit(self._told.pop(0))

    def last_call(self, within_s: float, why: str) -> None:
        """Within so many seconds the step that begins now is over, or the machine is parked, and `why` is reported."""
        self._came, self._why = 0.0, why
        self._last_by = self._now() + within_s

    def hearing(self, emit: Emit) -> Emit:
        """`emit`, which tells here how much has come: what comes at the pace of a slow link moves the bound."""

        def told(event: Event) -> None:
            if isinstance(event, StepProgress):
                self._came = max(self._came, event.done or 0.0)
            emit(event)

        return told

    def look(self) -> None:
        """End the machine if it is due."""
        with self._acts:
            if self._ours and not self._left.is_set():
                run = self._store.get(self._run)
                notes, now = self._journal.read(RunNotes), self._now()
                if is_due(run, now):
                    at = time_of_day(expiry.expires_at(run) or now, now)
                    self._end(run, f"it should have ended by {at}, and goes on", something_to_lose(run, notes))
                elif self._last_by and now >= self._last_by + self._came / _SLOW_LINK and _can_park(run, notes):
                    self.wakes = False
                    self._end(run, self._why, parks=True)

    def _now(self) -> float:
        return self._began + self._steady()

    def _hold(self) -> None:
        while not self._left.wait(_LOOK_S):
            try:
                self.look()
            except CloudtrainError:
                # The registry is busy, or the run is forgotten: looked at again.
                continue

    def _end(self, run: Run, why: str, parks: bool) -> None:
        assert run.instance is not None
        try:
            ended = self._provider.machine(run.instance, self._journal, discard).end(parks=parks)
        except CloudtrainError as error:
            if not self._failed:
                told = (
                    f"{run.instance.id}: {why}; EC2 was asked to end it and has not said that it did: {error.message}"
                )
                self._told.append(Warned(told, hint=f"cloudtrain stop {run.name}"))
            self._failed = True
            return
        now = self._now()
        life = ended.life
        if ended.told:
            self._asked += 1
            self.wakes = self.wakes and self._asked < 2
            word = "stopped" if life is InstanceLife.PARKED else "terminated"
            told = f"{run.instance.id}: {why}; EC2 was asked to end it, and says at {time_of_day(now, now)}: {word}"
            rest = "; its disk keeps what is not pulled" if life is InstanceLife.PARKED else ""
            self._told.append(Warned(told + rest, hint=f"cloudtrain show {run.name}"))
        self._store.note(run, life=life, instance=cost.down(run, life, ended.at, now))


def something_to_lose(run: Run, notes: RunNotes) -> bool:
    """Whether a machine that is ended now parks: as by its own lease, once there may be what exists nowhere else."""
    return expiry.parks(run.plan) and bool(run.state.trains or notes.code) and notes.pulled is None


def _can_park(run: Run, notes: RunNotes) -> bool:
    """Whether the machine is the run's own, is up as far as is known, and may hold results that parking keeps."""
    up = run.life.may_be_up and expiry.expires_at(run) is not None
    spot = run.plan.spec.ec2 is not None and run.plan.spec.ec2.spot
    return up and not spot and run.state.trains and notes.pulled is None
