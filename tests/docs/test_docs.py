"""Every command that the pages for readers show is run by a test, and each one they only mention exists."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from cloudtrain.cli.app import app
from cloudtrain.core.told import read_events
from cloudtrain.emulator.aws.core import Timing
from tests.docs import shown
from tests.docs.shown import PAGES, ROOT, Session
from tests.made import MadeRun
from tests.region.whole_path.place import JOBS, Place

GUIDE = "docs/guide.md"
OWN_JOB = "docs/your-own-job.md"
# Run here: the job of that page, as it is shown.
OWN = "cloudtrain run --job my_digits --local --yes -- --epochs 2"
# Commands that are run here, one after the other in one folder, as a reader would.
TOUR = [
    "cloudtrain run --model 3 --local --plan",
    "cloudtrain run --model 3 --local --epochs 1 --yes",
    "cloudtrain ls",
    "cloudtrain show",
    "cloudtrain logs",
    "cloudtrain pull",
    "cloudtrain verify",
    "cloudtrain report --format md --out RESULTS.md",
]
REHEARSAL = "cloudtrain run --model 3 --instance g4dn.xlarge --dry-run --epochs 1 -- --subset 6000"
# Run here, in this order, against an emulated account.
AWS = [
    "cloudtrain doctor --instance g4dn.xlarge",
    "cloudtrain run --model 3 --instance g4dn.xlarge --plan",
    "cloudtrain ls --remote",
    "cloudtrain stop brave-otter",
    "cloudtrain clean --all-regions",
]
OWN_PROGRAM = "tests/docs/test_own_program.py::"
PROGRAMS = "tests/programs/test_programs.py::test_what_it_leaves_here_comes_back_from_everywhere"
# Run here, in this order, in an emulated account.
MANY = [
    "cloudtrain run --instance g4dn.xlarge --keep 30m --name first -- python train.py",
    "cloudtrain run --on first --keep 30m --name second -- python train.py --lr 0.01",
    "cloudtrain stop second",
]
# Command -> the test that runs it.
ELSEWHERE = {
    "python3 scripts/quickstart.py": "tests/host/scripts/test_bootstrap.py::"
    "test_the_second_call_starts_the_job_without_pip",
    "python3 scripts/check.py": "tests/host/scripts/test_check.py::test_all_stages_run_and_the_first_failure_counts",
    "python3 scripts/test.py unit": "tests/host/scripts/test_check.py::"
    "test_a_word_runs_one_folder_of_the_tests_after_the_checks",
    "python3 scripts/test.py": "tests/host/scripts/test_check.py::"
    "test_continuous_integration_runs_what_a_contributor_runs",
    "python3 scripts/packages.py lock": "tests/host/scripts/test_packages.py::test_a_lock_leaves_torch_out",
    "python3 scripts/packages.py audit": "tests/host/scripts/test_packages.py::"
    "test_an_audit_that_learned_nothing_does_not_say_that_all_is_well",
    "aws login": "tests/region/whole_path/test_ec2_commands.py::test_doctor_without_credentials_says_how_to_sign_in",
    "cloudtrain doctor": "tests/region/whole_path/test_ec2_commands.py::"
    "test_doctor_without_credentials_says_how_to_sign_in",
    "cloudtrain instances --gpu T4": "tests/region/whole_path/test_ec2_commands.py::"
    "test_instances_lists_types_with_price_quota_and_zones",
    "cloudtrain run --model 3 --instance g4dn.xlarge --dry-run": "tests/region/whole_path/test_rehearsal.py::"
    "test_from_nothing_to_an_inventory_of_zero",
    "cloudtrain run --model 3 --instance g4dn.xlarge": "tests/region/whole_path/test_story.py::"
    "test_a_run_from_start_to_end",
    "cloudtrain run --model 3 --instance g4dn.xlarge --max-cost 0.25": "tests/region/whole_path/test_story.py::"
    "test_a_run_from_start_to_end",
    "cloudtrain run --model 3 --local --yes": "tests/region/whole_path/test_real_mnist.py::"
    "test_every_result_is_there_and_right",
    "cloudtrain run --model 3 --local --yes --json | tail -n 1": "tests/region/whole_path/test_story.py::"
    "test_json_is_one_object_a_line_and_one_result_last",
    "cloudtrain run --resume brave-otter": "tests/region/whole_path/test_resume.py::"
    "test_a_stopped_run_goes_on_in_mid_epoch",
    "cloudtrain run --resume brave-otter --local": "tests/region/whole_path/test_spot.py::"
    "test_without_restarts_it_ends_interrupted_and_goes_on_by_hand",
    "cloudtrain ls --refresh": "tests/region/whole_path/test_watching.py::"
    "test_a_run_that_was_left_is_listed_as_its_machine_says",
    "cloudtrain logs brave-otter": "tests/region/whole_path/test_story.py::test_detach_and_come_back",
    "cloudtrain logs brave-otter -n 20 --no-follow": "tests/unit/cli/test_logs.py::"
    "test_the_last_lines_are_the_last_of_the_host",
    "cloudtrain logs brave-otter --epochs": "tests/region/whole_path/test_everyday.py::"
    "test_the_epochs_of_a_run_and_its_raw_log",
    "cloudtrain wait brave-otter": "tests/region/whole_path/test_everyday.py::"
    "test_wait_takes_detached_runs_to_their_ends",
    "cloudtrain run --local -- python train.py --epochs 2": OWN_PROGRAM + "test_a_script_with_requirements",
    "cloudtrain run --instance g4dn.xlarge -- python train.py --epochs 20": PROGRAMS,
    "cloudtrain run --local -- torchrun --standalone --nproc_per_node=2 multigpu.py 2 1": PROGRAMS,
    "cloudtrain run --instance g4dn.12xlarge -- torchrun --standalone --nproc_per_node=gpu multigpu.py 50 1": PROGRAMS,
    "cloudtrain run --local -- digits.ipynb": OWN_PROGRAM + "test_a_notebook",
    "cloudtrain run --instance g4dn.xlarge -- digits.ipynb -p epochs 20": PROGRAMS,
    "cloudtrain run --local -- python train.py fit --trainer.max_epochs 2": OWN_PROGRAM + "test_lightning_goes_on",
    "cloudtrain run --instance g4dn.xlarge -- python train.py fit --trainer.max_epochs 20": PROGRAMS,
    "cloudtrain run --local -- bash train.sh": OWN_PROGRAM + "test_a_project_with_a_dockerfile",
    "cloudtrain run --instance g4dn.xlarge -- bash train.sh": PROGRAMS,
    "cloudtrain compare brave-otter dry-finch": "tests/host/report/test_commands.py::"
    "test_a_copied_folder_is_reported_and_compared",
    "cloudtrain export --to tensorboard": "tests/host/report/test_export.py::test_tensorboard_reads_the_epochs",
    "python -m job.train --model 3 --epochs 1": "tests/docs/test_docs.py::test_the_training_package_works_on_its_own",
}
# Not for a program to type.
SHELL = {". .venv/bin/activate"}


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """A folder as a run of 15 epochs leaves it."""
    return MadeRun(tmp_path / "runs" / "brave-otter")


GROUP = typer.main.get_command(app)


def test_every_command_is_run_by_a_test() -> None:
    commands = [command for page in PAGES for command in shown.fenced(page)]
    claimed = {*TOUR, REHEARSAL, OWN, *AWS, *MANY, *ELSEWHERE, *SHELL}
    assert len(commands) > 30
    assert sorted(set(commands) - claimed) == [], "commands that no test runs"
    assert sorted(claimed - set(commands)) == [], "no longer shown"
    for test in ELSEWHERE.values():
        path, name = test.split("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"there is no {test}"


# --- what is only mentioned exists, too


def why_not(argv: list[str], *, whole: bool) -> str | None:
    """Why `cloudtrain ARGV` cannot be typed; None if it can. Nothing is run.

    Args:
        whole: arguments that a command needs must be there.
    """
    group, name = GROUP, "cloudtrain"
    while argv and not argv[0].startswith("-") and hasattr(group, "commands"):
        if argv[0].isupper():  # "cloudtrain COMMAND --help"
            return None
        if argv[0] not in group.commands:
            return f"there is no {name} {argv[0]}"
        group, name, argv = group.commands[argv[0]], f"{name} {argv[0]}", argv[1:]
    try:
        group.make_context(name, [word for word in argv if word != "--help"])
    except typer.Exit:
        return None  # such as --version
    except Exception as error:
        missing = str(error).endswith("is missing") or type(error).__name__ == "NoArgsIsHelpError"
        return None if missing and not whole else f"{type(error).__name__}: {error}"
    return None


def test_a_command_that_cannot_be_typed_is_found_out() -> None:
    assert why_not(["run", "--model", "3", "--", "--whatever"], whole=True) is None
    for argv in (["runn"], ["run", "--modle", "3"], ["run", "--model", "three"], ["ls", "extra"], ["compare"]):
        assert why_not(argv, whole=True), argv
    assert why_not(["compare"], whole=False) is None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists_with_its_options(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {}
    for command, whole in [(c, True) for c in shown.fenced(page)] + [(c, False) for c in shown.mentioned(page)]:
        program, *argv = shown.words(command) or [""]
        if program == "cloudtrain" and argv:
            wrong[command] = why_not(argv, whole=whole)
        elif program == "python" and argv[:1] == ["-m"] and "".join(argv[1:2]).startswith("tests."):
            place = ROOT / argv[1].replace(".", "/")
            there = place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
            wrong[command] = None if there else "there is no such program"
        elif program in ("python", "python3", "py") and argv and "scripts" in argv[0]:
            script = argv[0].replace("\\", "/")
            wrong[command] = None if (ROOT / script).is_file() else "there is no such script"
            if script.endswith("quickstart.py") and len(argv) > 1:
                wrong[command] = why_not(["run", *argv[1:]], whole=True)
    assert {command: why for command, why in wrong.items() if why} == {}


def examples_of(group: Any) -> Iterator[str]:
    yield from (group.epilog or "").splitlines()
    for command in getattr(group, "commands", {}).values():
        yield from examples_of(command)


def test_every_example_of_the_help_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    examples = [*examples_of(GROUP)]
    assert len(examples) > 30 and "cloudtrain config show --origin" in examples
    wrong = {line: why_not(shown.words(line)[1:], whole=True) for line in examples}
    assert {line: why for line, why in wrong.items() if why} == {}


def options_of(group: object) -> Iterator[str]:
    for parameter in group.params:  # type: ignore[attr-defined]
        yield from (*parameter.opts, *parameter.secondary_opts)
    for command in getattr(group, "commands", {}).values():
        yield from options_of(command)


def test_every_option_that_is_named_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from job import options

    known = {*options_of(GROUP), "--help"}
    add = argparse.ArgumentParser.add_argument

    def noted(parser: argparse.ArgumentParser, *flags: str, **about: object) -> object:
        known.update(flags)
        return add(parser, *flags, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", noted)
    options.parse([])
    # Those of the verbs on the host, off the table that they are read by.
    for path in (ROOT / "cloudtrain" / "onhost").glob("*.py"):
        known.update(f"--{name}" for name in re.findall(r'"([a-z]+)": \(', path.read_text(encoding="utf-8")))
    named = {
        (page, flag)
        for page in PAGES
        for span in shown.mentioned(page)
        if span.startswith("--")
        for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", span)
    }
    assert len(named) > 20
    assert {(page, flag) for page, flag in named if flag not in known} == set()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, target


# --- and those that are shown work


def session(page: str, command: str) -> Session:
    (found,) = [one for one in shown.sessions(page) if one.command == command]
    return found


def run(place: Place, command: str, *further: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Run a command as it is shown."""
    program, *argv = shown.words(command)
    assert program == "cloudtrain"
    return place.cli(*argv, *further, code=code, timeout=300)


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour(tmp_path: Path, mnist: Path) -> None:
    folder = tmp_path / "my digits"
    folder.mkdir()
    # A few of the pictures: that the whole set trains is shown by tests/region/whole_path/test_real_mnist.py.
    (folder / "cloudtrain.toml").write_text('args = ["--subset", "600"]\n', encoding="utf-8")
    place = Place("local", [], tmp_path / "home", folder, {"CLOUDTRAIN_DATA": str(mnist)})
    try:
        done = {command: run(place, command) for command in TOUR}
        assert not list(folder.glob("runs/*/exit*"))
        (kept,) = (folder / "runs").iterdir()
        told = re.search(r"In the folder `runs/NAME/`.*?```text\n(.*?)```", PAGES["README.md"], flags=re.DOTALL)
        assert told
        listed = {line.split()[0] for line in told[1].splitlines()} - {"env/gpu.txt"}  # no GPU here
        assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == listed

        assert kept.name in done["cloudtrain ls"].stdout.decode()
        assert kept.name in done["cloudtrain show"].stdout.decode()
        assert b"Best Test Accuracy" in done["cloudtrain logs"].stdout
        assert (folder / "RESULTS.md").read_text(encoding="utf-8").startswith("# Model 3\n\n### Targets:\n")
        # The plan alone started nothing: one run, not two.
        assert done["cloudtrain ls"].stdout.count(b"this computer") == 1

        if sys.platform != "win32":
            printed = run(place, REHEARSAL, "--subset", "600").stderr.decode()
            (rehearsed,) = set((folder / "runs").iterdir()) - {kept}
            printed = printed.replace(f"{folder}{os.sep}", "").replace(rehearsed.name, "brave-otter")
            assert shown.strange(session(GUIDE, REHEARSAL), printed) == [], printed
    finally:
        place.cleanup()


@pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")
def test_the_commands_that_ask_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moto")
    from cloudtrain.cli.app import run as typed
    from cloudtrain.emulator.region import Region

    def printed(command: str, code: int = 0) -> str:
        """What a command prints that only looks: it needs no process of its own."""
        monkeypatch.setattr(sys, "argv", shown.words(command))
        assert typed() == code, capsys.readouterr()
        out, err = capsys.readouterr()
        return out + err

    def entered(region: Region) -> Place:
        place = Place("emulated", [], tmp_path / "home", tmp_path, region.environment())
        for key, value in place.env().items():
            monkeypatch.setenv(key, value)
        monkeypatch.chdir(place.cwd)
        return place

    done, (doctor, plan, remote, stop, clean) = {}, AWS
    with Region(tmp_path / "new", script=["quota:0"]) as region:  # as the guide's reader meets it
        entered(region)
        done[doctor] = printed(doctor, code=5)
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as region:
        place = entered(region)
        try:
            done[plan] = printed(plan)
            toy = ("--job", str(JOBS / "toy"), "--name", "brave-otter", "--", "--pause", "0.3", "--epochs", "999")
            place.cli("run", "--instance", "g4dn.xlarge", "--yes", "-d", *toy)
            done[remote] = printed(remote)
            ended = run(place, stop, "--yes")
            done[stop] = ended.stderr.decode()
            done[clean] = printed(clean)
            assert not any(region.inventory().values())
        finally:
            place.cleanup()
    for command, told in done.items():
        planned = re.search(r"Plan for (\S+)", told)
        told = told.replace(f"{place.cwd}{os.sep}", "").replace(planned[1] if planned else "brave-otter", "brave-otter")
        assert shown.strange(session(GUIDE, command), told) == [], told


@pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")
def test_the_guide_to_many_runs(tmp_path: Path) -> None:
    pytest.importorskip("moto")
    from cloudtrain.emulator.region import Region

    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as region:
        place = Place.in_account(region, tmp_path)
        (place.cwd / "train.py").write_text("import sys\nprint(*sys.argv[1:], flush=True)\n", encoding="utf-8")

        def typed(command: str, *flags: str) -> str:
            _, verb, *rest = shown.words(command)
            return place.cli(verb, *flags, *rest).stderr.decode()

        first, second, stop = MANY
        try:
            typed(first, "--yes")
            # A plan for another machine of the type says that this one is up.
            assert "cloudtrain run --on first --model 3 --instance g4dn.xlarge --plan" in typed(AWS[1])
            assert "taken over, nothing is launched" in typed(second, "--yes")
            assert len(region.calls("RunInstances")) == 1
            typed(stop, "--yes")
            assert (place.folder("second") / "console.log").read_text() == "--lr 0.01\n"
            assert not any(region.inventory().values())
        finally:
            place.cleanup()


@pytest.mark.skipif(sys.platform == "win32", reason="lines of a console end otherwise there")
def test_a_job_of_your_own(tmp_path: Path) -> None:
    """The page's program runs as it stands: what it prints, tells and writes comes down."""
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGES[OWN_JOB], flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "my_digits").mkdir()
    (tmp_path / "my_digits" / "train.py").write_text(program, encoding="utf-8")
    place = Place("local", [], tmp_path / "home", tmp_path)
    try:
        run(place, OWN)
        (folder,) = (tmp_path / "runs").iterdir()
        assert (folder / "console.log").read_text(encoding="utf-8") == "epoch 1: loss 1.000\nepoch 2: loss 0.500\n"
        assert [event["epoch"] for event in read_events(folder / "events.jsonl")] == [1, 2]
        assert (folder / "weights.json").read_text(encoding="utf-8") == '{"loss": 0.5}'
        assert "weights.json" in (folder / "SHA256SUMS").read_text(encoding="utf-8")
        assert (folder / "report.html").is_file()
    finally:
        place.cleanup()


