"""What every test gets: an empty cloudtrain home, no AWS account, no SSH configuration of the user's."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import settings

from tests import order

ROOT = Path(__file__).resolve().parent.parent

# Commands are started a thousand times: compiled once, as on a user's computer.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Several trainings at a time, beside all else: one thread each, and none that spins while it waits for another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that starts something in the background lets it ignore these, and what the tests start would inherit that:
# programs that are sent them as a terminal would send them.
for _name in ("SIGINT", "SIGHUP", "SIGQUIT"):
    if (_number := getattr(signal, _name, None)) is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _name == "SIGINT" else signal.SIG_DFL)


# The same inputs at each run, and no time limit that a busy computer breaks: a change is judged by what it changes.
# `python -m tests.hostile` tries others.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


# botocore's service descriptions, megabytes of JSON, are read once: not for each session that a test opens, nor for
# each of those that moto opens at its import. All loaders are one key of the cache.
_read: Any = JSONFileLoader
_read.__hash__ = lambda loader: 0
_read.__eq__ = lambda loader, other: isinstance(other, JSONFileLoader)
_read.load_file = functools.cache(JSONFileLoader.load_file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several workers at a time: those tests beside one another that do not want the same."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        modules = [item.path.relative_to(ROOT / "tests").as_posix() for item in items]
        items[:] = [items[number] for number in order.dealt(modules, workers)]


def pytest_collection_finish() -> None:
    """What was imported is here for good: no look for garbage goes through all of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees or touches the developer's own account, keys, settings or runs."""
    for name in list(os.environ):
        if name.startswith(("CLOUDTRAIN_", "AWS_", "SSH_")) and name != "CLOUDTRAIN_TEST_AWS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "cloudtrain-home"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of the real MNIST files, fetched once per checkout."""
    folder = ROOT / "data" / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".tests.lock", timeout=600):
        subprocess.run([sys.executable, "-m", "job.data", "--data", str(folder)], cwd=ROOT, check=True, timeout=600)
    return folder


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str, Callable[[Path], None]], Path]:
    """Folders that all workers share, such as the results of a training: the first that asks for one of a name fills
    it, others wait for that. They are not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder = shared / name
        with filelock.FileLock(f"{folder}.lock", timeout=600):
            if not (folder / "done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                (folder / "done").touch()
        return folder

    return make
