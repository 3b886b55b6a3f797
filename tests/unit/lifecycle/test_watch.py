"""Acting on runs that exist, in the moments that hurt: a stale row, a machine that cannot be ended, a kill -9."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import GONE, ArtifactRefused, ConnectionFailed, RunError
from cloudtrain.core.events import Event, StepStarted
from cloudtrain.core.plan import Plan
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import planning, pull, stop, story
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder import verify
from cloudtrain.store import Run, Store
from tests import plans
from tests.fake_provider import FakeProvider
from tests.fakes import FOREVER, FakeRun


def job(run: FakeRun) -> Iterator[float]:
    """Saves, says so, and goes on until it is stopped."""
    run.out["weights"] = b"trained"
    run.print("saved")
    yield FOREVER


SILENT = ConnectionFailed("i-1 (running) did not answer on port 22 within 30 s", code="unreachable")
ENDED = ConnectionFailed("i-1 is terminated: Client.UserInitiatedShutdown", code=GONE)


class Killed(BaseException):
    """Stands for a kill -9: nothing catches it."""


@pytest.fixture
def here() -> FakeProvider:
    return FakeProvider(job)


@pytest.fixture
def context(tmp_path: Path, here: FakeProvider) -> Context:
    store = Store(tmp_path / "registry.sqlite", clock=here.clock)
    return Context(store=store, provider=lambda spec: here, clock=here.clock, sleep=here.sleep)


def plan(tmp_path: Path) -> Plan:
    source = tmp_path / "job"
    source.mkdir()
    (source / "train.py").write_text("the host has a job of its own")
    return plans.plan(tmp_path / "runs", job=JobSpec(source=str(source), module="job.train"))


@pytest.fixture
def trains(tmp_path: Path, context: Context) -> Run:
    """A run that trains and has saved."""
    run = planning.begin(plan(tmp_path), context)
    story.resume(run, context, detach=True)
    run = context.store.get(run.name)
    assert run.state is RunState.RUNNING
    return run


def stale(run: Run, context: Context) -> Run:
    """The row as a command read it before the run began to train."""
    values = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    return Run(**{**values, "state": RunState.SYNCING})


@pytest.mark.parametrize("act", [stop.stop, stop.abandon])
def test_a_run_that_began_to_train_while_a_person_was_asked_is_pulled(
    trains: Run, context: Context, act: Any, here: FakeProvider
) -> None:
    outcome = act(stale(trains, context), context)
    assert outcome.state is RunState.STOPPED
    assert (trains.folder / "weights").read_bytes() == b"trained"
    assert here.released == 1


@pytest.fixture
def unnoted(trains: Run, context: Context) -> Run:
    """The same, as a command leaves it that is killed between the start and the note of it (crash point K6)."""
    with contextlib.closing(sqlite3.connect(context.store.path)) as db, db:
        db.execute("UPDATE runs SET state = 'syncing' WHERE name = ?", (trains.name,))
    return context.store.get(trains.name)


@pytest.mark.parametrize("act", [stop.stop, stop.abandon])
def test_a_start_that_nobody_noted_is_stopped_and_pulled(
    unnoted: Run, context: Context, act: Any, here: FakeProvider
) -> None:
    outcome = act(unnoted, context)
    assert outcome.state is RunState.STOPPED and (outcome.error or RunError()).code == "stopped"
    assert (unnoted.folder / "weights").read_bytes() == b"trained"
    assert here.released == 1


def test_a_start_that_nobody_noted_is_pulled_from_while_it_trains(
    unnoted: Run, context: Context, here: FakeProvider
) -> None:
    outcome = pull.pull_now(unnoted, context)
    assert outcome.state is RunState.RUNNING and here.released == 0
    assert (unnoted.folder / "weights").read_bytes() == b"trained"


@pytest.mark.parametrize("act", [stop.stop, stop.abandon, pull.pull_now, story.resume])
def test_a_machine_that_may_train_is_not_ended_because_it_does_not_answer(
    unnoted: Run, context: Context, act: Any, here: FakeProvider
) -> None:
    here.refuses = SILENT
    quick = Context(store=context.store, provider=context.provider, sleep=lambda _: None)
    with pytest.raises(ConnectionFailed, match="did not answer"):
        act(unnoted, quick)
    assert here.released == 0 and not context.store.get(unnoted.name).state.final
    here.refuses = None
    assert stop.stop(unnoted, context).state is RunState.STOPPED
    assert (unnoted.folder / "weights").read_bytes() == b"trained"


def test_a_machine_that_may_have_trained_and_has_ended_is_not_waited_for(
    unnoted: Run, context: Context, here: FakeProvider
) -> None:
    here.refuses = ENDED
    waited: list[float] = []
    quick = Context(store=context.store, provider=context.provider, sleep=waited.append)
    assert stop.stop(unnoted, quick).state.final and not waited


def test_a_machine_that_cannot_be_ended_is_owed_even_if_the_command_is_killed_right_then(
    trains: Run, context: Context, here: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Store.move

    def killed(store: Store, run: Run, new: RunState, **facts: Any) -> Run:
        moved = move(store, run, new, **facts)
        if new.final:
            raise Killed
        return moved

    here.fails = ConnectionFailed("the machine could not be ended", code="release_pending")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "move", killed)
        with pytest.raises(Killed):
            stop.stop(trains, context)
    run = context.store.get(trains.name)
    assert run.state.final
    with pytest.raises(ConnectionFailed, match="could not be ended"):
        stop.stop(run, context)
    here.fails = None
    assert stop.stop(run, context).leftovers == ()
    assert stop.stop(run, context).life is InstanceLife.NONE
    assert here.released == 3


def test_a_file_that_is_refused_keeps_the_run_until_somebody_decides(
    tmp_path: Path,
    context: Context,
    here: FakeProvider,
) -> None:
    """Something of the user's is in its way. A name that would replace the run's own receipt keeps nobody."""

    def forges(run: FakeRun) -> Iterator[float]:
        run.out |= {"run.json": b"forged", "good": b"good", "mine": b"yours"}
        yield 1.0

    here.job = forges
    run = planning.begin(plan(tmp_path), context)
    (run.folder / "mine").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(ArtifactRefused, match="mine here is a folder") as raised:
            story.resume(context.store.get(run.name), context)
        assert f"cloudtrain stop {run.name}" in (raised.value.hint or "")
        assert context.store.get(run.name).state is RunState.PULLING and here.released == 0
        assert (run.folder / "good").read_text() == "good"
    done = stop.stop(run, context)
    assert done.state is RunState.SUCCEEDED and here.released == 1
    assert [entry.name for entry in done.artifacts] == ["good", "run.json"]
    assert "forged" not in (run.folder / "run.json").read_text()
    assert (run.folder / "_run.json").read_text() == "forged"
    assert not verify.check(run.folder, context.store).wrong


def test_a_link_that_breaks_while_the_job_starts_makes_no_failure(
    tmp_path: Path, context: Context, here: FakeProvider
) -> None:
    def done(run: FakeRun) -> Iterator[float]:
        run.print("done")
        yield 1.0

    here.job = done
    run = planning.begin(plan(tmp_path), context)

    def lose(event: Event) -> None:
        if isinstance(event, StepStarted) and event.title == "start":
            here.host.lose.append("start")

    assert story.resume(run, replace(context, emit=lose)).state is RunState.SUCCEEDED
    assert here.host.asked.count("start") == 2 and not here.host.lose
    assert (run.folder / "console.log").read_bytes() == b"done\n"


@pytest.mark.parametrize("command", ["logs", "pull", "stop"])
def test_a_run_whose_machine_is_gone_is_lost_and_no_command_waits_for_it(
    context: Context,
    here: FakeProvider,
    trains: Run,
    command: str,
) -> None:
    waited: list[float] = []
    here.refuses = ENDED
    quick = Context(store=context.store, provider=context.provider, sleep=waited.append)
    act = {"logs": story.resume, "pull": pull.pull_now, "stop": stop.stop}[command]
    (trains.folder / "console.log").write_bytes(b"what had arrived")
    done = act(trains, quick)
    assert done.state is RunState.LOST and done.exit_code == 6
    assert "ended while it trained (i-1 is terminated" in str((done.error or RunError()).message)
    assert (trains.folder / "console.log").read_bytes() == b"what had arrived"
    assert not waited and here.released == 1