def test_the_way_into_mlflow(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which figures are handed over; MLflow itself is no package of the tests."""
    mlflow, calls = ModuleType("mlflow"), []
    for name in ("log_params", "log_metrics", "log_artifacts"):
        setattr(mlflow, name, lambda *args, name=name, **named: calls.append((name, *args, named)))
    setattr(mlflow, "start_run", lambda run_name: nullcontext(calls.append(("start_run", run_name))))  # noqa: B010
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    (lines,) = re.findall(r"```python\n(.*?import mlflow.*?)```", PAGES[GUIDE], flags=re.DOTALL)
    exec(lines.replace('"brave-otter"', repr(str(made.write()))), {})
    assert calls[0] == ("start_run", "brave-otter") and calls[1][1]["seed"] == 1
    assert [call[2] for call in calls if call[0] == "log_metrics"] == [{"step": epoch} for epoch in range(1, 16)]
    assert calls[-2][1]["test_acc"] == 99.43 and calls[-1][1] == str(made.folder)


def test_what_is_shown_and_never_printed_is_found_out() -> None:
    real = "12:00:01 ok   sync 33 files, 74 KiB sent 0.2 s\nok    aws  account ...9012, environment\n"
    good = Session("x", ("ok   sync 34 files, 76 KiB sent 0.1 s", "ok aws account ...1111, environment", "...", ""))
    assert shown.strange(good, real) == []
    assert shown.strange(replace(good, output=("ok   sink 34 files",)), real) == ["ok   sink 34 files"]


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_training_package_works_on_its_own(tmp_path: Path, mnist: Path) -> None:
    pytest.importorskip("torch")
    _, *argv = shown.words("python -m job.train --model 3 --epochs 1")
    # Few of the images: that the whole set trains is shown elsewhere.
    done = subprocess.run(
        [sys.executable, *argv, "--subset", "600", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CLOUDTRAIN_DATA": str(mnist), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Results:" in done.stdout
    assert (tmp_path / "out" / "weights" / "best.pt").is_file()
