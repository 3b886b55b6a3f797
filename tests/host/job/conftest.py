"""Runs of the real job, in processes of their own (`tests/commands.py`), on the real data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import pytest

from tests import commands

ROOT = commands.ROOT
SMALL = ("--subset", "900", "--device", "cpu")


@dataclass
class Job:
    """One run of `python -m job.train`: `out` is its results folder, `log` its stdout and stderr together."""

    out: Path
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def events_path(self) -> Path:
        return self.out.parent / f"{self.out.name}.events.jsonl"

    @property
    def log_path(self) -> Path:
        return self.out.parent / f"{self.out.name}.log"

    @property
    def log(self) -> str:
        return self.log_path.read_bytes().decode()

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        if not self.events_path.exists():
            return []
        lines = self.events_path.read_bytes().split(b"\n")[:-1]
        found = [json.loads(line) for line in lines]
        return [event for event in found if kind in (None, event["kind"])]

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text(encoding="utf-8"))

    def rows(self) -> list[dict[str, Any]]:
        """metrics.jsonl without what no two runs share: times."""
        lines = (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        clocks = ("t", "seconds", "train_seconds")
        return [{key: value for key, value in json.loads(line).items() if key not in clocks} for line in lines]

    @property
    def environment(self) -> dict[str, str]:
        places = {"CLOUDTRAIN_OUT": str(self.out), "CLOUDTRAIN_EVENTS": str(self.events_path)}
        return {**os.environ, **commands.EXPECTED, **places, **self.env}

    def start(self, *, real: bool = False) -> commands.AnyCommand:
        """`real`: an interpreter that begins with nothing imported."""
        with self.log_path.open("wb") as log:
            if not real:
                return commands.start(
                    *self.argv, module="job.train", cwd=ROOT, env=self.environment, stdout=log, stderr=log
                )
            command = [sys.executable, "-u", "-m", "job.train", *self.argv]
            return subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def run(self, timeout_s: float = 120, *, real: bool = False) -> int:
        process = self.start(real=real)
        try:
            return process.wait(timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def wait_for(self, process: commands.AnyCommand, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Return once an event for which `wanted` holds has been told."""
        deadline = time.monotonic() + 60
        while not any(wanted(event) for event in self.events()):
            assert process.poll() is None, f"the job ended early:\n{self.log}"
            assert time.monotonic() < deadline, f"nothing came:\n{self.log}"
            time.sleep(0.01)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from a second thread, and tests run side by side."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def job(tmp_path: Path, mnist: Path) -> Iterator[Callable[..., Job]]:
    """Make a `Job`: `job("--epochs", "2", name="first", env={...})`."""

    def make(*argv: str, name: str = "out", env: dict[str, str] | None = None) -> Job:
        return Job(tmp_path / name, ["--data", str(mnist), *argv], env or {})

    yield make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Job:
    """Three undisturbed epochs of Model 3 on 900 images, by a whole `python -m job.train`: read it, do not change it.

    One run for all test processes: the first that needs it makes it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished"
    made = Job(folder / "out", ["--data", str(mnist), "--epochs", "3", *SMALL])
    with filelock.FileLock(shared / "finished.lock", timeout=240):
        if not (folder / "whole").exists():
            folder.mkdir(exist_ok=True)
            assert made.run(timeout_s=220, real=True) == 0, made.log
            (folder / "whole").touch()
    return made
