"""Acting on runs that exist, in the moments that hurt: a stale row, a machine that cannot be ended, a kill -9."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import GONE, ArtifactRefused, ConnectionFailed
from cloudtrain.core.instance import Released
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import planning, pull, stop, story
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.local import LocalProvider
from cloudtrain.store import Run, Store
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Transport
from tests import plans

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the job is ended by a signal")

JOB = """
import os, pathlib, time
out = pathlib.Path(os.environ["CLOUDTRAIN_OUT"])
(out / "weights.part").write_bytes(b"trained")
(out / "weights.part").replace(out / "weights")
print("saved", flush=True)
time.sleep(120)
"""


class Here(LocalProvider):
    """This computer, whose release may fail, and is counted."""

    def __init__(self) -> None:
        self.released = 0
        self.fails = False
        self.gone = False
        self.silent = False

    def open(self, *arguments: Any) -> Transport:
        if self.gone:
            raise ConnectionFailed("i-1 is terminated: Client.UserInitiatedShutdown", code=GONE)
        if self.silent:
            raise ConnectionFailed("i-1 (running) did not answer on port 22 within 30 s", code="unreachable")
        return super().open(*arguments)

    def release(self, *arguments: Any) -> Released:
        self.released += 1
        if self.fails:
            raise ConnectionFailed("the machine could not be ended", code="release_pending")
        return super().release(*arguments)


class Killed(BaseException):
    """Stands for a kill -9: nothing catches it."""


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def context(tmp_path: Path, here: Here) -> Context:
    return Context(store=Store(tmp_path / "registry.sqlite"), provider=lambda spec: here)


@pytest.fixture
def trains(tmp_path: Path, context: Context) -> Iterator[Run]:
    """A run that trains and has saved; ended after the test."""
    job = tmp_path / "job"
    job.mkdir()
    # A package: a folder without this file would stand behind any installed package of its name.
    (job / "__init__.py").touch()
    (job / "train.py").write_text(JOB)
    plan = plans.plan(tmp_path / "runs", job=JobSpec(source=str(job), module="job.train"))
    run = planning.begin(plan, context)
    story.resume(run, context, detach=True)
    run = context.store.get(run.name)
    assert run.state is RunState.RUNNING
    yield run
    if not context.store.get(run.name).state.final:
        stop.stop(run, context)


def stale(run: Run, context: Context) -> Run:
    """The row as a command read it before the run began to train."""
    values = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    return Run(**{**values, "state": RunState.SYNCING})


@pytest.mark.parametrize("act", [stop.stop, stop.abandon])
def test_a_run_that_began_to_train_while_a_person_was_asked_is_pulled(
    trains: Run, context: Context, act: Any, here: Here
) -> None:
    deadline = time.monotonic() + 60
    with Session(trains, context) as session:
        while b"saved" not in session.supervisor().poll().log:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    outcome = act(stale(trains, context), context)
    assert outcome.state is RunState.STOPPED
    assert (trains.folder / "weights").read_bytes() == b"trained"
    assert here.released == 1


@pytest.fixture
def unnoted(trains: Run, context: Context) -> Run:
    """The same, as a command leaves it that is killed between the start and the note of it (crash point K6)."""
    deadline = time.monotonic() + 60
    with Session(trains, context) as session:
        while b"saved" not in session.supervisor().poll().log:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with contextlib.closing(sqlite3.connect(context.store.path)) as db, db:
        db.execute("UPDATE runs SET state = 'syncing' WHERE name = ?", (trains.name,))
    return context.store.get(trains.name)


@pytest.mark.parametrize("act", [stop.stop, stop.abandon])
def test_a_start_that_nobody_noted_is_stopped_and_pulled(unnoted: Run, context: Context, act: Any, here: Here) -> None:
    outcome = act(unnoted, context)
    assert outcome.state is RunState.STOPPED and (outcome.error or {})["code"] == "stopped"
    assert (unnoted.folder / "weights").read_bytes() == b"trained"
    assert here.released == 1


def test_a_start_that_nobody_noted_is_pulled_from_while_it_trains(unnoted: Run, context: Context, here: Here) -> None:
    outcome = pull.pull_now(unnoted, context)
    assert outcome.state is RunState.RUNNING and here.released == 0
    assert (unnoted.folder / "weights").read_bytes() == b"trained"


@pytest.mark.parametrize("act", [stop.stop, stop.abandon, pull.pull_now, story.resume])
def test_a_machine_that_may_train_is_not_ended_because_it_does_not_answer(
    unnoted: Run, context: Context, act: Any, here: Here
) -> None:
    here.silent = True
    quick = Context(store=context.store, provider=context.provider, sleep=lambda _: None)
    with pytest.raises(ConnectionFailed, match="did not answer"):
        act(unnoted, quick)
    assert here.released == 0 and not context.store.get(unnoted.name).state.final
    here.silent = False
    assert stop.stop(unnoted, context).state is RunState.STOPPED
    assert (unnoted.folder / "weights").read_bytes() == b"trained"


def test_a_machine_that_may_have_trained_and_has_ended_is_not_waited_for(
    unnoted: Run, context: Context, here: Here
) -> None:
    here.gone = True
    waited: list[float] = []
    quick = Context(store=context.store, provider=context.provider, sleep=waited.append)
    assert stop.stop(unnoted, quick).state.final and not waited
    here.gone = False
    with Session(unnoted, context) as session:
        session.supervisor().stop("user", 1)


def test_a_machine_that_cannot_be_ended_is_owed_even_if_the_command_is_killed_right_then(
    trains: Run, context: Context, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Store.move

    def killed(store: Store, run: Run, new: RunState, **facts: Any) -> Run:
        moved = move(store, run, new, **facts)
        if new.final:
            raise Killed
        return moved

    here.fails = True
    with monkeypatch.context() as patch:
        patch.setattr(Store, "move", killed)
        with pytest.raises(Killed):
            stop.stop(trains, context)
    run = context.store.get(trains.name)
    assert run.state.final
    with pytest.raises(ConnectionFailed, match="could not be ended"):
        stop.stop(run, context)
    here.fails = False
    assert stop.stop(run, context).leftovers == ()
    assert stop.stop(run, context).life is InstanceLife.NONE
    assert here.released == 3


def test_a_file_that_is_refused_keeps_the_run_until_somebody_decides(
    tmp_path: Path,
    context: Context,
    here: Here,
) -> None:
    """The job writes a name that would replace the run's own receipt."""
    job = tmp_path / "job"
    job.mkdir()
    # A package: a folder without this file would stand behind any installed package of its name.
    (job / "__init__.py").touch()
    text = "import os, pathlib; out = pathlib.Path(os.environ['CLOUDTRAIN_OUT']); "
    (job / "train.py").write_text(text + "(out / 'run.json').write_text('forged'); (out / 'good').write_text('good')")
    plan = plans.plan(tmp_path / "runs", job=JobSpec(source=str(job), module="job.train"))
    run = planning.begin(plan, context)
    for _ in range(2):
        with pytest.raises(ArtifactRefused, match=r"run\.json") as raised:
            story.resume(context.store.get(run.name), context)
        assert f"cloudtrain stop {run.name}" in (raised.value.hint or "")
        assert context.store.get(run.name).state is RunState.PULLING and here.released == 0
        assert (run.folder / "good").read_text() == "good"
    done = stop.stop(run, context)
    assert done.state is RunState.SUCCEEDED and here.released == 1
    assert [entry.name for entry in done.artifacts] == ["good"]
    assert "forged" not in (run.folder / "run.json").read_text()


