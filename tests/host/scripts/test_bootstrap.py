"""The scripts' own environment: made once of what is locked, repaired when broken, or one clear message.

They run for real, with real virtual environments and the real pip, on a project of one file that needs no network.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "cloudtrain"
version = "0.1.0"
dependencies = [{dependencies}]

[project.optional-dependencies]
local = []
rehearse = []
dev = []

[tool.any]
line-length = 100
"""

# The smallest build backend: an editable wheel that puts the project's folder on the path.
BACKEND = """
import os, pathlib, time, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if "SLOW" in os.environ:
        pathlib.Path("building").touch()
        time.sleep(60)
    name = "cloudtrain-0.1.0-py3-none-any.whl"
    extras = "".join(f"Provides-Extra: {extra}\\n" for extra in ("local", "rehearse", "dev"))
    requires = "".join(f"Requires-Dist: {name}\\n" for name in os.environ.get("REQUIRES", "").split())
    info = "cloudtrain-0.1.0.dist-info/"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("cloudtrain.pth", os.getcwd())
        named = "Metadata-Version: 2.1\\nName: cloudtrain\\nVersion: 0.1.0\\n"
        wheel.writestr(info + "METADATA", named + extras + requires)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""

JOB = "import os, sys; print(*sys.argv[1:]); sys.exit(int(os.environ.get('JOB_CODE', '0')))"


def make_project(folder: Path) -> Path:
    """A repository with the real scripts and next to nothing to install."""
    shutil.copytree(SCRIPTS, folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for locked in (folder / "scripts" / "locked").iterdir():
        locked.write_text("", encoding="utf-8")
    (folder / "pyproject.toml").write_text(PYPROJECT.format(dependencies=""), encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    (folder / "cloudtrain").mkdir()
    (folder / "cloudtrain" / "__init__.py").touch()
    (folder / "cloudtrain" / "__main__.py").write_text(JOB, encoding="utf-8")
    for module in ("torch", "moto", "pytest"):
        (folder / f"{module}.py").touch()
    return folder


def offline(**more: str) -> dict[str, str]:
    """An environment in which pip can reach nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    # Port 9 of this computer: nothing listens there.
    index = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    return {**env, **index, **more}


def quickstart(project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "scripts/quickstart.py", *arguments],
        cwd=project,
        env=offline(**more),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "Traceback" not in done.stderr
    return done


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose quick start has run; its folder's name is not a plain one."""
    project = make_project(tmp_path_factory.mktemp("clone") / "mein Täst")
    done = quickstart(project)
    assert done.returncode == 0, done.stderr
    assert "made with Python" in done.stderr
    assert "packages     installed in" in done.stderr
    assert done.stdout.startswith("run --model 3")
    return project


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`_bootstrap`, importable for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("_bootstrap")
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(SCRIPTS)):
            del sys.modules[name]


def test_the_second_call_starts_the_job_without_pip(installed: Path) -> None:
    log = installed / ".venv" / "install.log"
    written = log.stat().st_mtime_ns
    began = time.monotonic()
    done = quickstart(installed, "--model", "1", JOB_CODE="3")
    assert time.monotonic() - began < 20
    assert done.stdout.splitlines()[0].endswith("--model 1")
    assert done.returncode == 3
    assert "packages" not in done.stderr
    assert log.stat().st_mtime_ns == written


def test_only_what_decides_on_packages_makes_pip_run_again(installed: Path) -> None:
    settings = installed / "pyproject.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("100", "120"), encoding="utf-8")
    assert "packages" not in quickstart(installed).stderr
    settings.write_text(settings.read_text(encoding="utf-8").replace('"0.1.0"', '"0.1.1"'), encoding="utf-8")
    assert "packages     installed" in quickstart(installed).stderr


