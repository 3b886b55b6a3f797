"""Of processes that race for a run one has it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from cloudtrain.core.errors import Busy
from cloudtrain.core.states import RunState
from cloudtrain.store import Store
from tests import plans


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


def _race(path: Path, barrier: object, results: object) -> None:
    store = Store(path)
    run = store.get("brave-otter")
    barrier.wait()  # type: ignore[attr-defined]
    try:
        store.move(run, RunState.PROVISIONING)
        results.put("won")  # type: ignore[attr-defined]
    except Busy:
        results.put("lost")  # type: ignore[attr-defined]


def test_of_processes_that_race_for_a_move_one_wins(store: Store, tmp_path: Path) -> None:
    store.add(plans.plan(tmp_path))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    racers = [context.Process(target=_race, args=(store.path, barrier, results)) for _ in range(4)]
    for racer in racers:
        racer.start()
    outcomes = sorted(results.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join(60)
    results.close()
    results.join_thread()
    assert outcomes == ["lost", "lost", "lost", "won"]
    assert len(store.moves("brave-otter")) == 2
