"""The story of a run on a host in memory: how it ends, what a broken link does, and what is here afterwards."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed, ExitCode, RunError, UsageError
from cloudtrain.core.events import Event, LogLines, Warned
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import JobSpec, Limits
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import planning, pull, stop, story
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.store import Run, Store
from cloudtrain.transfer.follow import BACKOFF_S
from tests import plans
from tests.fake_provider import FakeProvider
from tests.fakes import FOREVER, FakeRun, Terminated


def trains(run: FakeRun) -> Iterator[float]:
    """Two epochs of a minute, with a file each."""
    for epoch in (1, 2):
        run.print(f"epoch {epoch}")
        yield 60.0
        run.tell("epoch", epoch=epoch, epochs=2, test_acc=97.0 + epoch)
        run.out["weights/last.bin"] = b"w" * epoch


@pytest.fixture
def machines() -> FakeProvider:
    return FakeProvider(trains, owned=True)


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def context(tmp_path: Path, machines: FakeProvider, told: list[Event]) -> Context:
    clock = machines.clock
    store = Store(tmp_path / "registry.sqlite", clock=clock)
    return Context(store=store, provider=lambda spec: machines, emit=told.append, clock=clock, sleep=machines.sleep)


@pytest.fixture
def begun(tmp_path: Path, context: Context) -> Callable[..., Run]:
    """A run as `cloudtrain run` begins it."""

    def begin(job: Mapping[str, Any] = MappingProxyType({}), **changes: object) -> Run:
        source = tmp_path / "job"
        source.mkdir()
        (source / "train.py").write_text("the host has a job of its own")
        made = JobSpec(source=str(source), module="job.train", **job)
        return planning.begin(plans.plan(tmp_path / "runs", job=made, **changes), context)

    return begin


def sums_hold(folder: Path) -> None:
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_a_run_from_start_to_end(begun: Callable[..., Run], context: Context, machines: FakeProvider) -> None:
    run = begun()
    done = story.resume(run, context)
    assert (done.state, done.exit_code, done.life) == (RunState.SUCCEEDED, ExitCode.DONE, InstanceLife.TERMINATED)
    assert machines.released == 1 and machines.host.now == 1_800_000_120.0
    assert (run.folder / "console.log").read_bytes() == b"epoch 1\nepoch 2\n"
    assert (run.folder / "weights" / "last.bin").read_bytes() == b"ww"
    assert [entry.name for entry in done.artifacts] == ["weights/last.bin"]
    receipt = json.loads((run.folder / "run.json").read_text())
    assert (receipt["status"], receipt["exit_code"]) == ("succeeded", 0)
    sums_hold(run.folder)


@pytest.mark.parametrize(("code", "says"), [(1, "exit code 1"), (-signal.SIGSEGV, f"signal {int(signal.SIGSEGV)}")])
def test_a_training_that_fails_is_pulled_and_its_machine_given_back(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, code: int, says: str
) -> None:
    def fails(run: FakeRun) -> Iterator[float]:
        run.print("out of luck")
        run.out["half"] = b"half"
        yield 5.0
        return code

    machines.job = fails
    run = begun()
    done = story.resume(run, context)
    assert (done.state, done.exit_code, machines.released) == (RunState.FAILED, ExitCode.TRAINING_FAILED, 1)
    assert says in str((done.error or RunError()).message)
    assert (run.folder / "console.log").read_bytes() == b"out of luck\n" and (run.folder / "half").exists()
    sums_hold(run.folder)


def test_detached_it_is_followed_from_where_it_was_left(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, told: list[Event]
) -> None:
    run = begun()
    assert story.resume(run, context, detach=True).state is RunState.RUNNING
    machines.sleep(90.0)
    assert story.resume(context.store.get(run.name), context).state is RunState.SUCCEEDED
    assert b"".join(event.data for event in told if isinstance(event, LogLines)) == b"epoch 1\nepoch 2\n"
    assert machines.host.asked.count("start") == 1
    sums_hold(run.folder)


def test_a_link_that_breaks_in_mid_frame_loses_and_doubles_nothing(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, told: list[Event]
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.host.lose += ["follow", "follow"]
    assert story.resume(context.store.get(run.name), context).state is RunState.SUCCEEDED
    assert (run.folder / "console.log").read_bytes() == b"epoch 1\nepoch 2\n"
    assert len([event for event in told if isinstance(event, Warned) and "Reconnecting" in event.message]) == 2


def test_a_host_that_stays_away_leaves_the_run_as_it_is(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.host.dead = ConnectionFailed("no route to host")
    waited: list[float] = []
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        story.resume(context.store.get(run.name), replace(context, sleep=waited.append))
    assert tuple(waited) == BACKOFF_S and context.store.get(run.name).state is RunState.RUNNING
    machines.host.dead = None
    assert story.resume(context.store.get(run.name), context).state is RunState.SUCCEEDED
    assert machines.released == 1


def test_a_killed_supervisor_is_a_lost_run_with_what_could_be_saved(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.sleep(70.0)
    machines.host.run_of(run.name).lost = True
    done = story.resume(context.store.get(run.name), context)
    assert (done.state, done.exit_code, machines.released) == (RunState.LOST, ExitCode.CONNECTION, 1)
    assert (run.folder / "weights" / "last.bin").read_bytes() == b"w"
    sums_hold(run.folder)


def test_its_limit_ends_it_and_what_it_saves_then_is_pulled(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    def saves(run: FakeRun) -> Iterator[float]:
        try:
            yield FOREVER
        except Terminated:
            run.out["saved"] = b"saved"
            return 143

    machines.job = saves
    run = begun(limits=Limits(max_time_s=3600.0))
    done = story.resume(run, context)
    assert done.exit_code is ExitCode.LIMIT and (run.folder / "saved").read_bytes() == b"saved"
    assert machines.host.now < 1_800_000_000.0 + 3600.0 + 60.0


def test_a_stop_beside_it_is_pulled_with_what_the_job_saves(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.sleep(70.0)
    done = stop.stop(context.store.get(run.name), context)
    assert (done.state, done.exit_code, machines.released) == (RunState.STOPPED, ExitCode.INTERRUPTED, 1)
    assert (run.folder / "weights" / "last.bin").read_bytes() == b"w"
    assert stop.stop(context.store.get(run.name), context).state is RunState.STOPPED and machines.released == 1


def test_results_that_are_spoilt_once_the_machine_is_gone_are_named_and_nothing_is_claimed(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context)
    run = context.store.get(run.name)
    assert pull.pull_again(run, context).artifacts
    (run.folder / "weights" / "last.bin").write_bytes(b"spoilt")
    with pytest.raises(ConnectionFailed, match="no longer has a machine") as caught:
        pull.pull_again(run, context)
    assert "weights/last.bin" in caught.value.message + str(caught.value.consequence) + str(caught.value.hint)
    assert caught.value.exit_code is ExitCode.CONNECTION


def test_a_run_is_known_on_its_host_by_its_id(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context)
    known = context.store.read_journal(run.name).id
    [(folder, there)] = machines.host.runs.items()
    assert folder == f"w/runs/{run.name}-{known[:8]}" and (there.spec or {})["id"] == known
    assert json.loads((run.folder / "run.json").read_text())["id"] == known


def test_another_run_in_the_folder_is_left_alone(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    [there] = machines.host.runs.values()
    assert there.spec is not None
    there.spec["id"] = "another computer's"
    with pytest.raises(UsageError, match="another run of this name") as caught:
        stop.stop(context.store.get(run.name), context)
    assert caught.value.code == "another_run" and there.state == "running"


def test_a_run_of_the_last_release_is_known_by_its_name_alone(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    context.store.write_journal(run.name, RunNotes(on_host=None))
    assert story.resume(run, context).state is RunState.SUCCEEDED
    [(folder, there)] = machines.host.runs.items()
    assert folder == f"w/runs/{run.name}" and "id" not in (there.spec or {})


def test_a_secret_goes_to_the_job_and_into_no_file(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2-Zq7")
    run = begun(job={"secrets": ("MY_TOKEN",), "vars": {"COLOUR": "blue"}})
    assert story.resume(run, context).state is RunState.SUCCEEDED
    [there] = machines.host.runs.values()
    assert there.spec is not None and there.spec["secrets"] == {"MY_TOKEN": "hunter2-Zq7"}
    assert there.spec["env"] == {"COLOUR": "blue"}
    kept = b"".join(path.read_bytes() for path in run.folder.parent.parent.rglob("*") if path.is_file())
    assert b"hunter2-Zq7" not in kept and b"MY_TOKEN" in kept


def test_a_run_whose_secret_is_not_known_launches_nothing_and_keeps_the_machine_that_it_has(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(job={"secrets": ("MY_TOKEN",)})
    for state in (RunState.PLANNED, RunState.SYNCING):
        with pytest.raises(UsageError, match="the secret MY_TOKEN is not set") as caught:
            story.resume(context.store.get(run.name), context)
        assert caught.value.code == "secret_missing" and f"cloudtrain stop {run.name}" in str(caught.value.consequence)
        assert context.store.get(run.name).state is state
        assert (len(machines.machines), machines.released) == (int(state is RunState.SYNCING), 0)
        with monkeypatch.context() as shell, Session(run, context) as session:
            shell.setenv("MY_TOKEN", "hunter2-Zq7")
            run = story.reach(story.acquire(context.store.get(run.name), session), session)
    # Once its job has been started nobody needs it any more.
    with monkeypatch.context() as shell:
        shell.setenv("MY_TOKEN", "hunter2-Zq7")
        story.resume(run, context, detach=True)
    assert story.resume(context.store.get(run.name), context).state is RunState.SUCCEEDED
