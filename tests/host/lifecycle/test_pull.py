"""A part of a run's results while it trains and once it has ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.core.disk import sha256
from cloudtrain.core.states import RunState
from cloudtrain.store import Run, Store
from tests.typed import Typed


@pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")
def test_a_part_of_a_run_that_trains_and_of_one_that_has_ended(
    cli: Callable[..., Typed],
    trains: Callable[[str], Run],
    store: Store,
    tmp_path: Path,
) -> None:
    run = trains("long-run")
    told = cli("pull", "--only", "weights", "--only", "log", "--out", str(tmp_path / "hand in"), "--json")
    result = json.loads(told.out.splitlines()[-1])
    assert result["artifacts"] and all(entry["name"].startswith("weights/") for entry in result["artifacts"])
    assert not (run.folder / "metrics.jsonl").exists()
    assert b"epoch 1 line 1" in (run.folder / "console.log").read_bytes()
    copied = {path.relative_to(tmp_path / "hand in").as_posix() for path in (tmp_path / "hand in").rglob("*.*")}
    assert {"weights/last.bin", "console.log", "events.jsonl"} <= copied
    # It does not count: nothing has moved, and nothing is noted as pulled.
    assert store.get("long-run").state is RunState.RUNNING
    assert store.read_journal("long-run").pulled is None

    cli("stop", "long-run", "--yes")
    before = store.read_journal("long-run").pulled
    (run.folder / "weights" / "last.bin").write_bytes(b"spoilt")
    (run.folder / "metrics.jsonl").unlink()
    assert "weights here, verified" in cli("pull", "--only", "weights").err
    assert sha256(run.folder / "weights" / "last.bin") in {entry.sha256 for entry in before}
    assert not (run.folder / "metrics.jsonl").exists() and store.read_journal("long-run").pulled == before

    (tmp_path / "hand in" / "metrics.jsonl").write_bytes(b"mine")
    refused = cli("pull", "--out", str(tmp_path / "hand in"), code=2).err
    assert "different file is there" in refused and "metrics.jsonl" in refused
    assert (run.folder / "metrics.jsonl").exists(), "the run's own folder is whole all the same"
    assert "copied to" in cli("pull", "--out", str(tmp_path / "all of it")).err
    assert sha256(tmp_path / "all of it" / "metrics.jsonl") == sha256(run.folder / "metrics.jsonl")
    again = cli("pull", "--out", str(tmp_path / "all of it")).err
    assert "0 of" in again
    assert "own folder" in cli("pull", "--out", str(run.folder / "weights"), code=2).err
