"""What a run has cost, off the happy path: from each start of its machine to the stop or end that EC2 tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.billing import cost
from cloudtrain.core.instance import Details
from cloudtrain.core.plan import OfferDetails
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.store import Run
from tests import plans

ASKED = 1000.0  # the run was planned
BEGAN = 1030.0  # EC2 has started its machine
HOUR = 0.5
DISK_A_DAY = 0.12


def run(tmp_path: Path, life: InstanceLife, *, ended_at: float | None = None, **details: Any) -> Run:
    plan = plans.plan(tmp_path, target=Target.EC2, ec2=Ec2Spec())
    plan = replace(plan, offer=replace(plan.offer, details=OfferDetails(parked_per_day=DISK_A_DAY)))
    state = RunState.RUNNING if ended_at is None else RunState.SUCCEEDED
    instance = plans.machine(**{"began_at": BEGAN, "expires_at": BEGAN + 7200, **details})
    return Run(
        name="a",
        state=state,
        life=life,
        plan=plan,
        instance=instance,
        created_at=ASKED,
        updated_at=ASKED,
        ended_at=ended_at,
    )


def seconds(usd: float | None) -> float:
    assert usd is not None
    return usd * 3600 / HOUR


def test_up_for_235_s_and_ended_by_its_own_limit(tmp_path: Path) -> None:
    """Looked at a day later: neither what the end cost until somebody looked, nor the minute that is the least."""
    late = run(tmp_path, InstanceLife.TERMINATED, expires_at=BEGAN + 235, ended_at=None)
    assert seconds(cost.cost(late, BEGAN + 86400)) == pytest.approx(235)
    told = replace(late, instance=cost.ended(plans.machine(began_at=BEGAN), BEGAN + 235, BEGAN + 86400))
    assert seconds(cost.cost(told, BEGAN + 86400)) == pytest.approx(235)


def test_parked_after_52_s(tmp_path: Path) -> None:
    """A minute of the machine, which is the least, and its disk from then on."""
    parked = run(tmp_path, InstanceLife.PARKED)
    assert parked.instance is not None
    parked = replace(parked, instance=cost.ended(parked.instance, BEGAN + 52, BEGAN + 400))
    assert cost.cost(parked, BEGAN + 52) == pytest.approx(HOUR / 60)
    assert cost.cost(parked, BEGAN + 52 + 86400) == pytest.approx(HOUR / 60 + DISK_A_DAY)


def test_woken_parked_again_and_woken(tmp_path: Path) -> None:
    """Each time that it was up, and the disk in between."""
    now = run(tmp_path, InstanceLife.RUNNING)
    for day in (1, 2):
        assert now.instance is not None
        began = now.instance.details.began_at or 0.0
        parked = replace(now, life=InstanceLife.PARKED, instance=cost.ended(now.instance, began + 600, began + 900))
        again = began + 600 + 86400
        woken = cost.woken(parked, plans.machine(began_at=again, expires_at=again + 1800), again + 5)
        now = replace(now, instance=woken)
        assert woken.details.parked_s == pytest.approx(day * 86400)
    assert cost.cost(now, again + 300) == pytest.approx(HOUR * 1500 / 3600 + 2 * DISK_A_DAY)


def test_an_end_that_is_not_confirmed_counts_on_to_the_end_of_the_lease(tmp_path: Path) -> None:
    owed = run(tmp_path, InstanceLife.RUNNING, ended_at=BEGAN + 300)
    assert seconds(cost.cost(owed, BEGAN + 900)) == pytest.approx(900)
    assert seconds(cost.cost(owed, BEGAN + 86400)) == pytest.approx(7200)
    assert owed.instance is not None
    paid = replace(owed, life=InstanceLife.TERMINATED, instance=cost.ended(owed.instance, BEGAN + 600, BEGAN + 9000))
    assert seconds(cost.cost(paid, BEGAN + 86400)) == pytest.approx(600)


def test_what_ec2_does_not_tell_is_the_lease_s_end_or_now(tmp_path: Path) -> None:
    machine = plans.machine(began_at=BEGAN, expires_at=BEGAN + 7200)
    assert cost.ended(machine, None, BEGAN + 100).details.ended_at == BEGAN + 100
    late = cost.ended(machine, None, BEGAN + 9000)
    assert late.details.ended_at == BEGAN + 7200
    # It is not moved by a later look, but by what EC2 tells.
    assert cost.ended(late, None, BEGAN + 99999) == late
    assert cost.ended(late, BEGAN + 5000, BEGAN + 99999).details.ended_at == BEGAN + 5000
    theirs = replace(machine, owned=False)
    assert cost.ended(theirs, None, BEGAN) == theirs


def test_rows_of_the_release_before(tmp_path: Path) -> None:
    """They know when the run was planned, and how long its machine was parked."""
    old = run(tmp_path, InstanceLife.TERMINATED, ended_at=ASKED + 4000, began_at=None, parked_s=1000.0)
    assert seconds(cost.cost(old, ASKED + 9000)) == pytest.approx(3000)
    assert old.instance is not None and Details() == replace(old.instance.details, parked_s=None, expires_at=None)
