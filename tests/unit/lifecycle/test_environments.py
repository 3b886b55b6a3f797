"""Which packages a run is to have again: of its own machine before this one, or of the run that it repeats."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.core.environment import Environment
from cloudtrain.core.notes import RunNotes
from cloudtrain.lifecycle.environments import before
from cloudtrain.store import Store
from tests import plans

MADE = Environment(python="/w/envs/1/bin/python", source="uv.lock", key="1", version="3.12", lock_sha256="0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A registry with a run that had an environment, and one that repeats it."""
    made = Store(tmp_path / "registry.sqlite")
    first = made.add(plans.plan(tmp_path / "runs", "first"))
    (first.folder / "env").mkdir(parents=True)
    (first.folder / "env" / "lock.txt").write_text("lock-version = 1")
    made.write_journal("first", RunNotes(id="1d", environment=MADE))
    made.add(plans.plan(tmp_path / "runs", "again"))
    made.write_journal("again", RunNotes(id="2d", rerun_of={"name": "first", "id": "1d"}))
    return made


def test_a_run_on_its_second_machine_and_one_that_repeats_it(store: Store) -> None:
    for name in ("first", "again"):
        had = before(store.get(name), store)
        assert had is not None and (had.environment, had.lock) == (MADE, "lock-version = 1")


def test_what_is_gone_or_of_another_run_of_that_name_is_none(store: Store) -> None:
    store.write_journal("again", RunNotes(rerun_of={"name": "first", "id": "another"}))
    assert before(store.get("again"), store) is None
    store.write_journal("again", RunNotes(rerun_of={"name": "nobody", "id": "1d"}))
    assert before(store.get("again"), store) is None
    (store.get("first").folder / "env" / "lock.txt").unlink()
    assert before(store.get("first"), store) is None
