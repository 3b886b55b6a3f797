"""Plans and specs for tests, made of the real types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloudtrain.core.instance import Details, Instance
from cloudtrain.core.notes import N, Notes
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, Plan, make_plan
from cloudtrain.core.spec import Ec2Spec, HostSpec, JobSpec, Limits, RunSpec, Target, TrainSpec
from cloudtrain.core.states import InstanceLife


def spec(runs_dir: Path, name: str = "brave-otter", **changes: Any) -> RunSpec:
    """A local run of Model 3."""
    values: dict[str, Any] = {
        "name": name,
        "target": Target.LOCAL,
        "train": TrainSpec(epochs=2),
        "job": JobSpec(source=str(runs_dir)),
        "runs_dir": str(runs_dir),
        **changes,
    }
    return RunSpec(**values)


def offer(*prices: float | None) -> Offer:
    """An offer of one candidate a price; one free candidate without any."""
    return Offer(
        where="somewhere",
        candidates=tuple(Candidate(type=f"type{i}", price_per_hour=price) for i, price in enumerate(prices or (None,))),
    )


def plan(runs_dir: Path, name: str = "brave-otter", **changes: Any) -> Plan:
    """A plan of a local run."""
    return make_plan(spec(runs_dir, name, **changes), offer(), CodeSummary(files=3, bytes=4096))


def machine(**details: Any) -> Instance:
    """A launched EC2 instance at half a dollar an hour that is up, with these `details`."""
    return Instance(
        id="i-0a1b",
        provider=Target.EC2,
        owned=True,
        workdir="cloudtrain",
        price_per_hour=0.5,
        life=InstanceLife.RUNNING,
        details=Details(**details),
    )


class Memory:
    """A journal in memory, as JSON would keep it."""

    def __init__(self) -> None:
        self.text = "{}"

    def read(self, kind: type[N]) -> N:
        return kind.of(json.loads(self.text))

    def write(self, notes: Notes) -> None:
        self.text = json.dumps({**json.loads(self.text), **notes.entries()})


FULL_EC2 = Ec2Spec(
    types=("g4dn.xlarge", "g6.xlarge"), region="us-east-1", spot=True, rehearsal=True, faults=("quota:0",)
)
FULL_HOST = HostSpec(user="ada", address="::1", port=2222, identity="key", fingerprint="SHA256:x")
FULL_LIMITS = Limits(max_time_s=60.0, max_cost_usd=1.5)
