"""What the user's earlier runs took: which of them count, for which machine, and how epochs are scaled."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.instance import Instance
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, make_plan
from cloudtrain.core.spec import Ec2Spec, HostSpec, ResumeSpec, RunSpec, Target, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.core.told import ExitRecord, Figures
from cloudtrain.run_folder import history
from cloudtrain.store import Run, Store
from tests import plans

STORY = (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING, RunState.PULLING)
EC2: dict[str, Any] = {"target": Target.EC2, "ec2": Ec2Spec(region="us-east-1")}
T4 = "g4dn.xlarge"


class Registry:
    """A registry whose clock the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_000.0
        self.store = Store(folder / "registry.sqlite", clock=lambda: self.now)
        self._count = 0

    def spec(self, **changes: Any) -> RunSpec:
        self._count += 1
        return plans.spec(self.folder, f"run-{self._count}", **{"train": TrainSpec(epochs=15), **changes})

    def ran(
        self,
        *,
        on: str = T4,
        end: RunState = RunState.SUCCEEDED,
        setup: float = 100.0,
        training: float = 150.0,
        pull: float = 10.0,
        left_alone: float = 0.0,
        trained: int = 15,
        **changes: Any,
    ) -> Run:
        """A run that ended; `left_alone`: seconds after the job's end until somebody came to pull."""
        spec = self.spec(**changes)
        offer = Offer(where="there", candidates=(Candidate(type=on, price_per_hour=0.5),))
        run = self.store.add(make_plan(spec, offer, CodeSummary(files=1, bytes=1)))
        for state, after in zip(STORY, (0.0, 0.0, 0.0, setup, training + left_alone), strict=True):
            self.now += after
            facts = (
                {"ending": ExitRecord(state="exited", at=self.now - left_alone)} if state is RunState.PULLING else {}
            )
            run = self.store.move(run, state, **facts)
        self.now += pull
        instance = Instance(id="i-1", provider=spec.target, owned=True, workdir="w", type=on)
        return self.store.move(run, end, progress=Figures(epochs=trained), instance=instance)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_nothing_is_known_before_the_first_run(registry: Registry) -> None:
    assert history.look_up(registry.spec(**EC2), [T4, "g6.xlarge"], registry.store) == ((), None)


def test_the_last_successful_run_on_each_type(registry: Registry) -> None:
    registry.ran(setup=1.0, **EC2)
    registry.ran(on="g6.xlarge", training=90.0, **EC2)
    latest = registry.ran(**EC2)
    registry.ran(end=RunState.STOPPED, training=1.0, **EC2)
    times, last = history.look_up(registry.spec(**EC2), [T4, "g5.xlarge", "g6.xlarge"], registry.store)
    assert [(took.type, took.training_s) for took in times] == [(T4, 150.0), ("g6.xlarge", 90.0)]
    assert times[0] == last
    assert last is not None and (last.run, last.setup_s, last.pull_s, last.total_s) == (latest.name, 100, 10, 260)
    assert last.scaled_from is None


def test_the_time_after_a_training_that_nobody_watched_is_not_training(registry: Registry) -> None:
    registry.ran(left_alone=7_200.0, **EC2)
    _, last = history.look_up(registry.spec(**EC2), [T4], registry.store)
    assert last is not None and last.training_s == 150.0


def test_epochs_alone_are_scaled(registry: Registry) -> None:
    registry.ran(**EC2)
    fewer = TrainSpec(epochs=3, seed=7, lr=0.1)
    _, last = history.look_up(registry.spec(train=fewer, **EC2), [T4], registry.store)
    assert last is not None and (last.training_s, last.setup_s, last.scaled_from) == (30.0, 100.0, 15)
    _, unknown = history.look_up(registry.spec(train=TrainSpec(), **EC2), [T4], registry.store)
    assert unknown is None, "how many epochs the recipe has is not known here"


def test_the_recipes_epochs_are_known_to_a_run_that_had_them(registry: Registry) -> None:
    registry.ran(train=TrainSpec(), trained=10, **EC2)
    _, same = history.look_up(registry.spec(train=TrainSpec(), **EC2), [T4], registry.store)
    assert same is not None and (same.training_s, same.scaled_from) == (150.0, None)
    _, half = history.look_up(registry.spec(train=TrainSpec(epochs=5), **EC2), [T4], registry.store)
    assert half is not None and (half.training_s, half.scaled_from) == (75.0, 10)


