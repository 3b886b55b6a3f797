"""A run whose results cannot all be taken: nothing of it is deleted until somebody says so. On hosts in memory."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.cli import leaving
from cloudtrain.console.pages import listing, stopping, summary
from cloudtrain.core.errors import ArtifactRefused, ConnectionFailed, ExitCode, LimitReached, UsageError
from cloudtrain.core.events import Event
from cloudtrain.core.instance import Ended, Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Limits
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import fetch_results, planning, pull, stop, story
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run, Store
from tests import plans
from tests.fake_provider import FakeMachine, FakeProvider
from tests.fakes import FakeHost, FakeRun

TINY = 2000 / 2**30


def leaves(run: FakeRun) -> Iterator[float]:
    """A job with a small result and a large one."""
    run.out["small.txt"], run.out["big.pt"] = b"small", bytes(5000)
    yield 1.0


@dataclass(frozen=True, eq=False)
class Parking(FakeMachine):
    """A machine that can park."""

    def park_at_end(self) -> bool:
        return True

    def end(self, *, parks: bool) -> Ended:
        assert parks
        self.there.parked += 1
        return Ended(InstanceLife.PARKED, told=True)


class Machines(FakeProvider):
    """Hosts of the user's own, or machines that are launched: on demand or spot."""

    spot = False
    parked = 0

    def acquire(self, *given: Any) -> Instance:
        found = super().acquire(*given)
        return replace(found, details=replace(found.details, spot=self.spot))


@pytest.fixture
def machines() -> Machines:
    made = Machines(leaves)
    made.kind = Parking
    return made


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def context(tmp_path: Path, machines: Machines, told: list[Event]) -> Context:
    clock = machines.clock
    store = Store(tmp_path / "registry.sqlite", clock=clock)
    return Context(store=store, provider=lambda spec: machines, emit=told.append, clock=clock, sleep=machines.sleep)


@pytest.fixture
def begun(tmp_path: Path, context: Context) -> Callable[..., Run]:
    def begin(limit: float | None = TINY, **job: Any) -> Run:
        (tmp_path / "job").mkdir()
        (tmp_path / "job/train.py").write_text("x = 1\n")
        spec = plans.spec(tmp_path / "runs", limits=Limits(max_time_s=5400.0, results_gib=limit))
        spec = replace(spec, job=replace(spec.job, source=str(tmp_path / "job"), **job))
        return planning.begin(planning.plan_run(spec, context), context)

    return begin


def screen(result: Result) -> str:
    return "\n".join(summary.ending_lines(result))


def test_on_a_host_the_rest_waits_there(begun: Callable[..., Run], context: Context, machines: Machines) -> None:
    run = begun()
    with pytest.raises(LimitReached, match=r"1 result .* big\.pt \(5 kB\)") as caught:
        story.resume(run, context)
    assert caught.value.exit_code == ExitCode.LIMIT and "pull brave-otter --all" in (caught.value.hint or "")
    run = context.store.get(run.name)
    assert (run.state, machines.released, machines.parked) == (RunState.PULLING, 0, 0)
    assert (run.folder / "small.txt").exists() and not (run.folder / "big.pt").exists()
    assert "ended, not all pulled" in listing.table([run])[1]
    assert "big.pt" in "\n".join(listing.page(run, context.store))
    assert leaving._way_on(run, context) == "cloudtrain pull brave-otter --all fetches the rest"
    with pytest.raises(LimitReached):
        fetch_results.check_decided(run, context.store.read_journal(run.name))
    done = stop.discard(run, context)
    assert (done.state, done.exit_code) == (RunState.SUCCEEDED, ExitCode.DONE)
    assert "1 file, 5 B" in screen(done) and "1 result, 5 kB, still on the machine: big.pt" in screen(done)
    # Later it can still be had.
    again = pull.pull_again(context.store.get(run.name), context)
    assert len(again.artifacts) == 1 and again.left
    again = pull.pull_again(context.store.get(run.name), context, everything=True)
    assert (run.folder / "big.pt").read_bytes() == bytes(5000)
    assert len(again.artifacts) == 2 and not again.left and "on the machine" not in screen(again)


def test_a_launched_machine_parks_and_is_not_started_for_what_is_known(
    begun: Callable[..., Run], context: Context, machines: Machines, told: list[Event]
) -> None:
    machines.owned = True
    run = begun()
    with pytest.raises(LimitReached):
        story.resume(run, context)
    run = context.store.get(run.name)
    assert (run.life, machines.parked, machines.released) == (InstanceLife.PARKED, 1, 0)
    machines.refuses = ConnectionFailed("it is parked", code="parked")
    for act in (stop.stop, pull.pull_now, story.resume):
        with pytest.raises(LimitReached, match=r"big\.pt"):
            act(context.store.get(run.name), context)
    lost = stopping.losses(run, context.store.read_journal(run.name).left, "", context.store.read_journal(run.name))
    assert "big.pt (5 kB)" in lost[0] and "for good" in lost[0]
    # A killed command had not parked it.
    machines.refuses = None
    context.store.note(run, life=InstanceLife.RUNNING)
    with pytest.raises(LimitReached):
        story.resume(context.store.get(run.name), context)
    assert machines.parked == 2
    # What was fetched by hand counts.
    context.store.note(run, life=InstanceLife.RUNNING)
    pull.pull(context.store.get(run.name), context, ["big.pt"])
    done = pull.pull_now(context.store.get(run.name), context)
    assert (done.state, len(done.artifacts), done.left) == (RunState.SUCCEEDED, 2, ())
    assert machines.released == 1


