"""What a job or an earlier version left that is odd: on the command line, with real jobs of this computer."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cloudtrain.core.states import RunState
from cloudtrain.store import Run, Store
from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")

JOB = r"""
import os
with open(os.environ["CLOUDTRAIN_OUT"] + "/w.bin", "w") as file:
    file.write("weights")
with open(os.environ["CLOUDTRAIN_EVENTS"], "a") as file:
    for line in (
        '{"kind": ["epoch"], "epoch": 1}', "5 %",
        '{"kind": "step", "step": NaN, "rate": 1e-320, "steps": ' + "9" * 400 + "}",
        '{"kind": "epoch", "epoch": 1, "epochs": "\\u001b[2J", "test_acc": [1]}', '{"kind": "result", "goals": [1]}',
        '{"a": ' + "[" * 5000,
    ):
        file.write(line + "\n")
"""


def test_a_job_that_tells_nonsense(cli: Callable[..., Typed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    (tmp_path / "jobs" / "odd.py").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDTRAIN_MODULE", "jobs.odd")
    told = cli("run", "--job", "jobs", "--local", "--yes", "--name", "odd-run")
    assert told.err.count("that is not an event") == 1 and "checksums verified" in told.err
    assert "\x1b" not in told.err + told.out
    for command in ("ls", "show", "logs", "pull", "stop", "report", "verify"):
        said = cli(command, *([] if command == "ls" else ["odd-run"]))
        assert "\x1b" not in said.out + said.err, command


def test_a_run_that_an_earlier_version_made_unreadable_is_followed_and_ended(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store
) -> None:
    """The events and the row as such a version left them: nothing in them was looked at."""
    run = trains("odd-run")
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(
            b'{"kind": ["epoch"], "epoch": 1}\n{"kind": "epoch", "epoch": 1, "test_acc": {}}\n' + b"[" * 9000 + b"\n"
        )
    odd = '{"epoch": ["\\u001b[2J"], "epochs": NaN, "best_test_acc": [[]], "parameters": 1e999}'
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE runs SET progress = ?", (odd,))
        db.execute("""UPDATE runs SET journal = json_set(journal, '$.host.gpus', 5, '$.host.torch', json('["x"]'))""")
    assert "odd-run" in cli("ls").out and "training" in cli("show", "odd-run").out
    cli("stop", "--all", "--yes")
    assert store.get("odd-run").state is RunState.STOPPED


def test_a_row_that_cannot_be_read_hides_no_other(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store
) -> None:
    for name in ("torn-run", "good-run"):
        trains(name)
    with closing(sqlite3.connect(store.path)) as db, db:
        (plan,) = db.execute("SELECT plan FROM runs WHERE name = 'torn-run'").fetchone()
        db.execute("UPDATE runs SET plan = substr(plan, 1, 40) WHERE name = 'torn-run'")
    listed = cli("ls", code=2)
    assert "good-run" in listed.out and "row of torn-run cannot be read" in listed.err
    record = json.loads(cli("ls", "--json", code=2).out)
    assert [run["name"] for run in record["runs"]] == ["good-run"] and record["error"]["code"] == "store_damaged"
    told = cli("stop", "--all", "--yes", code=2)
    assert "1 of 1 ended" in told.err and "row of torn-run cannot be read" in told.err
    assert store.get("good-run").state is RunState.STOPPED
    assert (
        json.loads(cli("stop", "--all", "--yes", "--json", code=2).out.splitlines()[-1])["error"]["code"]
        == "store_damaged"
    )
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE runs SET plan = ? WHERE name = 'torn-run'", (plan,))
