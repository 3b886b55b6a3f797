"""When a run ends by itself, where no machine of its own ends with it; and the arithmetic of those that do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.billing import cost, expiry
from cloudtrain.core.instance import Details
from cloudtrain.core.spec import Ec2Spec, Limits, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle.session import Context
from cloudtrain.provider.local import LocalProvider
from cloudtrain.store import Run, Store
from tests import plans


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(store=Store(tmp_path / "registry.sqlite"), provider=lambda spec: LocalProvider())


def leased(tmp_path: Path, context: Context, **ec2: object) -> Run:
    """A row of a run that trains on a machine whose lease ends 2 h after it began."""
    plan = plans.plan(
        tmp_path / "runs",
        target=Target.EC2,
        ec2=Ec2Spec(**ec2),
        limits=Limits(max_time_s=7200.0),  # type: ignore[arg-type]
    )
    run = context.store.add(plan)
    instance = plans.machine(expires_at=run.created_at + 7200.0)
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
        run = context.store.move(run, state)
    return context.store.note(run, instance=instance, life=InstanceLife.RUNNING)


def test_the_job_ends_before_its_machine(tmp_path: Path, context: Context) -> None:
    run = leased(tmp_path, context)
    assert run.instance is not None
    assert expiry.deadline(run, run.instance) == run.created_at + 7200 - 300
    assert expiry.stop_grace_s(run, run.instance) == 20
    # All of it fits into a short lease, too.
    assert expiry.margin_s(60.0) == 6.0


def test_a_machine_that_is_not_ours_has_no_lease(tmp_path: Path, context: Context) -> None:
    run = leased(tmp_path, context)
    assert run.instance is not None
    theirs = replace(run.instance, owned=False)
    assert expiry.expires_at(run, theirs) is None
    assert expiry.deadline(run, theirs) == run.created_at + 7200


def test_the_gpu_costs_nothing_after_the_lease_and_while_parked(tmp_path: Path, context: Context) -> None:
    run = leased(tmp_path, context)
    began = run.created_at
    assert cost.cost(run, began + 3600) == pytest.approx(0.5)
    assert cost.cost(run, began + 7200 + 86400) == pytest.approx(1.0)
    assert run.instance is not None
    # Woken a day later, for ten minutes.
    woken = Details(expires_at=began + 7200 + 86400 + 1800, parked_s=86400.0)
    run = context.store.note(run, instance=replace(run.instance, details=woken))
    assert cost.cost(run, began + 7200 + 86400 + 600) == pytest.approx(0.5 * (7200 + 600) / 3600)


@pytest.mark.parametrize(("ec2", "parks"), [({}, True), ({"spot": True}, False), ({"instance_id": "i-1"}, False)])
def test_what_parks(tmp_path: Path, context: Context, ec2: dict[str, object], parks: bool) -> None:
    assert expiry.parks(leased(tmp_path, context, **ec2).plan) is parks
