"""Tier 1: which runs a listing shows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cloudtrain.console.pages import filters
from cloudtrain.console.pages.filters import Filter
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import Target, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.store import Run, Store
from tests.plans import FULL_EC2, plan


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    clock = [time.time() - 3 * 86400]
    store = Store(tmp_path / "registry.sqlite", clock=lambda: clock[0])
    old = store.add(plan(tmp_path / "runs", "old-otter", train=TrainSpec(model=1)))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING, RunState.PULLING):
        old = store.move(old, state)
    store.move(old, RunState.SUCCEEDED)
    clock[0] = time.time()
    store.add(plan(tmp_path / "runs", "new-otter"))
    store.add(plan(tmp_path / "runs", "dry-finch", target=Target.EC2, ec2=FULL_EC2))
    return store.runs()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, {"old-otter", "new-otter", "dry-finch"}),
        ({"model": 1}, {"old-otter"}),
        ({"status": "done"}, {"old-otter"}),
        ({"status": "succeeded"}, {"old-otter"}),
        ({"status": "living"}, {"new-otter", "dry-finch"}),
        ({"where": "rehearsal"}, {"dry-finch"}),
        ({"where": "local", "since": "2d"}, {"new-otter"}),
        ({"where": "ec2"}, set()),
    ],
)
def test_filters(runs: list[Run], wanted: dict[str, object], names: set[str]) -> None:
    kept = Filter.of(**{"model": None, "status": None, "where": None, "since": None, **wanted})  # type: ignore[arg-type]
    assert {run.name for run in runs if kept.takes(run)} == names


@pytest.mark.parametrize("wrong", [{"status": "great"}, {"where": "mars"}, {"since": "yesterday"}])
def test_a_word_that_stands_for_nothing(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError) as told:
        Filter.of(**{"model": None, "status": None, "where": None, "since": None, **wrong})  # type: ignore[arg-type]
    assert told.value.hint


def test_the_latest_are_shown_and_whatever_lives(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "LATEST", 1)
    shown, hidden = filters.latest(runs)
    assert shown[0] is runs[0] and hidden == len(runs) - len(shown) > 0
    assert {run.name for run in runs if not run.state.final} <= {run.name for run in shown}
    assert [run for run in runs if run in shown] == shown, "in the order that they came in"
