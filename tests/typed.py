"""The command line in this process, and runs of this computer for it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudtrain.cli import app
from cloudtrain.core.spec import JobSpec, Target
from cloudtrain.lifecycle import planning, pull, stop, story
from cloudtrain.provider.local import LocalProvider
from cloudtrain.store import Run, Store
from tests import plans
from tests.json_output import Answer, check
from tests.region.whole_path.place import JOBS

FOREVER = ("--until", "never", "--epochs", "1", "--lines", "2")


@dataclass
class Typed:
    """What a command printed, and how it left."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    def run(*argv: str, code: int = 0) -> Typed:
        monkeypatch.setattr(sys, "argv", ["cloudtrain", *argv])
        capfd.readouterr()
        left = app.run()
        typed = Typed(left, *capfd.readouterr())
        assert left == code, f"exit {left}, not {code}\n{typed.err}{typed.out}"
        if "--json" in argv:
            check(argv[0], Answer([json.loads(line) for line in typed.out.splitlines()], left, typed.err), typed.err)
        return typed

    return run


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def trains(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Run]]:
    """Starts a run here that has written a file and does not end by itself; all are ended after the test."""
    monkeypatch.chdir(tmp_path)
    context = story.Context(store=store, provider=lambda spec: LocalProvider())

    def start(name: str) -> Run:
        job = JobSpec(source=str(JOBS / "toy"), module="toy.train")
        train = plans.TrainSpec(args=FOREVER)
        run = planning.begin(plans.plan(tmp_path / "runs", name, job=job, train=train), context)
        story.resume(run, context, detach=True)
        deadline = time.monotonic() + 60
        while not pull.missing(store.get(name), context):
            assert time.monotonic() < deadline
        return store.get(name)

    yield start
    monkeypatch.undo()
    for run in store.runs():
        if run.plan.spec.target is Target.LOCAL and not run.state.final:
            stop.stop(run, context)