def test_a_link_that_breaks_while_the_job_starts_makes_no_failure(
    tmp_path: Path,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = tmp_path / "job"
    job.mkdir()
    # A package: a folder without this file would stand behind any installed package of its name.
    (job / "__init__.py").touch()
    (job / "train.py").write_text("print('done')")
    plan = plans.plan(tmp_path / "runs", job=JobSpec(source=str(job), module="job.train"))
    real, started = Supervisor.start, []

    def start(self: Supervisor, spec: Any) -> Any:
        answer = real(self, spec)
        started.append(answer.started)
        if len(started) == 1:
            raise ConnectionFailed("the link broke before the answer came")
        return answer

    monkeypatch.setattr(Supervisor, "start", start)
    quick = Context(store=context.store, provider=context.provider, sleep=lambda _: None)
    assert story.resume(planning.begin(plan, quick), quick).state is RunState.SUCCEEDED
    assert started == [True, False]


@pytest.mark.parametrize("command", ["logs", "pull", "stop"])
def test_a_run_whose_machine_is_gone_is_lost_and_no_command_waits_for_it(
    context: Context,
    here: Here,
    trains: Run,
    command: str,
) -> None:
    waited: list[float] = []
    here.gone = True
    quick = Context(store=context.store, provider=context.provider, sleep=waited.append)
    act = {"logs": story.resume, "pull": pull.pull_now, "stop": stop.stop}[command]
    (trains.folder / "console.log").write_bytes(b"what had arrived")
    done = act(trains, quick)
    assert done.state is RunState.LOST and done.exit_code == 6
    assert "ended while it trained (i-1 is terminated" in str((done.error or {})["message"])
    assert (trains.folder / "console.log").read_bytes() == b"what had arrived"
    assert not waited and here.released == 1
    here.gone = False
    with Session(trains, context) as session:
        session.supervisor().stop("user", 1)
