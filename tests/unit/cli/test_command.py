"""`cloudtrain run COMMAND`: where cloudtrain's own options end, and what becomes of the words after them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.cli import app as command_line
from cloudtrain.cli import beginning, request
from cloudtrain.cli.commands import COMMANDS, before_command, valued
from cloudtrain.config import settings
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.store import Store


@pytest.mark.parametrize(
    ("typed", "own"),
    [
        ("--local train.py --json", "--local"),
        ("-i g4dn.xlarge train.py --lr 3e-4 --no-color", "-i g4dn.xlarge"),
        (
            "--instance g4dn.xlarge --spot -y --json -- python train.py --json",
            "--instance g4dn.xlarge --spot -y --json",
        ),
        ("--seed=2 -m3 --no-color --plan x --plain", "--seed=2 -m3 --no-color --plan"),
        ("--name --json train.py", "--name --json"),
        ("--local --json", "--local --json"),
        ("-dm 3 --no-input train.py --json", "-dm 3 --no-input"),
        ("-yi g4dn.xlarge --json train.py -h", "-yi g4dn.xlarge --json"),
        ("-h", "-h"),
        ("-m 3 -h train.py -h", "-m 3 -h"),
        ("train.py -h", ""),
        ("", ""),
    ],
)
def test_the_options_end_where_the_command_begins(typed: str, own: str) -> None:
    assert before_command(typed.split(), valued(COMMANDS["run"].load("run").params)) == own.split()


def test_options_of_the_program_reach_it_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[str, ...]] = []
    monkeypatch.setattr(beginning, "run", lambda flags, given, words: got.append((flags.json, *words)) or 0)
    for typed in ("--local train.py --json --no-input --help -h", "--local -- train.py --json --no-input --help -h"):
        monkeypatch.setattr("sys.argv", ["cloudtrain", "run", *typed.split()])
        assert command_line.run() == 0
    assert got == [(False, "train.py", "--json", "--no-input", "--help", "-h")] * 2


def built(folder: Path, words: str, monkeypatch: pytest.MonkeyPatch, **given: object) -> JobSpec:
    monkeypatch.chdir(folder)
    found = settings.load(given, environment={})
    place = {"local": True, "host": None, "host_key": None, "instance_id": None, "dry_run": False}
    store = Store(folder / "registry.sqlite")
    return request.build(found, store, name="a", **place, faults=(), words=tuple(words.split())).job


def test_a_command_runs_in_its_project_at_the_place_where_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "project" / "examples"
    here.mkdir(parents=True)
    (here.parent / "cloudtrain.toml").write_text(
        '[job]\ncommand = "python train.py"\nenv = "host"\nresults = ["out/**"]\nresume = ["--resume"]\n'
        "vars = { A = \"1\" }\n[job.figures]\nval_loss = 'val loss ([0-9.]+)'\n"
    )
    job = built(here, "python eval.py --lr 1", monkeypatch)
    assert (job.source, job.cwd) == (str(here.parent), "examples")
    assert job.command == ("python", "eval.py", "--lr", "1") and not job.shipped and job.line == "python eval.py --lr 1"
    assert (job.environment, job.outputs, job.resume_args) == ("host", ("out/**",), ("--resume",))
    assert job.vars == {"A": "1"} and job.figures == {"val_loss": "val loss ([0-9.]+)"}
    # The project's own command runs in the project, with what is added to it.
    job = built(here, "--lr 2", monkeypatch)
    assert (job.source, job.cwd, job.command) == (str(here.parent), "", ("python", "train.py", "--lr", "2"))
    assert built(here, "nb/a.ipynb", monkeypatch, packages=["numpy"]).packages == ("numpy", "papermill", "ipykernel")


def test_without_a_command_the_words_are_arguments_of_the_program_that_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = built(tmp_path, "--subset 6000", monkeypatch)
    assert job.shipped and not job.command and not job.cwd


def test_flags_of_the_shipped_program_are_refused_beside_a_command() -> None:
    with pytest.raises(UsageError, match="--epochs and --job are for the training program that comes along") as caught:
        request.refuse_with_command(("train.py",), {"epochs": 3, "job": "x", "seed": None, "packages": ["a"]})
    assert caught.value.code == "not_with_command"
    request.refuse_with_command(("--subset",), {"epochs": 3})


@pytest.mark.parametrize(
    ("typed", "run", "words"),
    [
        ("-- nvidia-smi -L", "", ["nvidia-smi", "-L"]),
        ("--yes -- ls -- x", "", ["ls", "--", "x"]),
        ("run1 -- ls", "run1", ["ls"]),
        ("run1", "run1", []),
        ("", None, []),
    ],
)
def test_what_ssh_runs_is_no_runs_name(typed: str, run: str | None, words: list[str]) -> None:
    context = COMMANDS["ssh"].load("ssh").make_context("ssh", typed.split())
    assert (context.params["run"], context.args) == (run, words)
