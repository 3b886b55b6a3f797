"""What the steps of a run's story work with: the context handed in, and a session with the run's machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar, Unpack

from cloudtrain.billing import cost
from cloudtrain.core import secrets
from cloudtrain.core.errors import GONE, RECLAIMED, ArtifactRefused, ConnectionFailed, HostKeyMismatch
from cloudtrain.core.events import Emit, Noted, PhaseChanged, StepDone, StepStarted, discard
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import RunSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import overdue
from cloudtrain.provider.base import Machine, Provider
from cloudtrain.run_folder import outcome, receipt
from cloudtrain.run_folder.outcome import Result
from cloudtrain.source.tree import Tree
from cloudtrain.store import Facts, Run, Store
from cloudtrain.transfer import push as sync
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Transport

T = TypeVar("T")

# Codes of failures that a new connection does not mend.
_HOST_SAID_NO = frozenset(
    {"disk_full", "tree_changed", "bad_spec", "auth_refused", "login_shell", "parked", GONE, RECLAIMED}
    # What uv and docker have said on the host.
    | {"environment", "hash_differs", "index_unreachable", "no_compiler", "no_python", "no_wheel"}
    | {"no_docker", "docker_denied", "image_not_built", "image_not_pulled"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the story works with; tests hand in their own parts.

    Attributes:
        provider: gives the provider of a target.
        trickle_mib_s: rate at which results come down while a run is followed, in MiB a second; 0: they do not.
        cleans_hosts: a run whose results are here and verified leaves nothing on a machine of the user's own.
    """

    store: Store
    provider: Callable[[RunSpec], Provider]
    emit: Emit = discard
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    steady: Callable[[], float] = overdue.steady
    trickle_mib_s: float = 0.0
    cleans_hosts: bool = False

    def result(self, run: Run) -> Result:
        """How `run` stands now, from the registry and its folder alone."""
        return outcome.result(run, self.store.read_journal(run.name), self.clock())


