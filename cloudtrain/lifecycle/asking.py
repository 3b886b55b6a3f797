"""How the machines of runs stand now: all are asked at once, each for a few seconds. A look, no more: what parks is not
started, what is over its end is not ended, and nothing is pulled."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from cloudtrain.billing import cost
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.instance import Ended, Instance
from cloudtrain.core.notes import Journal
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import shortened
from cloudtrain.core.told import EVENTS, ExitRecord, events
from cloudtrain.lifecycle.progress import Progress
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.base import Provider
from cloudtrain.provider.choose import looking
from cloudtrain.run_folder.outcome import lives
from cloudtrain.store import Facts, Run, Store

WITHIN_S = 8.0
AT_ONCE = 16
# Of a machine's time, what EC2's word on it may take: then it is asked itself, whatever AWS does.
_EC2_S = 4.0
# An answer of EC2's, about all machines of a place, serves for so long.
_FRESH_S = 3.0
# No log is so long: of the log nothing is wanted yet.
_NO_LOG = 2**40
_ROUNDS = 16
# Of the log of a job of one's own the end is looked through for figures, in bytes.
_TAIL = 32 * 1024


class Asking:
    """Asks the machines of runs, and stores what they say: how far the training is, whether the machine is up, when.

    Args:
        provider: gives the provider of a run for a look (`provider.choose.looking`); None: its machine has ended with
            its emulated Region.
        within_s: seconds that each machine has.

    Attributes:
        silent: why nothing was heard, by the run's name; of those that were asked and did not answer.
        ended: names of those whose machine has ended, as was heard. It is not stored: the command that acts on the run
            learns it from EC2 with its reason, and gives back what is left.
    """

    def __init__(
        self,
        store: Store,
        *,
        provider: Callable[[RunSpec], Provider | None] | None = None,
        within_s: float = WITHIN_S,
    ) -> None:
        self._store, self._provider, self._within_s = store, provider or looking(), within_s
        self._places: dict[int, _Place] = {}
        self._ways: dict[str, _Way] = {}
        self._waiting: deque[Run] = deque()
        self._until: dict[str, float] = {}
        self._late: set[str] = set()
        self._heard: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self.silent: dict[str, str] = {}
        self.ended: set[str] = set()

    def as_heard(self, runs: Iterable[Run]) -> list[Run]:
        """`runs`, as the registry has them, with what was heard and is not stored."""
        return [replace(run, life=InstanceLife.TERMINATED) if run.name in self.ended else run for run in runs]

    def begin(self, runs: Iterable[Run]) -> None:
        """Ask those of `runs` that live and are not being asked already."""
        asked = {*self._until, *self._late, *(run.name for run in self._waiting)}
        new = [run for run in runs if lives(run) and run.instance is not None and run.name not in asked]
        new = [run for run in new if run.life is not InstanceLife.TERMINATED]
        # Here, since it may read settings and keys, and asks AWS for a session: in the thread of the command.
        self._waiting += [run for run in new if self._has_way(run)]
        for place in self._places.values():
            place.look()

    def collect(self, wait_s: float) -> bool:
        """Take in what has been heard for at most so many seconds; whether more may come."""
        until = time.monotonic() + wait_s
        while self._waiting or self._until:
            while self._waiting and len(self._until) < AT_ONCE:
                self._start(self._waiting.popleft())
            try:
                self._take(*self._heard.get(timeout=max(0.0, min(until, *self._until.values()) - time.monotonic())))
            except queue.Empty:
                now = time.monotonic()
                for name in [name for name, by in self._until.items() if by <= now]:
                    self._take(name, f"it did not answer within {self._within_s:.0f} s")
                    self._late.add(name)
                if now >= until:
                    break
        return bool(self._waiting or self._until)

    def _take(self, name: str, silent: str | None) -> None:
        self._until.pop(name, None)
        self._late.discard(name)
        self.silent.pop(name, None)
        if silent is not None:
            self.silent[name] = silent

    def _has_way(self, run: Run) -> bool:
        way = self._ways.get(run.name)
        try:
            provider = way.provider if way is not None else self._provider(run.plan.spec)
        except CloudtrainError as error:
            self.silent[run.name] = error.message
            return False
        if provider is None:
            self.ended.add(run.name)
            return False
        self._ways[run.name] = way or _Way(self._store, provider)
        if run.plan.spec.target is Target.EC2:
            assert run.instance is not None
            place = self._places.setdefault(id(provider), _Place(provider))
            place.known[run.name] = (run.instance, self._store.journal(run.name))
        return True

    def _start(self, run: Run) -> None:
        self._until[run.name] = time.monotonic() + self._within_s
        # Daemons: one that hangs on a dead network must neither hold the command up nor outlive it.
        threading.Thread(target=self._ask, args=(run,), name=f"ask {run.name}", daemon=True).start()

    def _ask(self, run: Run) -> None:
        way = self._ways[run.name]
        try:
            silent = self._heard_of(run, way, self._places.get(id(way.provider)))
        except CloudtrainError as error:
            silent = error.message
        except Exception as error:
            # Whatever it is, it is no reason to say nothing of the run.
            silent = f"{type(error).__name__}: {error}"
        self._heard.put((run.name, shortened(silent) if silent else None))

    def _heard_of(self, run: Run, way: _Way, place: _Place | None) -> str | None:
        """Ask EC2 and the machine, and store what they say; why nothing was heard, if nothing was."""
        life: InstanceLife | None = None
        silent = None
        if place is not None and run.instance is not None and run.instance.owned:
            stands, silent = place.stands(run.instance.id)
            life = stands.life if stands else None
            spot = run.plan.spec.ec2 is not None and run.plan.spec.ec2.spot
            if life is InstanceLife.TERMINATED or (life is InstanceLife.PARKED and spot):
                self.ended.add(run.name)
                return None
            self.ended.discard(run.name)
            if stands and life is InstanceLife.PARKED:
                over = cost.down(run, life, stands.at, time.time())
                if not run.state.final or (life, over) != (run.life, run.instance):
                    self._store.heard(run, life=life, instance=over)
                return None
            if life is not None and run.state.final:
                if life is not run.life:
                    self._store.heard(run, life=life)
                return None
        if run.state is RunState.RUNNING:
            return way.poll(run, life)
        if life is not None:
            self._store.heard(run, life=life)
        return silent


class _Way:
    """The way to one run's machine, kept open, and how far its events were heard."""

    def __init__(self, store: Store, provider: Provider) -> None:
        self.provider, self._store = provider, store
        self._context = Context(store=store, provider=lambda spec: provider)
        self._session: Session | None = None

    def poll(self, run: Run, life: InstanceLife | None) -> str | None:
        """Ask the supervisor, and store what it says; why nothing was heard, if nothing was.

        Raises:
            CloudtrainError: nothing was heard.
        """
        try:
            if self._session is None or self._session.instance != run.instance:
                self._drop()
                self._session = Session(run, self._context, wakes=False, holds=False)
                file = run.folder / EVENTS
                self._offset, self._progress = file.stat().st_size if file.is_file() else 0, Progress(run, self._store)
                self._log_size = 0
            supervisor = self._session.supervisor()
            for _ in range(_ROUNDS):
                status = supervisor.poll(_NO_LOG, self._offset)
                for values in events(status.events, lambda: None):
                    self._progress.hear(values)
                self._offset += len(status.events)
                if not status.events or self._offset >= status.events_size:
                    break
            if not run.plan.spec.job.shipped and status.log_size != self._log_size:
                self._log_size = status.log_size
                log = supervisor.poll(max(0, status.log_size - _TAIL), self._offset).log
                self._progress.hear_log(log[:_TAIL].partition(b"\n")[2] if status.log_size > _TAIL else log)
        except BaseException:
            self._drop()
            raise
        facts: Facts = {} if life is None else {"life": life}
        if status.state == "absent":
            return "its host knows nothing of it"
        if status.state != "running":
            facts["ending"] = replace(status.exit or ExitRecord(), state=status.state)
        facts["progress"] = self._progress.figures
        self._store.heard(run, **facts)
        return None

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.drop()