def test_two_at_once_take_turns(installed: Path) -> None:
    (installed / ".venv" / "cloudtrain-install.json").unlink()
    command = [sys.executable, "scripts/quickstart.py"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=installed, env=offline(), **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("packages     installed" in text for text in said) == [False, True]


def test_an_index_out_of_reach_is_named_and_the_next_call_repairs(installed: Path) -> None:
    (installed / ".venv" / "cloudtrain-install.json").unlink()
    failed = quickstart(installed, REQUIRES="nowhere-to-be-found")
    assert failed.returncode == 1
    assert "error: the package index cannot be reached" in failed.stderr
    assert "install.log" in failed.stderr
    assert "next: " in failed.stderr
    again = quickstart(installed)
    assert again.returncode == 0, again.stderr
    assert ".venv        is made anew: an installation was interrupted" in again.stderr


def test_what_pip_says_of_a_failure_is_shown(installed: Path) -> None:
    (installed / ".venv" / "cloudtrain-install.json").unlink()
    failed = quickstart(installed, REQUIRES="nowhere-to-be-found", PIP_NO_INDEX="1")
    assert failed.returncode == 1
    assert "error: pip could not install cloudtrain[local,rehearse]" in failed.stderr
    assert "  | ERROR: No matching distribution found for nowhere-to-be-found" in failed.stderr
    log = installed / ".venv" / "install.log"
    assert f"log: {Path('.venv', 'install.log')}\nnext: see the log, then: " in failed.stderr
    assert "nowhere-to-be-found" in log.read_text(encoding="utf-8")


def test_a_package_that_is_not_the_locked_one_is_refused(installed: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "digits-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: digits\nVersion: 1.0\n"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("digits.py", "")
        made.writestr("digits-1.0.dist-info/METADATA", about)
        made.writestr("digits-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("digits-1.0.dist-info/RECORD", "")
    locked = installed / "scripts" / "locked" / "quickstart.txt"
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    try:
        locked.write_text(f"digits==1.0 \\\n    --hash=sha256:{'0' * 64}\n", encoding="utf-8")
        refused = quickstart(installed, **index)
        assert refused.returncode == 1 and "run --model 3" not in refused.stdout
        assert "error: pip could not install cloudtrain[local,rehearse]" in refused.stderr
        assert f"Got        {_sha256(wheel)}" in refused.stderr
        locked.write_text("digits==1.0\n", encoding="utf-8")
        assert quickstart(installed, **index).returncode == 1, "a package without a hash"
        locked.write_text(locked.read_text(encoding="utf-8").strip() + f" --hash=sha256:{_sha256(wheel)}\n", "utf-8")
        assert quickstart(installed, **index).returncode == 0
    finally:
        locked.write_text("", encoding="utf-8")


def test_an_environment_of_another_folder_is_made_anew(installed: Path) -> None:
    stamp = installed / ".venv" / "cloudtrain-install.json"
    said = json.loads(stamp.read_text(encoding="utf-8"))
    stamp.write_text(json.dumps({**said, "state": "ready", "folder": "/elsewhere"}), encoding="utf-8")
    moved = quickstart(installed)
    assert "made anew: it is of another Python or another folder" in moved.stderr and moved.returncode == 0


def test_an_interpreter_that_is_gone_is_noticed(
    installed: Path, bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "VENV", installed / ".venv")
    assert bootstrap._starts()
    monkeypatch.setattr(bootstrap, "VENV", installed / "nowhere")
    assert not bootstrap._starts()


@pytest.mark.skipif(os.name == "nt", reason="a test cannot press Ctrl-C for another process group there")
def test_ctrl_c_is_clean(installed: Path) -> None:
    (installed / ".venv" / "cloudtrain-install.json").unlink()
    process = subprocess.Popen(
        [sys.executable, "scripts/quickstart.py"],
        cwd=installed,
        env=offline(SLOW="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Started in the background of a shell, the tests themselves may ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not (installed / "building").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "stopped; to go on: python3 scripts" in said
    assert "Traceback" not in said


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    (project / ".venv").mkdir()
    (project / ".venv" / "thesis.txt").write_text("dear", encoding="utf-8")
    done = quickstart(project)
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert (project / ".venv" / "thesis.txt").read_text(encoding="utf-8") == "dear"


def test_what_venv_says_of_a_failure_is_shown_and_its_rest_is_not_used(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    # In the place of the library's, as where Debian has split ensurepip off.
    (project / "venv.py").write_text("import sys; print('apt install python3-venv'); sys.exit(1)", encoding="utf-8")
    failed = quickstart(project)
    assert failed.returncode == 1
    assert "error: .venv could not be made\n  | apt install python3-venv\n" in failed.stderr
    stamp = json.loads((project / ".venv" / "cloudtrain-install.json").read_text(encoding="utf-8"))
    assert stamp == {"state": "installing"}


def test_an_old_python_is_told_what_to_do(bootstrap: ModuleType) -> None:
    check = importlib.import_module("_require_python")
    assert check.complaint((3, 11, 0), "x.py") is None
    text = check.complaint((3, 9, 6, "final", 0), "scripts/quickstart.py", "python3.12")
    assert text == (
        "error: this is Python 3.9.6, and cloudtrain needs 3.11 or newer\nnext: python3.12 scripts/quickstart.py"
    )
    assert "install" in check.complaint((3, 8, 1), "scripts/quickstart.py")


@pytest.mark.parametrize("name", ["quickstart.py", "test.py", "check.py", "_require_python.py"])
def test_an_old_python_gets_as_far_as_the_check(name: str) -> None:
    tree = ast.parse((SCRIPTS / name).read_text(encoding="utf-8"), feature_version=(3, 6))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    first_own = next(
        (alias.name for node in imports for alias in node.names if (SCRIPTS / f"{alias.name}.py").exists()), None
    )
    assert name == "_require_python.py" or first_own == "_require_python"