class Session:
    """One working session with a run's machine: machine, transport and supervisor, each made when first needed.

    Args:
        wakes: a parked machine is started for it; else the session ends there.
        holds: a machine that is over its end is ended for as long as the session lasts.

    Attributes:
        machine: the run's, as `instance` has it; None: none is known (any more).
        taken_by: name of the run that has taken its machine over: from then on it has none.
    """

    def __init__(self, run: Run, context: Context, *, wakes: bool = True, holds: bool = True) -> None:
        self.provider = context.provider(run.plan.spec)
        self.journal = context.store.journal(run.name)
        guarded = (run, context.store, self.provider, self.journal, context.clock, context.steady)
        self.guard = overdue.Guard(*guarded, holds=holds)
        self.context = replace(context, emit=self.guard.hearing(context.emit))
        notes = self.journal.read(RunNotes)
        self.taken_by = notes.handed_to
        self.instance = None if self.taken_by else run.instance
        # A run of the last release, or one that `adopt` has found, is known on its host by its name alone.
        self._on_host = notes.on_host or run.name
        self._id = notes.id if notes.on_host else None
        self._run = run
        self._wakes = wakes
        self._transport: Transport | None = None

    def __enter__(self) -> Session:
        self.guard.start()
        return self

    def __exit__(self, *exit_info: object) -> None:
        self.guard.close()
        self.drop()

    @property
    def instance(self) -> Instance | None:
        """What is known of the machine; as an attribute that is set, whose machine the session has from now on."""
        return self.machine.instance if self.machine else None

    @instance.setter
    def instance(self, known: Instance | None) -> None:
        """Take the machine that `known` describes for the session's."""
        emit = self.context.emit
        self.machine: Machine | None = self.provider.machine(known, self.journal, emit) if known else None

    @property
    def run_dir(self) -> str:
        """The run directory on the host."""
        return f"{self._workdir}/runs/{self._on_host}"

    @property
    def _workdir(self) -> str:
        if self.instance is None:
            raise self._no_machine()
        return self.instance.workdir

    def look_up(self) -> Machine | None:
        """The run's machine, looked for where the registry does not know it; None: it has none any more."""
        if self.machine is None and not self.taken_by:
            self.instance = self.provider.find(self._run.name, self.journal)
        return self.machine

    def find(self) -> Machine:
        """The same.

        Raises:
            ConnectionFailed: it has none any more.
        """
        machine = self.look_up() if self._run.life is not InstanceLife.TERMINATED else None
        if machine is None:
            self.instance = None
            raise self._no_machine()
        return machine

    def _no_machine(self) -> ConnectionFailed:
        name = self._run.name
        if self.taken_by:
            told = f"the machine of {name} was taken over by {self.taken_by}"
            return ConnectionFailed(told, hint=f"cloudtrain show {self.taken_by}", code=GONE)
        return ConnectionFailed(f"{name} no longer has a machine", hint=f"cloudtrain show {name}", code=GONE)

    def transport(self, *, wakes: bool = True) -> Transport:
        """An open connection, opened again after `drop`; a parked machine is started for it only if `wakes`."""
        if self._transport is None:
            machine = self.find()
            # A machine that is over its end is ended before anything is asked of it.
            self.guard.look()
            self.guard.say(self.context.emit)
            try:
                self._transport = machine.open()
            except ConnectionFailed as error:
                if error.code != "parked":
                    raise
                self._parked(machine.instance, error.since)
                if not (self._wakes and wakes and self.guard.wakes):
                    raise
                self._transport = self._woken(machine).open()
        return self._transport

    def _parked(self, instance: Instance, since: float | None) -> None:
        """EC2 says that the machine is parked."""
        self.instance = parked = self.down(instance, InstanceLife.PARKED, since)
        self.context.store.note(self._run, life=InstanceLife.PARKED, instance=parked)

    def _woken(self, parked: Machine) -> Machine:
        """The run's parked machine, started again; the registry knows at each moment which of the two it is."""
        woken = parked.wake()
        run = self.context.store.get(self._run.name)
        self.instance = woken = cost.woken(run, woken, self.context.clock())
        self.context.store.note(self._run, life=woken.life, instance=woken)
        return self.find()

    def supervisor(self) -> Supervisor:
        """A client of the on-host supervisor."""
        transport = self.transport()
        assert self.instance is not None
        return Supervisor(transport, self.instance.python, self.run_dir, self._workdir, self._id)

    def living(self) -> Supervisor | None:
        """The same over the connection that is open, None if there is none; for other threads than the story's."""
        transport, instance = self._transport, self.instance
        if transport is None or instance is None:
            return None
        return Supervisor(transport, instance.python, self.run_dir, self._workdir, self._id)

    def secrets(self) -> dict[str, str]:
        """The secrets that the job gets. Looked up before each step that leads to its start: a run that lacks one stays
        as it is, and its machine, if it has one, ends itself at its limit.

        Raises:
            UsageError: this command does not know one (code `secret_missing`).
        """
        name, wanted = self._run.name, self._run.plan.spec.job.secrets
        return secrets.values_of(wanted, consequence=f"{name} stays as it is; cloudtrain stop {name} ends it")

    def insist(self, action: Callable[[], T]) -> T:
        """Do what is safe to do twice, over a new connection if the old one breaks under it.

        Raises:
            ConnectionFailed: the link broke at every attempt, or the host itself refused.
        """
        for wait in (0.5, 2.0, None):
            try:
                return action()
            except (HostKeyMismatch, ArtifactRefused):
                raise
            except ConnectionFailed as error:
                if wait is None or error.code in _HOST_SAID_NO:
                    raise
                self.drop()
                self.context.emit(Noted(f"connection lost ({error.message}); trying again"))
                self.context.sleep(wait)
        raise AssertionError("unreachable")

    def push(self, files: Tree, key: str) -> sync.PushReport:
        """Bring a tree to the host under `key`, over a new connection if the old one breaks.

        Raises:
            ConnectionFailed: the link broke at every attempt, or the host did not take it.
        """
        instance = self.find().instance
        return self.insist(
            lambda: sync.push(
                self.transport(),
                files,
                python=instance.python,
                workdir=instance.workdir,
                run_dir=self.run_dir,
                key=key,
                target_id=instance.id,
                emit=self.context.emit,
            )
        )

    def drop(self) -> None:
        """Close the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        self.guard.say(self.context.emit)

    def down(self, instance: Instance, life: InstanceLife, at: float | None) -> Instance:
        """See `cost.down`."""
        run, now = self.context.store.get(self._run.name), self.context.clock()
        return cost.down(run, life, at, now, instance) or instance

    def forget(self) -> None:
        """The machine is gone: the run gets another one."""
        self.drop()
        self.instance = None

    def move(self, run: Run, state: RunState, **facts: Unpack[Facts]) -> Run:
        """Store the new state, write it into the receipt and tell of it."""
        run = self._run = self.context.store.move(run, state, **facts)
        receipt.update(run, self.context.store, self.context.emit)
        self.context.emit(PhaseChanged(run.name, state))
        return run

    @contextmanager
    def step(self, title: str, detail: str = "", limit_s: float | None = None) -> Iterator[list[str]]:
        """Tell of a step from its start to its end; what is put into the list becomes its closing detail."""
        began = time.monotonic()
        self.context.emit(StepStarted(title, detail, limit_s))
        closing: list[str] = []
        yield closing
        self.context.emit(StepDone(title, " ".join(closing) or detail, time.monotonic() - began))
