"""An emulated region for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core import notes
from cloudtrain.core.events import Event
from cloudtrain.core.instance import Instance, Released
from cloudtrain.core.plan import CodeSummary, Plan, make_plan
from cloudtrain.core.spec import Ec2Spec, JobSpec, Limits, RunSpec, Target, TrainSpec
from cloudtrain.emulator.region import Region
from cloudtrain.provider.base import Machine
from cloudtrain.provider.ec2 import clients as sdk_clients
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.provider import Ec2Provider
from cloudtrain.transport.base import Transport
from tests import plans
from tests.refusing import rejecting as rejecting
from tests.refusing import spec_of as spec_of


@pytest.fixture
def region_of(tmp_path: Path) -> Iterator[Callable[..., Region]]:
    """Opens a region with a script of faults; it is closed after the test."""
    opened: list[Region] = []

    def open_region(*script: str, **more: Any) -> Region:
        region = Region(tmp_path / f"region-{len(opened)}", script=script, **more)
        opened.append(region.__enter__())
        return opened[-1]

    yield open_region
    for region in opened:
        region.__exit__(None, None, None)


@pytest.fixture
def clients_of() -> Callable[..., Clients]:
    """Clients of a region."""

    def make(region: Region, name: str | None = None) -> Clients:
        return Clients(None, name or region.name, region.endpoint_url, region.access_key)

    return make


class Notes(plans.Memory):
    """One that can die at the n-th write as a killed command would."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.die_at: int | None = None
        self.after: bool = True

    def write(self, notes: notes.Notes) -> None:
        self.writes += 1
        dying = self.writes == self.die_at
        if dying and not self.after:
            raise Killed
        super().write(notes)
        if dying:
            raise Killed


class Killed(BaseException):
    """Stands for kill -9: nothing in the product catches it."""


@dataclass
class Trip:
    """One run of the provider against one region: what goes in and what was told."""

    region: Region
    provider: Ec2Provider
    clients: Clients
    plan: Plan
    notes: Notes = field(default_factory=Notes)
    told: list[Event] = field(default_factory=list)

    def acquire(self) -> Instance:
        return self.provider.acquire(self.plan, self.notes, self.told.append)

    def open(self, instance: Instance) -> Transport:
        return self.machine(instance).open()

    def release(self, instance: Instance) -> Released:
        return self.machine(instance).release()

    def machine(self, instance: Instance) -> Machine:
        return self.provider.machine(instance, self.notes, self.told.append)

    def find(self) -> Instance | None:
        return self.provider.find(self.plan.spec.name, self.notes)

    def launches(self) -> list[dict[str, Any]]:
        return self.region.calls("RunInstances")

    def effects(self) -> int:
        """How many instances the launches have made."""
        return sum(call["effect"] for call in self.launches())

    def said(self) -> str:
        """All that was told, as one text."""
        return "\n".join(str(event) for event in self.told)

    def left(self) -> dict[str, list[dict[str, Any]]]:
        """What still exists in the account, by kind."""
        return {kind: rows for kind, rows in self.region.inventory().items() if rows}


QUICK = Pace(poll=0.3, send=20, backoff=0.05, settle=1.5, visible=8, pending=15, boot=20, auth=10, end=20, group=10)


@pytest.fixture
def trip_of(
    region_of: Callable[..., Region],
    clients_of: Callable[..., Clients],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Trip]:
    """A surveyed plan in a region with these faults, which strike after the survey."""
    # An answer that is lost without the connection being closed costs this long.
    monkeypatch.setattr(sdk_clients, "READ_TIMEOUT_S", 5)

    def make(
        *script: str,
        types: tuple[str, ...] = ("g4dn.xlarge",),
        name: str = "brave-otter",
        pace: Pace = QUICK,
        region: Region | None = None,
        limits: Limits | None = None,
        **ec2: Any,
    ) -> Trip:
        region = region or region_of()
        clients = clients_of(region)
        provider = Ec2Provider(clients, pace=pace)
        spec = RunSpec(
            name=name,
            target=Target.EC2,
            train=TrainSpec(),
            job=JobSpec(source=str(tmp_path)),
            runs_dir=str(tmp_path / "runs"),
            limits=limits or Limits(),
            ec2=Ec2Spec(types=types, **ec2),
        )
        plan = make_plan(spec, provider.survey(spec), CodeSummary(files=1, bytes=1))
        region.inject(*script)
        return Trip(region, provider, clients, plan)

    return make
