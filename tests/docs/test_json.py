"""`--json`: what every command really prints, held against docs/schema. Nothing else is on stdout, `exit` is the exit
code, an error is complete, and what is said of money is true."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from jsonschema import Draft202012Validator

from cloudtrain.billing import running as billing
from cloudtrain.cli import app as command_line
from cloudtrain.console.lines import write_json
from cloudtrain.console.reporters import jsonl
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.instance import Details, Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.plan import CodeSummary, make_plan
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.store import Store
from tests import plans
from tests.docs.test_errors import pages
from tests.json_output import SCHEMAS, VALIDATORS, Answer, check
from tests.region.whole_path.place import JOBS, Place
from tests.unit.test_structure import ROOT

ALIASES = {"ps": "ls"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that the app has, with its words joined by dashes."""

    def below(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(command, (*words, name))
            else:
                yield "-".join((*words, name)), command

    return below(typer.main.get_command(command_line.app), ())


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Answer]:
    """Runs a command in this process with --json, and holds its output against everything that is promised of it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "user"))
    (tmp_path / "user").mkdir()

    def run(*argv: str, code: int = 0) -> Answer:
        at = argv.index("--") if "--" in argv else len(argv)
        monkeypatch.setattr(sys, "argv", ["cloudtrain", *argv[:at], "--json", *argv[at:]])
        capfd.readouterr()
        left = command_line.run()
        out, aside = capfd.readouterr()
        told = f"{' '.join(argv)}: exit {left}\n{aside}"
        answer = Answer([json.loads(line, parse_constant=_no_json) for line in out.splitlines()], left, aside)
        check(_schema_of(argv), answer, told)
        assert left == code, f"{told}\n{answer.lines[-1:]}"
        return answer

    return run


def _no_json(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def _schema_of(argv: tuple[str, ...]) -> str:
    name = "-".join(argv[:2]) if "-".join(argv[:2]) in VALIDATORS else argv[0]
    return name if name in VALIDATORS else "run"  # a command that there is not: any schema knows the failure


def test_every_command_takes_json_and_has_a_schema() -> None:
    found = {name: command for name, command in commands() if name not in ("guide", "help", "version")}  # print a page
    assert {ALIASES.get(name, name) for name in found} == set(VALIDATORS)
    for name, command in found.items():
        assert any("--json" in param.opts for param in command.params), f"{name} has no --json"
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


TOY = ("--job", str(JOBS / "toy"), "--yes")


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    """An account, and this process as somebody who uses it."""
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1, shutting_down_s=0.1)) as region:
        for name, value in region.environment().items():
            monkeypatch.setenv(name, value)
        yield region


@pytest.mark.skipif(sys.platform == "win32", reason="the emulated machines need POSIX")
def test_what_every_command_prints_is_as_its_schema_says(
    cli: Callable[..., Answer], region: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = ("run", "--instance", "g4dn.xlarge", *TOY)
    assert cli("init").result["files"]
    assert cli("config", "show").result["settings"]["model"]["value"] == 3
    assert cli("trust").result["settings"] == {}
    assert cli("doctor").result["checks"]
    assert cli("instances", "--offline").result["rows"]
    assert cli("ls").result["runs"] == []
    planned = cli(*ec2, "--name", "one-run", "--plan")
    assert [line["type"] for line in planned.lines] == ["plan", "result"]
    assert planned.result["billing"] == {"running": False, "parked": False, "ends_by": None}

    whole = cli(*ec2, "--name", "one-run")
    assert {"plan", "state", "step", "epoch", "metric", "log", "note"} <= {line["type"] for line in whole.lines}
    assert {line["run"] for line in whole.lines} == {"one-run"}
    assert whole.result["state"] == "succeeded" and not whole.result["billing"]["running"]
    detached = cli(*ec2, "--name", "two-run", "-d", "--", "--pause", "0.2", "--epochs", "500")
    billed = detached.result["billing"]
    assert detached.result["state"] == "running" and billed["running"] and billed["ends_by"]
    assert cli("show", "two-run").result["ends_by"] == billed["ends_by"]
    # Of no run: of all of them.
    assert cli("show", "nobody", code=2).result["billing"] == billed
    refused = cli("extend", "two-run", "30m", code=2).result["error"]
    assert (refused["code"], refused["consequence"]) == ("confirmation_needed", "nothing was changed")
    moved = cli("extend", "two-run", "30m", "--yes").result
    assert moved["ended_by"] == billed["ends_by"] < moved["ends_by"]
    assert cli("ssh", "two-run", "--setup").result["included"] is False
    assert cli("ssh", "two-run", "--setup", "--yes").result["included"] is True
    assert cli("logs", "two-run", "--no-follow", "-n", "3").result["billing"]["running"]
    assert cli("pull", "two-run").result["state"] == "running"
    assert [run["name"] for run in cli("ls", "--where", "ec2").result["runs"]] == ["two-run", "one-run"]
    assert cli("ls", "--remote").result["leftovers"]
    kept = cli("clean").result["leftovers"]
    assert {one["kind"] for one in kept} >= {"instance"} and not any(one["safe"] or one["fate"] for one in kept)
    waited = cli("wait", "one-run", "two-run", "one-run", "--timeout", "1s", code=8)
    ends = [(line["run"], line["exit"]) for line in waited.lines if line["type"] == "result"]
    assert ends == [("one-run", 0), ("two-run", 8), ("one-run", 0)]

    (machine,) = [one["id"] for one in region.inventory()["instances"]]
    with monkeypatch.context() as lost:
        lost.setenv("CLOUDTRAIN_HOME", str(tmp_path / "another-home"))
        assert cli("adopt", machine).result["adopted"]["instance"]["id"] == machine
        shutil.rmtree(tmp_path / "another-home")
    stopped = cli("stop", "two-run", "--yes").result
    assert stopped["state"] == "stopped" and stopped["error"]["code"] == "stopped"
    assert not stopped["billing"]["running"] and "terminated" in stopped["error"]["consequence"]
    assert cli("stop", "two-run").result["ok"]
    assert cli("wait", "one-run", "two-run", code=130).code == 130

    assert cli("pull", "one-run").result["artifacts"]
    assert [line["epoch"] for line in cli("logs", "one-run", "--epochs").lines[:-1]] == [1, 2]
    assert cli("verify", "one-run").result["checks"]
    assert cli("report", "one-run").result["report"]["goals"]
    assert cli("report", "one-run", "--out", "facts.json").result["report"] is None
    assert "epochs" in cli("compare", "one-run", "two-run").result["differs"]
    assert cli("export", "one-run", "--to", "csv").result["path"]
    assert cli("rerun", "one-run", "--plan").lines[-2]["type"] == "plan"
    assert cli("clean", "--all", "--yes").result["billing"]["running"] is False
    (tmp_path / "work/runs/one-run/metrics.jsonl").write_text("x")
    assert cli("verify", "one-run", code=6).result["error"]["code"] == "verify_failed"


def test_a_training_that_fails_is_an_error_with_its_cause(cli: Callable[..., Answer]) -> None:
    failed = cli("run", "--local", *TOY, "--name", "bad-run", "--", "--crash", "out of luck", code=3).result
    assert (failed["error"]["code"], failed["error"]["cause"]) == ("training_failed", "crash")
    assert "results so far are in" in failed["error"]["consequence"] and failed["error"]["detail"] == "out of luck"
    assert not failed["billing"]["running"]
    (row,) = cli("ls").result["runs"]
    assert (row["exit_code"], row["error"]["code"]) == (3, "training_failed")
    # However the run ended: the command has done what it was asked.
    assert cli("stop", "bad-run").result["error"]["code"] == "training_failed"
    assert cli("logs", "bad-run").result["state"] == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="a process is asked to end by a signal")
def test_a_command_that_is_asked_to_end_says_how_its_run_stands(tmp_path: Path) -> None:
    place = Place("local", ["--local"], tmp_path / "home", tmp_path)
    with place.started(*place.toy("left-run", "--pause", "0.1", "--epochs", "500", flags=("--json",))) as command:
        place.wait_for(lambda: place.processes("left-run") != {} and place.shown("left-run")["state"] == "running")
        command.terminate()
        out, _ = command.communicate(timeout=200)
    answer = Answer([json.loads(line) for line in out.splitlines()], command.returncode, "")
    check("run", answer, "run, then SIGTERM")
    assert (answer.code, answer.result["error"]["code"], answer.result["state"]) == (8, "still_running", "running")
    place.cli("stop", "left-run", "--yes", "--json")


FAILURES = [
    (("trust", "nowhere"), "bad_setting"),
    (("dance",), "usage"),
    (("doctor", "--dance"), "usage"),
    (("run",), "no_target"),
    (("run", "--local", "--max-time", "soon"), "bad_setting"),
    (("rerun", "nobody"), "unknown_run"),
    (("logs", "nobody"), "unknown_run"),
    (("wait", "nobody"), "unknown_run"),
    (("wait",), "usage"),
    (("pull", "nobody"), "unknown_run"),
    (("stop", "nobody", "--yes"), "unknown_run"),
    (("ls", "--where", "moon"), "bad_setting"),
    (("verify", "nobody"), "unknown_run"),
    (("report", "nobody"), "unknown_run"),
    (("compare", "nobody"), "usage"),
    (("export", "nobody", "--to", "csv"), "unknown_run"),
    (("extend", "nobody", "soon"), "usage"),
    (("ssh",), "usage"),
    (("ssh", "nobody", "--setup"), "unknown_run"),
    (("adopt", "i-1", "--region", "x"), "bad_region"),
    (("clean", "--region", "x"), "bad_region"),
    (("instances", "--offline", "--gpu", "X1"), "unknown_gpu"),
    (("config", "show", "--config", "nowhere"), "bad_setting"),
    (("init", "nowhere/at/all"), "folder"),
]


def test_every_command_fails_as_one_result(cli: Callable[..., Answer]) -> None:
    for argv, code in FAILURES:
        result = cli(*argv, code=2).result
        assert result["error"]["code"] == code, argv
        assert result["billing"] == {"running": False, "parked": False, "ends_by": None}
    assert {_schema_of(argv) for argv, _ in FAILURES} >= set(VALIDATORS) - {"show"}


def test_a_registry_that_cannot_be_read_says_neither_yes_nor_no(cli: Callable[..., Answer], tmp_path: Path) -> None:
    state = tmp_path / "cloudtrain-home" / "state"
    state.mkdir(parents=True)
    (state / "registry.sqlite").write_bytes(b"this is no database, but it is long enough to be one" * 100)
    told = cli("ls", code=2).result
    assert told["error"]["code"] == "store_damaged" and told["billing"]["running"] is None


@pytest.mark.parametrize(
    ("life", "notes", "expires_in", "running", "parked"),
    [
        (InstanceLife.RUNNING, RunNotes(), 3600.0, True, False),
        (InstanceLife.LAUNCHING, RunNotes(), None, True, False),
        (InstanceLife.TERMINATED, RunNotes(), 3600.0, False, False),
        (InstanceLife.NONE, RunNotes(), None, False, False),
        # A launch without an answer may show up yet.
        (InstanceLife.NONE, RunNotes(owed=True), None, True, False),
        (InstanceLife.PARKED, RunNotes(), 3600.0, False, True),
        # Its own lease should have switched it off, which nobody has seen; its disk may be kept.
        (InstanceLife.RUNNING, RunNotes(), -60.0, True, True),
    ],
)
def test_billing_is_what_the_runs_life_says(
    life: InstanceLife, notes: RunNotes, expires_in: float | None, running: bool, parked: bool, tmp_path: Path
) -> None:
    now, store = time.time(), Store()
    for name, ec2 in (
        ("real", Ec2Spec()),
        ("rehearsed", Ec2Spec(rehearsal=True)),
        ("mine", Ec2Spec(instance_id="i-1")),
    ):
        asked = plans.spec(tmp_path, name, target=Target.EC2, ec2=ec2)
        run = store.add(make_plan(asked, plans.offer(0.5), CodeSummary(files=1, bytes=1)))
        store.write_journal(name, notes)
        machine = None
        if expires_in is not None:
            details = Details(expires_at=now + expires_in)
            machine = Instance(id="i-2", provider=Target.EC2, owned=not ec2.instance_id, workdir="w", details=details)
        store.note(run, life=life, **({"instance": machine} if machine else {}))
        told = billing.now(name)
        expected = (running, parked) if name == "real" else (False, False)
        assert (told["running"], told["parked"]) == expected, name
        assert (told["ends_by"] is not None) is (told["running"] and (expires_in or 0.0) >= 0.0)
    assert (billing.now()["running"], billing.now()["parked"]) == (running, parked)
    assert billing.now("never-heard-of")["running"] is False


@pytest.mark.parametrize(("code", "parked"), [("parked", True), ("instance_gone", False), ("spot_reclaimed", False)])
def test_an_error_that_has_seen_the_machine_knows_better(
    code: str, parked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    as_registered = {"running": True, "parked": False, "ends_by": "2026-11-23T12:00:00+00:00"}
    reporter = jsonl.JsonReporter("calm-otter", lambda run: as_registered)
    reporter.failure(ConnectionFailed("it is not there", code=code))
    assert json.loads(capsys.readouterr().out)["billing"] == {"running": False, "parked": parked, "ends_by": None}
    reporter.failure(ConnectionFailed("nothing answers", code="unreachable"))
    assert json.loads(capsys.readouterr().out)["billing"] == as_registered


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_no_word_for_is_null(number: float, capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"loss": number, "losses": (number, 1.5), "deep": {"x": [number]}})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "losses": [None, 1.5], "deep": {"x": [None]}}


def test_the_page_about_json_is_current() -> None:
    page = ROOT / "docs" / "json.md"
    assert page.read_text(encoding="utf-8") == pages()[page], "run: python scripts/contract_docs.py"
