"""What a user mistypes or a disk has spoilt: one line that says it, the next command, the documented exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.region.whole_path.place import JOBS, Place


@dataclass(frozen=True)
class Case:
    """A command line that cannot work.

    Attributes:
        spoil: what is wrong with the place before the command is typed.
        said: part of the message.
        left: names below the folder where it is typed that are there afterwards.
    """

    name: str
    argv: list[str]
    said: str
    code: int = 2
    spoil: Callable[[Place], None] = lambda place: None
    environment: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def registry_of_rubbish(place: Place) -> None:
    state = place.home / "state"
    state.mkdir(parents=True)
    (state / "registry.sqlite").write_bytes(b"this is no database, but it is long enough to be one" * 100)


def runs_is_a_file(place: Place) -> None:
    (place.cwd / "runs").write_text("mine")


def name_is_taken(place: Place) -> None:
    (place.cwd / "runs" / "taken").mkdir(parents=True)


TOY = ["run", "--local", "--job", str(JOBS / "toy"), "--yes"]
CASES = [
    Case("model", ["run", "--local", "--model", "4"], "model"),
    Case("epochs", ["run", "--local", "--model", "3", "--epochs", "0"], "epochs"),
    Case("epochs not a number", ["run", "--local", "--epochs", "many"], "--epochs"),
    Case("unknown run", ["show", "nobody"], 'no run "nobody"'),
    Case("unknown run to follow", ["logs", "nobody"], 'no run "nobody"'),
    Case("unknown run to stop", ["stop", "nobody", "--yes"], 'no run "nobody"'),
    Case("unknown run to pull", ["pull", "nobody"], 'no run "nobody"'),
    Case("no run yet", ["logs"], "no run yet"),
    Case("corrupt registry", ["ls"], "cannot be used", spoil=registry_of_rubbish),
    Case("corrupt registry, run", [*TOY, "--name", "x1"], "cannot be used", spoil=registry_of_rubbish),
    Case("runs", [*TOY, "--name", "x1"], "cannot be written", spoil=runs_is_a_file, left=("runs",)),
    Case("name taken", [*TOY, "--name", "taken"], "already exists", spoil=name_is_taken, left=("runs", "runs/taken")),
    Case("bad name", [*TOY, "--name", "../up"], "../up"),
    Case("no target", ["run", "--model", "3"], "say where to train"),
    Case("fault", [*TOY, "--fault", "quota:0"], "rehearsals"),
    Case("two targets", [*TOY, "--dry-run"], "exclude each other"),
    Case("no folder", ["run", "--local", "--job", "nowhere"], "there is no folder"),
    Case("no command", ["dance"], "dance"),
    Case("no flag", ["run", "--dance"], "--dance"),
]


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """This computer, empty."""
    (tmp_path / "cwd").mkdir()
    return Place("local", ["--local"], tmp_path / "home", tmp_path / "cwd")


def left(place: Place) -> set[str]:
    return {path.relative_to(place.cwd).as_posix() for path in place.cwd.rglob("*")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_said_in_a_line(here: Place, case: Case) -> None:
    case.spoil(here)
    done = here.cli(*case.argv, code=case.code)
    told = done.stderr.decode()
    assert done.stdout == b""
    errors = [line for line in told.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and case.said in errors[0], told
    assert len([line for line in told.splitlines() if line.startswith("hint:")]) == 1, told
    assert left(here) == set(case.left)


JSON = [case for case in CASES if case.argv[0] in ("run", "ls", "show", "stop", "pull", "logs")]


@pytest.mark.parametrize("case", JSON, ids=lambda case: case.name)
def test_bad_input_is_one_result_object_with_json(here: Place, case: Case) -> None:
    case.spoil(here)
    done = here.cli(*case.argv, "--json", code=case.code)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["type"], result["ok"], result["exit"]) == ("result", False, case.code)
    assert result["error"]["code"] and result["error"]["exit"] == case.code and result["error"]["hint"]
    assert case.said in result["error"]["message"]
    assert left(here) == set(case.left)


def test_ls_with_nothing_says_how_to_begin(here: Place) -> None:
    done = here.cli("ls")
    assert done.stdout == b"" and b"cloudtrain run" in done.stderr
    assert json.loads(here.cli("ls", "--json").stdout)["runs"] == []
    assert not left(here)


@pytest.mark.skipif(os.name == "nt", reason="the toy job ends by signals")
def test_a_data_folder_that_is_a_file_fails_the_training_by_name(here: Place, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    here.environment["CLOUDTRAIN_DATA"] = str(tmp_path / "data")
    done = here.cli("run", "--local", "--model", "3", "--epochs", "1", "--name", "no-data", "--yes", code=3)
    told = done.stderr.decode()
    assert len([line for line in told.splitlines() if line.startswith("error:")]) == 1, told
    assert "training failed" in told and str(tmp_path / "data") in told and "hint:" in told
    assert (tmp_path / "data").read_text() == "no folder"
    assert not here.processes("no-data")