@pytest.mark.parametrize(
    "other",
    [
        {"train": TrainSpec(epochs=15, model=1)},
        {"train": TrainSpec(epochs=15, batch_size=64)},
        {"train": TrainSpec(epochs=15, recipe="seed")},
        {"train": TrainSpec(epochs=15, args=("--subset", "600"))},
        {"job": plans.spec(Path("elsewhere")).job},
    ],
)
def test_a_run_of_another_training_tells_nothing(other: dict[str, Any], registry: Registry) -> None:
    registry.ran(**other, **EC2)
    assert history.look_up(registry.spec(**EC2), [T4], registry.store) == ((), None)


def test_a_rehearsal_tells_of_rehearsals_alone(registry: Registry) -> None:
    rehearsal = {"target": Target.EC2, "ec2": replace(EC2["ec2"], rehearsal=True)}
    registry.ran(training=400.0, **rehearsal)
    assert history.look_up(registry.spec(**EC2), [T4], registry.store) == ((), None)
    times, last = history.look_up(registry.spec(**rehearsal), [T4], registry.store)
    assert times == () and last is not None and last.training_s == 400.0
    registry.ran(**EC2)
    times, last = history.look_up(registry.spec(**rehearsal), [T4], registry.store)
    assert [took.training_s for took in times] == [150.0], "the table is of real machines"
    assert last is not None and last.training_s == 400.0


def test_other_machines_are_known_by_their_address(registry: Registry) -> None:
    here = {"target": Target.HOST, "host": HostSpec(user="ada", address="192.0.2.7")}
    there = {"target": Target.HOST, "host": HostSpec(user="ada", address="192.0.2.8")}
    registry.ran(on="host", **here)
    _, last = history.look_up(registry.spec(**here), [], registry.store)
    assert last is not None and last.type == ""
    assert history.look_up(registry.spec(**there), [], registry.store) == ((), None)
    assert history.look_up(registry.spec(), [], registry.store) == ((), None)


def test_the_rest_of_a_run_has_no_time_of_its_own(registry: Registry) -> None:
    rest = ResumeSpec(run="run-0", where="epoch 3")
    registry.ran(resume=rest, **EC2)
    assert history.look_up(registry.spec(**EC2), [T4], registry.store) == ((), None)
    registry.ran(**EC2)
    assert history.look_up(registry.spec(resume=rest, **EC2), [T4], registry.store) == ((), None)


def test_a_run_of_several_machines_tells_nothing(registry: Registry) -> None:
    run = registry.store.add(make_plan(registry.spec(**EC2), plans.offer(0.5), CodeSummary(files=1, bytes=1)))
    for state in (*STORY[:4], RunState.INTERRUPTED, *STORY, RunState.SUCCEEDED):
        registry.now += 10
        run = registry.store.move(run, state)
    assert history.look_up(registry.spec(**EC2), ["type0"], registry.store) == ((), None)


def test_a_damaged_row_is_no_reason_to_refuse_a_run(registry: Registry) -> None:
    run = registry.ran(**EC2)
    with closing(sqlite3.connect(registry.store.path)) as db, db:
        db.execute("UPDATE runs SET plan = '{}' WHERE name = ?", (run.name,))
    assert history.look_up(registry.spec(**EC2), [T4], registry.store) == ((), None)


def test_a_plan_is_made_with_what_is_known(registry: Registry, tmp_path: Path) -> None:
    from cloudtrain.core.events import discard
    from cloudtrain.lifecycle import planning
    from cloudtrain.lifecycle.session import Context
    from cloudtrain.provider.choose import provider_of

    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "train.py").write_text("print('trained')\n")
    job = replace(plans.spec(tmp_path).job, source=str(tmp_path / "digits"))
    before = registry.ran(on="cpu", job=job)
    context = Context(store=registry.store, provider=lambda spec: provider_of(spec, lambda _: False), emit=discard)
    plan = planning.plan_run(registry.spec(job=job), context)
    assert plan.last is not None and (plan.last.run, plan.last.total_s) == (before.name, 260.0)
    assert plan.times == ()
