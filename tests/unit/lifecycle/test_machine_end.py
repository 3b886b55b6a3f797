"""What a kept machine is, costs and says, by the registry alone; for the machine itself see whole_path/test_keep.py."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cloudtrain.billing import cost, expiry
from cloudtrain.cleanup import debts
from cloudtrain.console.pages import filters, listing, summary
from cloudtrain.core import decode
from cloudtrain.core.errors import UsageError
from cloudtrain.core.instance import Details
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.plan import CodeSummary, make_plan
from cloudtrain.core.spec import Ec2Spec, HostSpec, Limits, RunSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import machine_end
from cloudtrain.provider.ec2.end.cleaning import Known, judge
from cloudtrain.provider.ec2.instances import Item
from cloudtrain.store import Run, Store
from tests import plans


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


def kept(store: Store, tmp_path: Path, for_s: float, **ec2: object) -> Run:
    """A run that has ended just now, with a machine that stays up for so many seconds."""
    run = store.add(plans.plan(tmp_path / "runs", target=Target.EC2, ec2=Ec2Spec(**ec2)))  # type: ignore[arg-type]
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING, RunState.PULLING):
        run = store.move(run, state)
    at = time.time() + for_s
    instance = plans.machine(expires_at=at, kept_until=at)
    store.write_journal(run.name, RunNotes(pulled=(), leftovers=("instance i-0a1b",)))
    return store.move(run, RunState.SUCCEEDED, life=InstanceLife.RUNNING, instance=instance)


def test_its_time_counts_and_ends_with_it(store: Store, tmp_path: Path) -> None:
    run = kept(store, tmp_path, 3600.0)
    now, at = time.time(), expiry.kept_until(run)
    assert at is not None and expiry.is_kept(run, now) and not expiry.is_kept(run, at)
    assert cost.cost(run, at) == pytest.approx(0.5, rel=0.01)
    assert cost.cost(run, at + 7200) == cost.cost(run, at)
    assert run.instance is not None
    ended = store.note(run, life=InstanceLife.TERMINATED, instance=cost.ended(run.instance, now + 1800, at))
    assert cost.cost(ended, at) == pytest.approx(0.25, rel=0.01)
    assert expiry.kept_until(ended) is None
    # A run that was not kept stays as cheap as it ended.
    plain = store.note(run, instance=replace(run.instance, details=Details(expires_at=at)))
    assert cost.cost(plain, at) == cost.cost(plain, now)


def test_every_screen_says_until_when(store: Store, tmp_path: Path) -> None:
    run = kept(store, tmp_path, 3600.0)
    clock = time.strftime("%H:%M", time.localtime(expiry.kept_until(run)))
    assert listing.status(run) == f"done, kept until {clock} at $0.500 an hour"
    told = "\n".join([*listing.table([run]), *listing.page(run, store)])
    assert "cloudtrain ssh brave-otter" in told and "cloudtrain stop brave-otter" in told
    assert listing.record(run)["kept_until"] is not None
    assert filters.Filter(status="kept").takes(run)
    assert not debts.owes(run, store)
    over = kept(Store(tmp_path / "other.sqlite"), tmp_path, -1.0)
    assert "its kept time is over" in listing.status(over) and debts.owes(over, store)
    assert "cloudtrain stop brave-otter confirms it" in listing.table([over])[-1]
    assert not filters.Filter(status="kept").takes(over)


def test_a_rehearsal_names_no_price(store: Store, tmp_path: Path) -> None:
    assert "$" not in expiry.kept_words(kept(store, tmp_path, 60.0, rehearsal=True), time.time())


def test_clean_does_not_think_it_safe_while_it_is_kept(store: Store, tmp_path: Path) -> None:
    item = Item(kind="instance", id="i-1", state="running", run="brave-otter", token="t")
    known = Known(run="brave-otter", trained=True, pulled=True, ended=True, kept_until=1000.0)
    safe, why, loss = judge(item, known, {}, 999.0)
    assert not safe and "cloudtrain stop brave-otter" in why and loss
    assert judge(item, known, {}, 1001.0) == (True, "its run is over and pulled", None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "this computer"),
        ({"target": Target.HOST, "host": HostSpec(user="ada", address="::1")}, "a machine of yours"),
        ({"target": Target.EC2, "ec2": Ec2Spec(instance_id="i-1")}, "an instance of yours"),
    ],
)
def test_only_what_is_launched_is_kept(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        machine_end.check(plans.spec(tmp_path, **changes))


@pytest.mark.parametrize("spot", [False, True])
def test_what_was_asked_for_is_in_the_plan_and_costs_no_more(tmp_path: Path, spot: bool) -> None:
    def plan(**limits: float) -> tuple[RunSpec, float | None, str]:
        spec = plans.spec(tmp_path, target=Target.EC2, ec2=Ec2Spec(spot=spot), limits=Limits(**limits))  # type: ignore[arg-type]
        made = make_plan(spec, plans.offer(0.5), CodeSummary(files=1, bytes=1))
        return decode.made(RunSpec, asdict(spec)), made.at_most_usd, "\n".join(summary.plan_lines(made))

    machine_end.check(plan(keep_s=1800.0)[0])
    assert plan(keep_s=1800.0)[1] == plan()[1]
    told = plan(keep_s=1800.0)[2]
    assert "stays up 30m 00s" in told and "never past the limit" in told and ("spot" in told.split("Keep")[1]) is spot
    assert "Keep" not in plan()[2]
    old = asdict(plan(keep_s=1800.0)[0])
    del old["limits"]["keep_s"]  # a row of an earlier version
    assert decode.made(RunSpec, old).limits.keep_s is None


def test_a_failure_may_keep_it_longer_than_a_run_that_ends_well(tmp_path: Path) -> None:
    limits = Limits(keep_s=60.0, keep_on_failure_s=900.0)
    assert [machine_end.asked(limits, RunNotes(), failed=failed) for failed in (False, True)] == [60.0, 900.0]
    assert machine_end.asked(limits, RunNotes(keep_s=0.0), failed=True) == 0.0, "`stop` counts more"
    plan = plans.plan(tmp_path, target=Target.EC2, ec2=Ec2Spec(), limits=Limits(keep_on_failure_s=900.0))
    assert (summary.keep_line(plan) or "").startswith(
        "if it fails the machine stays up 15m 00s for cloudtrain ssh, never"
    )
