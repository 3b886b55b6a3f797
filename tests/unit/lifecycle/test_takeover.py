"""Which machines may be taken over (`--on`), what both runs cost, which flags fit; for the rest see whole_path."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.billing import cost
from cloudtrain.cli import request
from cloudtrain.config import settings
from cloudtrain.core.errors import UnknownRun, UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Ec2Spec, RunSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import spot, takeover
from cloudtrain.provider.ec2 import trust
from cloudtrain.store import Run, Store
from tests import plans
from tests.unit.lifecycle.test_machine_end import kept as kept_run
from tests.unit.lifecycle.test_machine_end import store as store

HOUR = 3600.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "home"))


def kept(store: Store, tmp_path: Path, for_s: float = HOUR, **ec2: Any) -> Run:
    run = kept_run(store, tmp_path, for_s, **{"region": "us-east-1", **ec2})
    assert run.instance is not None
    folder = trust.keys_folder(run.name)
    folder.mkdir(parents=True)
    (folder / "client").touch()
    return store.note(run, instance=replace(run.instance, type="g4dn.xlarge"))


def changed(run: Run, store: Store, **details: Any) -> Run:
    assert run.instance is not None
    return store.note(run, instance=replace(run.instance, **details))


CASES: dict[str, Callable[[Run, Store], object]] = {
    "taken over by calm-heron": lambda run, store: store.write_journal(run.name, RunNotes(handed_to="calm-heron")),
    "is parked": lambda run, store: store.note(run, life=InstanceLife.PARKED),
    "has ended, or is about to": lambda run, store: store.write_journal(run.name, RunNotes(owed=True)),
    "no price is known": lambda run, store: changed(run, store, price_per_hour=None),
    "key .* is not on this computer": lambda run, store: trust.forget(run.name),
}


@pytest.mark.parametrize("told", CASES)
def test_what_is_not_kept_here_is_not_taken_over(store: Store, tmp_path: Path, told: str) -> None:
    run = kept(store, tmp_path)
    assert takeover.check(run, store, time.time()) == run.instance
    store.add(plans.plan(tmp_path / "runs", "calm-heron"))
    CASES[told](run, store)
    with pytest.raises(UsageError, match=told) as caught:
        takeover.check(store.get(run.name), store, time.time())
    assert (caught.value.code, caught.value.consequence) == ("not_kept", "nothing was changed")
    assert caught.value.hint
    assert takeover.waiting(another(run), store, time.time()) is None


def another(run: Run) -> RunSpec:
    """A run that would be launched."""
    return replace(run.plan.spec, name="b", ec2=Ec2Spec())


def test_a_machine_that_goes_soon_one_of_the_users_or_none_is_refused(store: Store, tmp_path: Path) -> None:
    now = time.time()
    with pytest.raises(UsageError, match=r"ends itself in 1[0-9] s"):
        takeover.check(kept(store, tmp_path, 19.0), store, now)
    here = store.add(plans.plan(tmp_path / "runs", "here"))
    with pytest.raises(UsageError, match="no machine that was launched for it"):
        takeover.check(here, store, now)
    begun = store.add(plans.plan(tmp_path / "runs", "begun", ec2=Ec2Spec()))
    with pytest.raises(UsageError, match=r"has not ended \(planned\)") as caught:
        takeover.check(begun, store, now)
    assert "cloudtrain stop begun --keep 30m" in (caught.value.hint or "")


def test_one_that_would_do_is_offered(store: Store, tmp_path: Path) -> None:
    run, now = kept(store, tmp_path), time.time()
    spec = another(run)
    assert takeover.waiting(spec, store, now) == run
    others: tuple[dict[str, Any], ...] = (
        {"types": ("g5.xlarge",)}, {"region": "eu-west-1"}, {"spot": True}, {"rehearsal": True}, {"profile": "other"},
        {"from_run": "a"}, {"instance_id": "i-0"}, {"ami": "ami-1"},
    )  # fmt: skip
    for other in others:
        assert takeover.waiting(replace(spec, ec2=Ec2Spec(**other)), store, now) is None, other
    assert takeover.waiting(replace(spec, ec2=None), store, now) is None
    taken = replace(spec, ec2=Ec2Spec(from_run="a"))
    assert takeover.wanted(taken, RunNotes()) and not takeover.wanted(spec, RunNotes())
    assert not takeover.wanted(taken, RunNotes(attempt=2)), "after a spot instance is taken back one is launched"


@pytest.mark.parametrize("took_s", [20.0, 60.0, 1000.0])
def test_both_runs_cost_what_the_machine_costs(store: Store, tmp_path: Path, took_s: float) -> None:
    run = kept(store, tmp_path)
    assert run.instance is not None
    began = 1000.0
    # What it has cost before, on machines that were taken from it, stays its own.
    details = replace(run.instance.details, began_at=began, expires_at=began + 7200, kept_until=None, before_usd=0.25)
    alone = replace(run, instance=replace(run.instance, details=details), ended_at=None)
    left, taken = cost.handed_over(alone, alone.instance, "b", began + took_s)  # type: ignore[arg-type]
    before = replace(alone, life=InstanceLife.NONE, instance=left)
    after = replace(alone, name="b", state=RunState.RUNNING, instance=taken)
    for now in (began + took_s, began + took_s + 5, began + 3600):
        both = [cost.cost(each, now) or 0.0 for each in (before, after)]
        assert sum(both) == pytest.approx(cost.cost(alone, now)) and both[1] >= 0.0
    assert cost.cost(before, began + 3600) == pytest.approx(0.25 + 0.5 * max(60.0, took_s) / 3600)
    assert spot._usd(replace(after, ended_at=began + 3600)) == pytest.approx(cost.cost(after, began + 3600))


def test_rows_of_two_runs_change_together_or_not_at_all(store: Store, tmp_path: Path) -> None:
    run = kept(store, tmp_path)
    with pytest.raises(UnknownRun):
        store.write((run.name, RunNotes(handed_to="b"), {"life": InstanceLife.NONE}), ("b", RunNotes(), {}))
    assert store.get(run.name) == run and store.read_journal(run.name).handed_to is None


def test_flags_that_want_another_machine_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = kept(store, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "__init__.py").touch()

    def asked(*, given: dict[str, Any], **place: Any) -> Ec2Spec:
        known = settings.load({"job": "job", **given})
        where = {"local": False, "host": None, "host_key": None, "instance_id": None, "dry_run": False, **place}
        spec = request.build(known, store, name="b", **where, faults=(), words=(), on=run)
        request.refuse_other_machine(given, known, spec)
        assert spec.ec2 is not None
        return spec.ec2

    fits = {"instance": "g6.xlarge,g4dn.xlarge", "region": "us-east-1", "allow_cpu": True}
    told = asked(given=fits)
    assert (told.from_run, told.types, told.allow_cpu) == (run.name, ("g4dn.xlarge",), True)
    with pytest.raises(UsageError, match=r"--instance \(it has g4dn.xlarge\); --spot \(it has False\)"):
        asked(given={"instance": "g6.xlarge", "spot": True})
    for place in ({"local": True}, {"host": "a@b"}, {"instance_id": "i-0"}, {"dry_run": True}):
        with pytest.raises(UsageError, match=r"--on and .* exclude each other"):
            asked(given={}, **place)
