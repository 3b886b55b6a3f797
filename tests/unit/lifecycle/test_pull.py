"""`pull --only` and `pull --out`: parts of a run's results, and copies of them, on the command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.cli import runs
from cloudtrain.core.disk import sha256
from cloudtrain.core.errors import ArtifactRefused, ConnectionFailed, UsageError
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import pull
from cloudtrain.lifecycle.session import Context
from cloudtrain.provider.local import LocalProvider
from cloudtrain.run_folder import copy_out, result_groups
from cloudtrain.store import Store
from tests import plans
from tests.unit.lifecycle.test_machine_end import kept


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("weights/best.pt", "weights"),
        ("metrics.jsonl", "metrics"),
        ("predictions.csv", "predictions"),
        ("checkpoints/last.pt", "checkpoints"),
        ("model_summary.txt", "summary"),
        ("env/gpu.txt", "environment"),
        ("samples/metrics.csv", "other"),
        ("weights", "other"),
        ("notes.md", "other"),
        ("weights/\ud800", "weights"),  # no name for a file: refused later, and in words
    ],
)
def test_every_result_is_in_one_group(name: str, group: str) -> None:
    assert result_groups.of(name) == group


def test_the_names_of_groups_complete() -> None:
    assert [name for name, _ in runs.complete_group("we")] == ["weights"]
    assert len(runs.complete_group("")) == len(result_groups.NAMES)
    assert result_groups.check(["log", "weights", "log"]) == ("log", "weights")


def context(store: Store) -> Context:
    return Context(store=store, provider=lambda spec: LocalProvider())


def test_a_parked_machine_is_not_started_for_a_part(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path / "runs"))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
        run = store.move(run, state)
    run = store.note(run, life=InstanceLife.PARKED)
    with pytest.raises(UsageError, match="is parked, and it is not started"):
        pull.pull(run, context(store), ["weights"])


def test_a_part_of_a_run_without_a_machine_is_checked_here(store: Store, tmp_path: Path) -> None:
    run = store.note(kept(store, tmp_path, 60.0), life=InstanceLife.TERMINATED)
    (run.folder / "weights").mkdir(parents=True)
    (run.folder / "weights" / "best.pt").write_bytes(b"trained")
    digest = sha256(run.folder / "weights" / "best.pt")
    store.write_journal(run.name, RunNotes(pulled=(FileEntry("weights/best.pt", 7, digest),)))
    assert [entry.name for entry in pull.pull(run, context(store), ["weights"]).entries] == ["weights/best.pt"]
    assert pull.pull(run, context(store), ["metrics"]).entries == ()
    (run.folder / "weights" / "best.pt").write_bytes(b"spoilt!")
    with pytest.raises(ConnectionFailed, match="no longer has a machine"):
        pull.pull(run, context(store), ["weights"])


def entry(folder: Path, name: str, data: bytes) -> FileEntry:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return FileEntry(name, len(data), sha256(path) or "")


def test_a_copy_is_whole_or_not_there_and_overwrites_nothing(tmp_path: Path) -> None:
    folder, out = tmp_path / "runs" / "brave-otter", tmp_path / "out"
    entries = [entry(folder, "weights/best.pt", b"trained"), entry(folder, "metrics.csv", b"1,2\n")]
    (out / "weights").mkdir(parents=True)
    (out / "weights" / "best.pt").write_bytes(b"mine")
    with pytest.raises(UsageError, match="different file is there"):
        copy_out.copy(folder, entries, out)
    assert not (out / "metrics.csv").exists(), "nothing is copied where not all can be"
    assert (out / "weights" / "best.pt").read_bytes() == b"mine"
    (out / "weights" / "best.pt").write_bytes(b"trained")
    assert copy_out.copy(folder, entries, out) == 1
    # A file that has changed since it was verified is no result to hand in.
    (folder / "metrics.csv").write_bytes(b"9,9\n")
    with pytest.raises(ArtifactRefused, match="not the file that was verified"):
        copy_out.copy(folder, entries, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").rglob("*") if path.is_file()] == ["best.pt"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        copy_out.copy(folder, entries, tmp_path / "file")


def test_actions_and_parts_agree_on_what_lives(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path / "runs"))
    for act in (lambda: pull.pull(run, context(store), ["log"]), lambda: pull.pull_now(run, context(store))):
        with pytest.raises(UsageError, match="has not begun to train"):
            act()
