"""The scripts' own environment: made once, repaired when broken, and one clear message where it cannot be.

They run for real, with real virtual environments and the real pip, on a project of one file that needs no network.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose quick start has run; its folder's name is not a plain one."""
    project = make_project(tmp_path_factory.mktemp("clone") / "mein Täst")
    done = quickstart(project)
    assert done.returncode == 0, done.stderr
    assert "making .venv with Python" in done.stderr
    assert "install      done" in done.stderr
    assert done.stdout.startswith("run --model 3")
    return project


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The scripts' modules, importable for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "quickstart.py")])
    yield importlib.import_module("_bootstrap")
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == SCRIPTS:
            del sys.modules[name]


def test_the_second_call_starts_the_job_without_pip(installed: Path) -> None:
    log = installed / ".venv" / "install.log"
    written = log.stat().st_mtime_ns
    began = time.monotonic()
    done = quickstart(installed, "--model", "1", JOB_CODE="3")
    assert time.monotonic() - began < 20
    assert done.stdout.splitlines()[0].endswith("--model 1")
    assert done.returncode == 3
    assert "install" not in done.stderr
    assert log.stat().st_mtime_ns == written


def test_only_what_decides_on_packages_makes_pip_run_again(installed: Path) -> None:
    settings = installed / "pyproject.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("100", "120"), encoding="utf-8")
    assert "install" not in quickstart(installed).stderr
    settings.write_text(settings.read_text(encoding="utf-8").replace('"0.1.0"', '"0.1.1"'), encoding="utf-8")
    assert "install      done" in quickstart(installed).stderr


def test_two_at_once_take_turns(installed: Path) -> None:
    (installed / ".venv" / "cloudtrain-install.json").unlink()
    command = [sys.executable, "scripts/quickstart.py"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=installed, env=offline(), **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("install      done" in text for text in said) == [False, True]


def test_an_index_out_of_reach_is_named_and_the_next_call_repairs(installed: Path) -> None:
    (installed / ".venv" / "cloudtrain-install.json").unlink()
    failed = quickstart(installed, REQUIRES="nowhere-to-be-found")
    assert failed.returncode == 1
    assert "error: the package index cannot be reached" in failed.stderr
    assert "install.log" in failed.stderr
    assert "next: " in failed.stderr
    again = quickstart(installed)
    assert again.returncode == 0, again.stderr
    assert "making .venv anew: an installation was interrupted" in again.stderr


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
    assert "is there, and it is not a virtual environment" in done.stderr
    assert (project / ".venv" / "thesis.txt").read_text(encoding="utf-8") == "dear"


def test_a_python_without_ensurepip_is_told_apart(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    without = (
        "import runpy, sys; sys.path.insert(0, 'scripts'); sys.modules['ensurepip'] = None;"
        "sys.argv = ['scripts/quickstart.py']; runpy.run_path('scripts/quickstart.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", without], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot make virtual environments: it has no ensurepip" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / ".venv").exists()


def test_broken_environments_are_recognised(
    installed: Path, scripts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = {"state": "ready", "extras": ["local"], "folder": str(scripts.ROOT)}
    monkeypatch.setattr(scripts, "VENV", installed / ".venv")
    assert scripts._broken(stamp) is None
    assert scripts._broken({**stamp, "folder": "/elsewhere"}) == "it was made for another folder"
    (installed / "torch.py").rename(installed / "torch.off")
    assert scripts._broken(stamp) == "torch is missing from it"
    (installed / "torch.off").rename(installed / "torch.py")
    monkeypatch.setattr(scripts, "VENV", installed / "nowhere")
    assert scripts._broken(stamp) == "its Python does not start"


def test_an_old_python_is_told_what_to_do(scripts: ModuleType) -> None:
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


def test_a_disk_without_room_is_refused_before_anything_is_made(scripts: ModuleType) -> None:
    with pytest.raises(Exception, match=r"0\.4 GB are free on the disk of .*; PyTorch and the rest need 2\.5 GB"):
        scripts.check_disk(400_000_000, torch_is_there=False)
    scripts.check_disk(400_000_000, torch_is_there=True)
    scripts.check_disk(50_000_000_000, torch_is_there=False)


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/torch/\n"
            "ERROR: No matching distribution found for torch==2.13.0",
            "the package index cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "PyTorch has no build for this Python"),
        (
            "      ERROR: No matching distribution found for hatchling>=1.27",
            "the package index gave no hatchling>=1.27",
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "certificate was not accepted"),
        ("ERROR: [WinError 5] Access is denied: 'C:\\\\x'", "a file in .venv could not be written"),
        ("ERROR: something new", "pip failed"),
    ],
)
def test_what_pip_says_becomes_a_message(scripts: ModuleType, tmp_path: Path, printed: str, told: str) -> None:
    stop = scripts._pip.diagnose(printed.splitlines(), "pip failed", tmp_path / "install.log")
    assert told in stop.message
    assert "{" not in stop.message + stop.hint
    assert "python3 " in stop.hint or "py " in stop.hint


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Collecting torch==2.13.0", None),
        (
            "  Downloading torch-2.13.0-cp311-cp311-win_amd64.whl (532.4 MB)",
            "fetching torch 2.13.0 (532.4 MB)",
        ),
        ("  Downloading rich-15.0-py3-none-any.whl.metadata (18 kB)", "looking at rich 15.0"),
        (
            "Processing ./folder/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl (from x)",
            "fetching torch 2.13.0+cpu",
        ),
        ("Installing collected packages: a, b, c", "unpacking 3 packages"),
        ("WARNING: Location './wheels' is ignored: it is either a non-existing path or lacks a scheme.", None),
    ],
)
def test_the_progress_line_follows_pip(scripts: ModuleType, line: str, status: str | None) -> None:
    assert scripts._pip.reading(line) == status
