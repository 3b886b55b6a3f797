"""What the README shows works: every command is run by a test, every list is the real one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cloudtrain.cli.app import app
from cloudtrain.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """All commands that the README shows: the lines of sh blocks, and what follows `$ ` in the others."""
    found = []
    for language, block in FENCED:
        for line in block.splitlines():
            if language == "sh" or line.strip().startswith("$ "):
                command = line.strip().removeprefix("$ ").split("#")[0].strip()
                found += [command] if command else []
    return found


# Commands that are run here, one after the other in one folder, as a reader would.
TOUR = [
    "cloudtrain run --model 3 --local --plan",
    "cloudtrain run --model 3 --local --epochs 1 --yes",
    "cloudtrain ls",
    "cloudtrain show",
    "cloudtrain logs",
    "cloudtrain pull",
    "cloudtrain report --format md --out RESULTS.md",
]
# Command -> the test that runs it.
ELSEWHERE = {
    "python3 scripts/quickstart.py": "tests/scripts/test_bootstrap.py::test_the_second_call_starts_the_job_without_pip",
    "python3 scripts/check.py": "tests/scripts/test_check.py::test_all_stages_run_and_the_first_failure_counts",
    "python3 scripts/test.py": "tests/scripts/test_check.py::test_continuous_integration_runs_what_a_contributor_runs",
    "cloudtrain run --model 3 --instance g4dn.xlarge --dry-run": "tests/whole_path/test_rehearsal.py::"
    "test_from_nothing_to_an_inventory_of_zero",
    "cloudtrain doctor --instance g4dn.xlarge": "tests/whole_path/test_ec2_commands.py::"
    "test_doctor_finds_a_good_account_good",
    "cloudtrain instances --gpu T4": "tests/whole_path/test_ec2_commands.py::"
    "test_instances_lists_types_with_price_quota_and_zones",
    "cloudtrain run --model 3 --instance g4dn.xlarge --plan": "tests/whole_path/test_ec2_commands.py::"
    "test_the_plan_names_price_limit_and_who_ends_it",
    "cloudtrain run --model 3 --instance g4dn.xlarge": "tests/whole_path/test_story.py::test_a_run_from_start_to_end",
    "cloudtrain run --resume brave-otter": "tests/whole_path/test_resume.py::test_a_stopped_run_goes_on_in_mid_epoch",
    "cloudtrain run --resume brave-otter --local": "tests/whole_path/test_spot.py::"
    "test_without_restarts_it_ends_interrupted_and_goes_on_by_hand",
    "cloudtrain compare brave-otter dry-finch": "tests/report/test_commands.py::"
    "test_a_copied_folder_is_reported_and_compared",
    "cloudtrain export --to onnx": "tests/report/test_exports.py::test_onnx_is_one_file_that_answers_as_the_original",
    "python -m job.train --model 3 --epochs 1": "tests/test_readme.py::test_the_training_package_works_on_its_own",
}


def test_every_command_is_run_by_a_test() -> None:
    unclaimed = [command for command in commands() if command not in TOUR and command not in ELSEWHERE]
    assert not unclaimed, "commands of README.md that no test runs: " + "; ".join(unclaimed)
    unshown = [command for command in [*TOUR, *ELSEWHERE] if command not in commands()]
    assert not unshown, "no longer in README.md: " + "; ".join(unshown)
    for test in ELSEWHERE.values():
        path, name = test.split("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"there is no {test}"


def run(command: str, folder: Path, mnist: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command of the README in `folder`, with this checkout's package and data."""
    program, *arguments = shlex.split(command)
    assert program in ("cloudtrain", "python")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CLOUDTRAIN_DATA": str(mnist), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *(["-m", "cloudtrain"] if program == "cloudtrain" else []), *arguments],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=limit_s,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tour(tmp_path: Path, mnist: Path) -> None:
    folder = tmp_path / "my digits"
    folder.mkdir()
    seen = {command: run(command, folder, mnist, 1200) for command in TOUR}

    assert not list(folder.glob("runs/*/exit*"))
    (kept,) = (folder / "runs").iterdir()
    shown = re.search(r"In the folder `runs/NAME/`.*?```text\n(.*?)```", README, flags=re.DOTALL)
    assert shown
    listed = {line.split()[0] for line in shown[1].splitlines()} - {"env/gpu.txt"}  # no GPU here
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == listed

    assert kept.name in seen["cloudtrain ls"].stdout
    assert kept.name in seen["cloudtrain show"].stdout
    assert "Best Test Accuracy" in seen["cloudtrain logs"].stdout
    assert (folder / "RESULTS.md").read_text(encoding="utf-8").startswith("# Model 3\n\n### Targets:\n")
    # The plan alone started nothing: one run, not two.
    assert seen["cloudtrain ls"].stdout.count("this computer") == 1


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_training_package_works_on_its_own(tmp_path: Path, mnist: Path) -> None:
    shown = "python -m job.train --model 3 --epochs 1"
    # A tenth of the images: that the whole set trains is shown by the tour.
    done = run(f"{shown} --subset 6000 --out out", tmp_path, mnist, 1200)
    assert "Results:" in done.stdout
    assert (tmp_path / "out" / "weights" / "best.pt").is_file()


def rows(title: str) -> dict[str, str]:
    """The table below a heading: first cell -> second cell."""
    section = README.split(f"# {title}\n", 1)[1].split("\n#", 1)[0]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {row[0]: row[1] for row in cells[2:]}


def test_the_table_of_commands_is_complete_and_each_has_help() -> None:
    group = typer.main.get_command(app)
    known = {name: command for name, command in group.commands.items() if not command.hidden}  # type: ignore[attr-defined]
    assert {row.split()[0] for row in rows("Commands")} == set(known)
    assert all(command.help for command in known.values())


def test_the_table_of_exit_codes_is_complete() -> None:
    assert {int(code) for code in rows("Exit codes")} == {int(code) for code in ExitCode}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_tree_shows_what_is_there() -> None:
    tree = README.split("## What is where", 1)[1].split("```")[1]
    room = ""
    for line in tree.splitlines()[1:]:
        names = [part for part in line.split("  ")[0 if not line.startswith("  ") else 1].split() if part]
        if not line.startswith(" "):
            room = names[0]
            assert (ROOT / room).is_dir(), room
        else:
            assert all((ROOT / room / name).exists() for name in names), line