def test_all_of_it_comes_once_that_is_wanted(begun: Callable[..., Run], context: Context, machines: Machines) -> None:
    machines.owned = True
    run = begun()
    with pytest.raises(LimitReached):
        story.resume(run, context)
    done = pull.pull_now(context.store.get(run.name), context, everything=True)
    assert (done.state, done.error, len(done.artifacts), machines.released) == (RunState.SUCCEEDED, None, 2, 1)


def test_a_spot_instance_cannot_park_so_all_of_it_comes(
    begun: Callable[..., Run], context: Context, machines: Machines
) -> None:
    machines.owned = machines.spot = True
    done = story.resume(begun(), context)
    assert (done.state, len(done.artifacts), machines.released) == (RunState.SUCCEEDED, 2, 1)


def test_the_limit_is_five_gib_where_nobody_has_set_it(
    begun: Callable[..., Run], context: Context, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeHost._manifest

    def manifest(host: FakeHost, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        told = whole(host, run, options, stdin)
        assert float(options["--most"]) == 5 * 2**30
        told["files"].append({"name": "huge.pt", "size": 6 * 2**30, "sha256": None})
        return told

    monkeypatch.setattr(FakeHost, "_manifest", manifest)
    with pytest.raises(LimitReached, match=r"results_limit = 5 GiB allows: huge.pt \(6\.4 GB\)"):
        story.resume(begun(None), context)
    assert (context.store.get("brave-otter").folder / "big.pt").exists()


def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host tells another hash of a file, and no size of one."""
    whole = FakeHost._manifest

    def manifest(*given: Any) -> dict[str, Any]:
        told = whole(*given)
        told["files"] = [{**one, "sha256": "0" * 64} if one["size"] > 9 else one for one in told["files"]]
        return {**told, "files": [*told["files"], {"name": "odd.txt", "size": "big", "sha256": "0" * 64}]}

    monkeypatch.setattr(FakeHost, "_manifest", manifest)


def test_a_run_that_is_stopped_parks_where_a_file_is_not_what_it_should_be(
    begun: Callable[..., Run], context: Context, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.owned = True
    spoilt(monkeypatch)
    run = begun(None)
    with pytest.raises(ArtifactRefused, match=r"'odd\.txt' was not taken") as caught:
        story.resume(run, context)
    assert "stop brave-otter --no-pull ends it without that file" in (caught.value.hint or "")
    assert machines.parked == 0, "it may be looked at there, until its grace is over"
    with pytest.raises(ArtifactRefused):
        stop.stop(context.store.get(run.name), context)
    assert (machines.parked, machines.released) == (1, 0)
    done = stop.discard(context.store.get(run.name), context)
    assert (done.state, done.life, machines.released) == (RunState.SUCCEEDED, InstanceLife.TERMINATED, 1)
    assert "1 result, 5 kB, deleted with the machine: big.pt" in screen(done)


def test_a_run_that_is_stopped_parks_where_the_disk_here_is_full(
    begun: Callable[..., Run], context: Context, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.owned = True
    run = begun(None)
    story.resume(run, context, detach=True)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage(9, 9, 0))
        with pytest.raises(ConnectionFailed) as caught:
            stop.stop(context.store.get(run.name), context)
    assert caught.value.code == "disk_full" and (machines.parked, machines.released) == (1, 0)
    context.store.note(run, life=InstanceLife.RUNNING)
    assert len(stop.stop(context.store.get(run.name), context).artifacts) == 2 and machines.released == 1


def test_it_is_never_said_that_there_were_no_files_where_there_were(
    begun: Callable[..., Run], context: Context, machines: Machines
) -> None:
    done = story.resume(begun(None, outputs=("!**",)), context)
    assert "none of the 2 files that the job left was taken" in screen(done)
    assert "left no files" in screen(replace(done, elsewhere=0))
    assert "none of its results was pulled" in screen(replace(done, elsewhere=None))


def test_a_pull_of_a_run_that_trains_looks_again_for_what_is_just_finished(
    begun: Callable[..., Run], context: Context, machines: Machines, monkeypatch: pytest.MonkeyPatch, told: list[Event]
) -> None:
    machines.job = lambda run: iter([1000.0])
    whole = FakeHost._manifest
    looks: list[float] = []

    def manifest(host: FakeHost, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        looks.append(host.now)
        if len(looks) == 2:
            run.out["new.txt"] = b"new"
        beside = [{"name": "../data\x1b[2J", "size": 63_000_000, "files": 8}]
        return {**whole(host, run, options, stdin), "growing": ["a", "b"][: 3 - len(looks)], "beside": beside}

    monkeypatch.setattr(FakeHost, "_manifest", manifest)
    run = begun(None)
    story.resume(run, context, detach=True)
    assert pull.pull_now(context.store.get(run.name), context).state is RunState.RUNNING
    assert (run.folder / "new.txt").exists() and looks[1] - looks[0] >= 10
    said = "\n".join(str(getattr(event, "message", "")) for event in told)
    assert "2 files may still be written there; looking again" in said
    assert "1 file may still be written there, and come once" in said
    assert "left there, beside the project: ../data" in said and "63 MB in 8 files" in said and "\x1b" not in said


def test_all_and_a_part_exclude_each_other() -> None:
    from cloudtrain.cli import runs

    with pytest.raises(UsageError, match="--only is a part"):
        runs.pull(only=["weights"], everything=True)


def test_what_is_left_is_kept_in_the_journal(context: Context, begun: Callable[..., Run]) -> None:
    run = begun()
    with pytest.raises(LimitReached):
        story.resume(run, context)
    notes = context.store.read_journal(run.name)
    assert [entry.name for entry in notes.left] == ["big.pt"] and RunNotes.of(notes.entries()) == notes
