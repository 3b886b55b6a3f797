"""Tier 2: the registry, with real SQLite files and real processes."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.decode import brief
from cloudtrain.core.errors import Busy, RunError, StoreDamaged, UnknownRun, UsageError
from cloudtrain.core.host import HostFacts
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import ExitRecord, Figures
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.store import MIGRATIONS, Store
from tests import plans


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


def test_a_run_is_what_was_planned(store: Store, tmp_path: Path) -> None:
    plan = plans.plan(tmp_path)
    run = store.add(plan)
    assert (run.plan, run.state, run.life) == (plan, RunState.PLANNED, InstanceLife.NONE)
    assert store.get("brave-otter") == run
    assert [state for state, _ in store.moves(run.name)] == [RunState.PLANNED]


def test_a_blank_file_gets_every_migration_once(store: Store) -> None:
    Store(store.path)
    with sqlite3.connect(store.path) as db:
        applied = [row[0] for row in db.execute("SELECT name FROM migrations ORDER BY rowid")]
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.close()
    assert applied == [name for name, _ in MIGRATIONS]
    assert {"runs", "moves", "migrations"} <= tables


def test_a_move_is_guarded_by_the_state_that_was_read(store: Store, tmp_path: Path) -> None:
    old = store.add(plans.plan(tmp_path))
    store.move(old, RunState.PROVISIONING)
    with pytest.raises(Busy):
        store.move(old, RunState.PROVISIONING)
    with pytest.raises(ValueError, match="not a legal move"):
        store.move(store.get(old.name), RunState.SUCCEEDED)
    assert store.get(old.name).state is RunState.PROVISIONING


def test_facts_ride_with_a_move(store: Store, tmp_path: Path) -> None:
    run = store.move(store.add(plans.plan(tmp_path)), RunState.PROVISIONING)
    instance = Instance(id="i-1", provider=Target.EC2, owned=True, workdir=".cloudtrain", life=InstanceLife.RUNNING)
    run = store.move(run, RunState.BOOTING, instance=instance, life=instance.life)
    assert (run.instance, run.life) == (instance, InstanceLife.RUNNING)
    ended = store.move(run, RunState.FAILED, error=RunError(code="x", message="y"))
    assert ended.ended_at is not None and ended.error == RunError(code="x", message="y")


def test_notes_outside_the_known_columns_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no state"):
        store.note(store.add(plans.plan(tmp_path)), state="succeeded")


def test_the_journal_merges_and_survives_reopening(store: Store, tmp_path: Path) -> None:
    store.add(plans.plan(tmp_path))
    store.journal("brave-otter").write(RunNotes(id="a", python="b"))
    with sqlite3.connect(store.path) as db:  # of a later version, and one that was cleared
        db.execute("""UPDATE runs SET journal = json_set(journal, '$.token', 'x', '$.owed', NULL)""")
    db.close()
    Store(store.path).journal("brave-otter").write(RunNotes(python="c", code=None))
    assert store.read_journal("brave-otter") == RunNotes(id="a", python="c")
    with sqlite3.connect(store.path) as db:
        (kept,) = db.execute("SELECT journal FROM runs").fetchone()
    db.close()
    assert json.loads(kept) == {"id": "a", "python": "c", "token": "x", "owed": None, "code": None}
    with pytest.raises(UnknownRun):
        store.journal("nobody").write(RunNotes(owed=True))


def holds(value: Any, told: Any) -> bool:
    """Whether JSON has all that `told` has of it; a later release has more keys."""
    if isinstance(told, dict):
        return all(inner is None or holds(value.get(key), inner) for key, inner in told.items())
    if isinstance(told, list):
        return len(value) == len(told) and all(map(holds, value, told))
    return bool(value == told)


def test_rows_that_the_last_release_wrote_are_read_whole(store: Store) -> None:
    """One that trains and one that was stopped, of the release before values took the place of keys."""
    rows = json.loads(Path(__file__).with_name("last_release.json").read_text())
    with sqlite3.connect(store.path) as db:
        for row in rows:
            texts = [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
            db.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", texts)
    db.close()
    for row in rows:
        run = store.get(row["name"])
        assert holds(json.loads(json.dumps(run.plan.to_dict())), row["plan"])
        assert run.instance is not None and asdict(run.instance.details).items() >= row["instance"]["details"].items()
        assert run.instance.to_dict()["host_key"] == row["instance"]["host_key"]
        told = [run.progress, *filter(None, (run.ending, run.error))]
        kept = [row[k] for k in ("progress", "ending", "error") if row[k] is not None]
        assert len(told) == len(kept) and all(holds(brief(value), row) for value, row in zip(told, kept, strict=True))
        entries = {**store.read_journal(run.name).entries(), **store.read_notes(run.name, Ec2Notes).entries()}
        assert holds(json.loads(json.dumps(entries)), row["journal"]), "a note is lost, or another one"


@pytest.mark.parametrize(
    ("column", "path", "odd", "damages"),
    [
        ("instance", "$.details.expires_at", "'soon'", True),
        ("instance", "$.life", "'gone'", True),
        ("plan", "$.offer.details.parked_per_day", "'2'", True),
        ("plan", "$.spec.train.epochs", "1.5", True),
        ("journal", "$.pulled", 'json(\'[{"name": "a", "size": -1, "sha256": ""}]\')', True),
        ("journal", "$.run_ends_at", "1e30", True),
        ("journal", "$.host", 'json(\'{"cpus": "many", "os": "x"}\')', False),
        ("ending", "$.code", "'x'", False),
        ("error", "$.hint", "5", False),
        ("progress", "$.epoch", "-1", False),
        ("instance", "$.details.of_a_later_version", "5", False),
    ],
)
def test_what_is_odd_damages_the_row_unless_a_host_or_job_told_it(
    store: Store, tmp_path: Path, column: str, path: str, odd: str, damages: bool
) -> None:
    told = {"ending": ExitRecord(stop="user"), "error": RunError(message="m"), "progress": Figures(epochs=2)}
    run = store.note(store.add(plans.plan(tmp_path)), instance=plans.machine(), **told)
    with sqlite3.connect(store.path) as db:
        db.execute(f"UPDATE runs SET {column} = json_set({column}, '{path}', {odd})")
    db.close()
    if damages:
        with pytest.raises(StoreDamaged, match="brave-otter"):
            store.read_journal(store.get(run.name).name)
        return
    found = store.get(run.name)
    assert (found.ending, found.error, found.progress) == tuple(told.values()) and found.instance == run.instance
    assert store.read_journal(run.name).host in (None, HostFacts(os="x"))


def test_names_are_found_by_beginning_latest_and_likeness(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownRun, match="no run yet"):
        store.find(None)
    for name in ("brave-otter", "brave-owl", "calm-raven"):
        store.add(plans.plan(tmp_path, name))
    assert store.find(None).name == store.find("@last").name == "calm-raven"
    assert store.find("brave-ow").name == "brave-owl"
    with pytest.raises(UnknownRun, match="fits several"):
        store.find("brave")
    with pytest.raises(UnknownRun) as caught:
        store.find("brave-oter")
    assert caught.value.hint == "did you mean brave-otter?"
    with pytest.raises(UsageError, match="already"):
        store.add(plans.plan(tmp_path, "brave-owl"))


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"\0" * 4096])
def test_a_corrupt_registry_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registry.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreDamaged) as raised:
        Store(path).runs()
    assert str(path) in raised.value.message and raised.value.hint
    assert path.read_bytes() == content


def test_a_registry_that_another_command_holds_is_not_called_broken(store: Store) -> None:
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreDamaged) as raised:
        Store(store.path, wait_s=0.1).forget("brave-otter")
    holder.close()
    assert "database is locked" in raised.value.message and "another cloudtrain" in str(raised.value.hint)
    assert "move" not in str(raised.value.hint)


def test_a_registry_that_cannot_be_made_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StoreDamaged) as raised:
        Store(tmp_path / "state" / "registry.sqlite")
    assert "move" not in str(raised.value.hint) and str(tmp_path / "state") in str(raised.value.hint)


def test_a_row_of_a_later_version_is_a_clear_error(store: Store, tmp_path: Path) -> None:
    store.add(plans.plan(tmp_path))
    db = sqlite3.connect(store.path)
    db.execute("UPDATE runs SET plan = '{}'")
    db.commit()
    db.close()
    with pytest.raises(StoreDamaged, match="brave-otter"):
        store.runs()


def test_a_registry_that_was_cut_off_is_not_taken_for_a_new_one(store: Store, tmp_path: Path) -> None:
    store.add(plans.plan(tmp_path))
    for path in tmp_path.glob("registry.sqlite*"):
        path.write_bytes(b"")
        os.utime(path, (1e9, 1e9))
    with pytest.raises(StoreDamaged, match="is empty") as raised:
        Store(store.path).runs()
    assert "cloudtrain clean" in str(raised.value.hint) and store.path.read_bytes() == b""


@pytest.mark.parametrize("size", [50, 4096])
def test_a_registry_of_which_the_end_is_gone_is_named(store: Store, tmp_path: Path, size: int) -> None:
    for number in range(20):
        store.add(plans.plan(tmp_path, f"brave-otter-{number}"))
    data = store.path.read_bytes()
    for path in tmp_path.glob("registry.sqlite-*"):
        path.unlink()
    assert len(data) > 2 * 4096
    store.path.write_bytes(data[:size])
    with pytest.raises(StoreDamaged, match=r"registry\.sqlite"):
        Store(store.path).runs()


@pytest.mark.skipif(os.name == "nt", reason="no modes on Windows")
def test_the_registry_is_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(tmp_path / "state" / "registry.sqlite")
        store.add(plans.plan(tmp_path))
        db = sqlite3.connect(store.path)
        db.execute("SELECT * FROM runs").fetchall()
        modes = {path.name: path.stat().st_mode & 0o777 for path in [store.path.parent, *store.path.parent.iterdir()]}
        db.close()
    finally:
        os.umask(before)
    assert modes.pop("state") == 0o700 and set(modes.values()) == {0o600}
    # As releases before left them.
    store.path.chmod(0o644)
    store.path.parent.chmod(0o755)
    Store(store.path).runs()
    assert (store.path.stat().st_mode & 0o777, store.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.skipif(os.name == "nt", reason="no owners of this kind on Windows")
def test_a_state_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(StoreDamaged, match="belongs to another user"):
        Store(tmp_path / "registry.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_the_latest_come_with_what_may_live_or_be_billed_or_cannot_be_read(tmp_path: Path) -> None:
    """Whatever is left out has ended, costs nothing, and can be read."""
    clock = iter(range(1_800_000_000, 1_900_000_000))
    store = Store(tmp_path / "registry.sqlite", clock=lambda: next(clock))
    for name in ("ended", "living", "parked", "torn", "odd-life", "newer", "newest"):
        run = store.add(plans.plan(tmp_path, name))
        store.move(run, RunState.FAILED) if name not in ("living", "newest") else None
    store.note(store.get("parked"), life=InstanceLife.PARKED)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE runs SET plan = substr(plan, 1, 40) WHERE name = 'torn'")
        db.execute("UPDATE runs SET life = 'undead' WHERE name = 'odd-life'")
    db.close()
    damaged: list[StoreDamaged] = []
    assert [run.name for run in store.runs(damaged.append, latest=2)] == ["newest", "newer", "parked", "living"]
    assert len(damaged) == 2 and "odd-life" in damaged[0].message and "torn" in damaged[1].message


def test_what_was_heard_is_not_stored_over_what_another_command_has_stored_since(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path))
    assert store.heard(run, life=InstanceLife.RUNNING).life is InstanceLife.RUNNING
    other = store.heard(run, life=InstanceLife.PARKED)
    assert other.life is InstanceLife.RUNNING and other == store.get(run.name)