class _Place:
    """What EC2 says of the machines that one provider knows: one question for all of them."""

    def __init__(self, provider: Provider) -> None:
        self.known: dict[str, tuple[Instance, Journal]] = {}
        self._provider = provider
        self._told = threading.Event()
        self._asked_at: float | None = None
        self._stands: dict[str, Ended] = {}
        self._error: str | None = None

    def look(self) -> None:
        """Ask anew, in a thread of its own, unless that is being done or was done just now."""
        if self._asked_at is not None and (not self._told.is_set() or time.monotonic() - self._asked_at < _FRESH_S):
            return
        self._asked_at = time.monotonic()
        self._told.clear()
        threading.Thread(target=self._ask, args=(list(self.known.values()),), name="ask EC2", daemon=True).start()

    def stands(self, instance: str) -> tuple[Ended | None, str | None]:
        """What EC2 says of an instance, else why it says nothing."""
        if not self._told.wait(_EC2_S):
            return None, "AWS did not answer"
        found = self._stands.get(instance)
        return found, None if found else self._error or f"EC2 does not list {instance}"

    def _ask(self, known: list[tuple[Instance, Journal]]) -> None:
        try:
            self._stands, self._error = dict(self._provider.lives(known)), None
        except CloudtrainError as error:
            self._stands, self._error = {}, error.message
        except Exception as error:
            self._stands, self._error = {}, f"{type(error).__name__}: {error}"
        self._told.set()
