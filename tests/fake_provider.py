"""A provider of hosts in memory (`tests/fakes.py`): what is launched, taken back, kept and released is at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.events import Emit
from cloudtrain.core.instance import Details, Instance, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import DEFAULT_LIMIT_S, Candidate, Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.base import Machine, Provider
from cloudtrain.transport.base import Transport
from tests.fakes import FakeHost, Job


class FakeProvider(Provider):
    """Machines in memory, one after the other, each in a zone of its own.

    Args:
        owned: they are launched for the run, spot instances with a lease, and end with it.

    Attributes:
        machines: the hosts by their instance ids, as they were acquired.
        released: how often one was given back.
        held: until when one was asked to stay up.
        fails: what a release says instead of doing it.
        sold_out: what is said instead of launching one.
        refuses: what opening a machine says instead.
        kind: what gives its machines.
        has: of its machines, see `FakeHost`; gpu: what they promise.
    """

    target: ClassVar[Target] = Target.LOCAL

    def __init__(self, job: Job, *, owned: bool = False) -> None:
        self.job, self.owned = job, owned
        self.kind: type[FakeMachine] = FakeMachine
        self.now = 1_800_000_000.0
        self.machines: dict[str, FakeHost] = {}
        self.released = 0
        self.held: float | None = None
        self.sold_out: CloudtrainError | None = None
        self.fails: CloudtrainError | None = None
        self.refuses: CloudtrainError | None = None
        self.has: dict[str, Any] = {}
        self.gpu = ""

    @property
    def host(self) -> FakeHost:
        """The machine that was acquired last."""
        return list(self.machines.values())[-1]

    def clock(self) -> float:
        """The time of the machines."""
        return self.host.now if self.machines else self.now

    def sleep(self, seconds: float) -> None:
        """Time passes on them."""
        for host in self.machines.values():
            host.sleep(seconds)
        self.now += seconds

    def survey(self, spec: RunSpec) -> Offer:
        return Offer(where="memory", candidates=(Candidate(type="fake"),))

    def acquire(self, plan: Plan, journal: Journal, emit: Emit) -> Instance:
        if self.sold_out is not None:
            raise self.sold_out
        now, number = self.clock(), len(self.machines) + 1
        self.machines[f"i-{number}"] = FakeHost(self.job, now, number)
        self.host.has = self.has
        details = Details(gpu=self.gpu)
        if self.owned:
            details = replace(details, expires_at=now + (plan.limit_s or DEFAULT_LIMIT_S), spot=True)
        return Instance(
            id=f"i-{number}", provider=plan.spec.target, owned=self.owned, workdir="w", type="fake",
            zone=f"zone-{number}", price_per_hour=0.36 if self.owned else None, life=InstanceLife.RUNNING,
            details=details,
        )  # fmt: skip

    def find(self, run: str, journal: Journal) -> Instance | None:
        return None

    def machine(self, instance: Instance, journal: Journal, emit: Emit) -> Machine:
        return self.kind(instance, journal, self)


@dataclass(frozen=True, eq=False)
class FakeMachine(Machine):
    """One of them; `there` is their provider."""

    journal: Journal
    there: Any

    def open(self) -> Transport:
        if self.there.refuses is not None:
            raise self.there.refuses
        host: Transport = self.there.machines[self.instance.id]
        return host

    def end_at(self, transport: Transport, until: float) -> bool:
        self.there.held = until
        return True

    def release(self) -> Released:
        self.there.released += 1
        if self.there.fails is not None:
            raise self.there.fails
        life = InstanceLife.TERMINATED if self.there.owned else InstanceLife.NONE
        return Released(life=life, summary="given back")
