"""What a command does not need is not loaded: the command line answers before anybody wonders whether it hangs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    *("torch", "pydantic", "boto3", "botocore", "paramiko", "rich.live", "jinja2", "moto", "asyncssh", "filelock"),
    *("regex", "tensorboard", "google.protobuf"),
    *("cloudtrain.lifecycle.session", "cloudtrain.lifecycle.story", "cloudtrain.transfer.supervisor"),
)

PROGRAM = """
import atexit, sys
def tell():
    sys.stderr.write("loaded:" + ",".join(sorted(set(sys.modules) & set({heavy!r}))) + chr(10))
atexit.register(tell)
sys.argv = ["cloudtrain", *{argv!r}]
from cloudtrain.__main__ import main
main()
"""


def loaded(*argv: str, **environment: str) -> tuple[int, set[str], str]:
    """Exit code, heavy modules that were imported, and stdout of `cloudtrain ARGV`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY, argv=argv)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("loaded:")]
    assert len(told) == 1, done.stderr
    return done.returncode, set(told[0].removeprefix("loaded:").split(",")) - {""}, done.stdout


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["logs", "--help"], ["--version"], ["ls"], ["ls", "--json"], ["ls", "-q"]]
)
def test_light_commands_load_light_modules(argv: list[str]) -> None:
    code, modules, _ = loaded(*argv)
    assert code == 0
    assert not modules


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal as Unix has them")
def test_a_table_on_a_terminal_loads_light_modules() -> None:
    ours, theirs = os.openpty()
    program = PROGRAM.format(heavy=HEAVY, argv=["ls"])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, timeout=60
    )
    told = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, told[-1]) == (0, "loaded:")


def test_completion_of_a_command_loads_light_modules() -> None:
    code, modules, out = loaded(_CLOUDTRAIN_COMPLETE="complete_bash", COMP_WORDS="cloudtrain sh", COMP_CWORD="1")
    assert code == 0
    assert "show" in out.split()
    assert not modules


def test_no_option_of_ours_is_completed_for_another_program() -> None:
    told = {}
    for words in ("run --lo", "run train.py --l", "run --local -- python --l"):
        told[words] = loaded(
            _CLOUDTRAIN_COMPLETE="complete_bash", COMP_WORDS=f"cloudtrain {words}", COMP_CWORD=str(words.count(" ") + 1)
        )[2].split()
    assert "--local" in told.pop("run --lo") and not any(told.values())


def test_the_check_sees_what_is_loaded() -> None:
    program = PROGRAM.format(heavy=HEAVY, argv=["--version"]) + "import paramiko"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "loaded:paramiko" in done.stderr


def test_a_call_loads_the_modules_of_its_command_alone() -> None:
    program = "import sys; from cloudtrain.cli.app import app; app(['logs', '--help'], standalone_mode=False); "
    program += "print([name for name in sys.modules if name.startswith('cloudtrain.cli.')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    ours = {"app", "commands", "options", "signals", "values", "help", "logs"}
    imported = ast.literal_eval(done.stdout.splitlines()[-1])
    assert set(imported) == {f"cloudtrain.cli.{name}" for name in ours}
