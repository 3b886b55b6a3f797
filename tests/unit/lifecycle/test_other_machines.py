"""Runs whose machine is taken back, or stays up once they have ended: on hosts in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.billing import expiry
from cloudtrain.cleanup import debts
from cloudtrain.console.pages import listing
from cloudtrain.core.errors import RECLAIMED, ConnectionFailed, ExitCode, LimitReached, Refused, RunError
from cloudtrain.core.events import Event, Warned
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Ec2Spec, JobSpec, Limits, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import checkpoints, planning, pull, stop, story
from cloudtrain.lifecycle.session import Context
from cloudtrain.store import Run, Store
from tests import plans
from tests.fake_provider import FakeProvider
from tests.fakes import FOREVER, FakeRun

Job = Callable[[FakeRun], Iterator[float]]


def warned(run: FakeRun) -> Iterator[float]:
    """EC2 takes the machine back with a notice, in which the job saves and ends."""
    run.notices.append({"kind": "spot", "t": run.host.now, "ends": run.host.now + 120.0})
    run.stop = "spot"
    yield 1.0


def gone(run: FakeRun) -> Iterator[float]:
    """It goes without a word."""
    run.host.dead = ConnectionFailed("Server.SpotInstanceTermination", code=RECLAIMED)
    yield FOREVER


def keeper(goes: Job, *numbers: int) -> Job:
    """A job with a checkpoint; the machines of these numbers go before it has ended."""

    def job(run: FakeRun) -> Iterator[float]:
        assert run.spec is not None
        run.print("goes on" if checkpoints.VARIABLE in run.spec["env"] else "begins")
        run.out["checkpoints/last.pt"] = b"weights"
        run.tell("checkpoint", epoch=1, name="checkpoints/last.pt", step=7)
        yield 60.0
        if run.host.number in numbers:
            yield from goes(run)
            return 143  # type: ignore[return-value]
        run.out["weights"] = b"trained"

    return job


@pytest.fixture
def machines() -> FakeProvider:
    return FakeProvider(keeper(warned, 1), owned=True)


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def context(tmp_path: Path, machines: FakeProvider, told: list[Event]) -> Context:
    clock = machines.clock
    store = Store(tmp_path / "registry.sqlite", clock=clock)
    return Context(store=store, provider=lambda spec: machines, emit=told.append, clock=clock, sleep=machines.sleep)


@pytest.fixture
def begun(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """A spot run of an hour and a half, with these limits; its secret is in this shell."""
    monkeypatch.setenv("MY_TOKEN", "hunter2-Zq7")

    def begin(**limits: float) -> Run:
        source = tmp_path / "job"
        source.mkdir()
        (source / "train.py").write_text("the host has a job of its own")
        plan = plans.plan(
            tmp_path / "runs",
            target=Target.EC2,
            ec2=Ec2Spec(spot=True),
            job=JobSpec(source=str(source), module="job.train", secrets=("MY_TOKEN",)),
            limits=Limits(**{"max_time_s": 5400.0, **limits}),  # type: ignore[arg-type]
        )
        return planning.begin(plan, context)

    return begin


def test_a_notice_saves_and_the_run_goes_on_elsewhere_from_its_checkpoint(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, told: list[Event]
) -> None:
    run = begun()
    done = story.resume(run, context, relaunch=True)
    assert done.state is RunState.SUCCEEDED and (run.folder / "weights").read_bytes() == b"trained"
    assert (run.folder / "console.1.log").read_text() == "begins\n"
    assert (run.folder / "console.log").read_text() == "goes on\n"
    assert len(machines.machines) == 2 and machines.released == 2
    assert any("EC2 takes this spot instance back" in event.message for event in told if isinstance(event, Warned))
    notes = context.store.read_journal(run.name)
    assert (notes.attempt, notes.avoid_zones) == (2, ("zone-1",))
    first, second = (host.run_of(run.name).spec for host in machines.machines.values())
    assert first and second and second["ends"] <= first["ends"], "no machine ends later than the first would"
    assert first["secrets"] == second["secrets"] == {"MY_TOKEN": "hunter2-Zq7"}


def test_a_machine_that_goes_without_a_word_begins_anew_where_nothing_had_come(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    machines.job = keeper(gone, 1)
    run = begun()
    assert story.resume(run, context, relaunch=True).state is RunState.SUCCEEDED
    assert [(run.folder / name).read_text() for name in ("console.1.log", "console.log")] == ["begins\n"] * 2


def test_as_many_machines_as_were_agreed_to_and_no_more(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, told: list[Event]
) -> None:
    machines.job = keeper(warned, 1, 2, 3)
    run = begun(spot_restarts=1)
    done = story.resume(run, context, relaunch=True)
    assert (done.state, done.exit_code) == (RunState.INTERRUPTED, ExitCode.LIMIT)
    assert len(machines.machines) == 2 and machines.released == 2
    assert any("allows 1, and all are used" in event.message for event in told if isinstance(event, Warned))
    known = checkpoints.latest(context.store.get(run.name), context.store.read_journal(run.name))
    assert known is not None and (known.epoch, known.step) == (1, 7)


@pytest.mark.parametrize("goes", [warned, gone])
def test_no_other_machine_to_be_had_ends_it_interrupted(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, goes: Job
) -> None:
    def then_sold_out(run: FakeRun) -> Iterator[float]:
        machines.sold_out = Refused("no g4dn.xlarge anywhere", code="no_capacity")
        yield from goes(run)

    machines.job = keeper(then_sold_out, 1)
    run = begun()
    with pytest.raises(LimitReached, match="could not go on on another machine") as caught:
        story.resume(run, context, relaunch=True)
    assert caught.value.exit_code is ExitCode.LIMIT
    run = context.store.get(run.name)
    assert run.state is RunState.INTERRUPTED and (run.error or RunError()).code == "no_capacity"


@pytest.mark.parametrize("act", [story.resume, pull.pull_now])
def test_nobody_relaunches_for_a_command_that_has_left(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, act: Callable[[Run, Context], object]
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.host.dead = ConnectionFailed("Server.SpotInstanceTermination", code=RECLAIMED)
    act(context.store.get(run.name), context)
    run = context.store.get(run.name)
    assert run.state is RunState.INTERRUPTED and len(machines.machines) == 1
    assert "no checkpoint of it had arrived" in str((run.error or RunError()).hint)


def test_no_other_machine_while_the_end_of_the_first_is_not_confirmed(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    machines.fails = ConnectionFailed("i-1 may still be billed", code="release_pending")
    run = begun()
    with pytest.raises(ConnectionFailed, match="may still be billed"):
        story.resume(run, context, relaunch=True)
    run = context.store.get(run.name)
    assert run.state is RunState.INTERRUPTED and len(machines.machines) == 1
    machines.fails = None
    stop.stop(run, context)
    assert context.store.get(run.name).life is InstanceLife.TERMINATED


def test_a_machine_that_is_kept_stays_up_until_then_and_is_ended_by_a_stop(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    machines.job = keeper(warned)
    run = begun(keep_s=1800.0)
    done = story.resume(run, context, relaunch=True)
    assert (done.state, done.life, machines.released) == (RunState.SUCCEEDED, InstanceLife.RUNNING, 0)
    assert machines.held == machines.host.now + 1800.0
    assert machines.host.run_of(run.name).lease["grace"] == 1800.0
    [leftover] = done.leftovers
    assert "kept until" in leftover and f"cloudtrain stop {run.name}" in leftover
    run = context.store.get(run.name)
    assert expiry.is_kept(run, context.clock())
    assert stop.stop(run, context).life is InstanceLife.TERMINATED and machines.released == 1


def test_a_machine_that_cannot_be_kept_is_given_back_with_the_results_here(
    begun: Callable[..., Run], context: Context, machines: FakeProvider, told: list[Event]
) -> None:
    machines.job = keeper(warned)
    run = begun(keep_s=1800.0)
    story.resume(run, context, detach=True)
    machines.sleep(100.0)

    def refuse(event: Event) -> None:
        told.append(event)
        if getattr(event, "title", "") == "keep":
            machines.host.lose += ["lease"] * 3

    done = story.resume(context.store.get(run.name), replace(context, emit=refuse))
    assert (done.life, machines.released) == (InstanceLife.TERMINATED, 1)
    assert any("cannot be kept and is ended now" in event.message for event in told if isinstance(event, Warned))
    assert (run.folder / "weights").read_bytes() == b"trained"


def test_an_end_without_a_pull_ends_a_machine_that_does_not_answer(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.refuses = ConnectionFailed("it does not answer")
    done = stop.discard(context.store.get(run.name), context)
    assert (done.state, done.life, done.artifacts) == (RunState.STOPPED, InstanceLife.TERMINATED, ())
    assert (done.error or RunError()).code == "not_pulled" and not (run.folder / "checkpoints").exists()
    assert any("were not pulled" in line for line in listing.page(context.store.get(run.name), context.store))
    # What is not here was deleted with the machine.
    assert stop.stop(context.store.get(run.name), context).artifacts == ()
    assert pull.pull_again(context.store.get(run.name), context).artifacts == () and machines.released == 1


def test_an_end_without_a_pull_that_fails_is_a_debt_and_an_error(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    run = begun()
    story.resume(run, context, detach=True)
    machines.fails = ConnectionFailed("i-1 may not be terminated by you", code="release_pending")
    with pytest.raises(ConnectionFailed, match="terminated"):
        stop.discard(context.store.get(run.name), context)
    run = context.store.get(run.name)
    assert debts.owes(run, context.store) and run.state is RunState.STOPPED
    machines.fails = None
    assert stop.stop(run, context).life is InstanceLife.TERMINATED
    assert not debts.owes(context.store.get(run.name), context.store)


def test_nothing_is_thrown_away_of_a_training_that_had_ended_by_itself(
    begun: Callable[..., Run], context: Context, machines: FakeProvider
) -> None:
    """The wish was noted, the command killed before it acted, and the training has ended well since."""
    machines.job = keeper(warned)
    run = begun()
    story.resume(run, context, detach=True)
    context.store.write_journal(run.name, RunNotes(stop_wanted=True, no_pull=True))
    machines.sleep(100.0)
    done = story.resume(context.store.get(run.name), context)
    assert done.state is RunState.SUCCEEDED and (run.folder / "weights").read_bytes() == b"trained"
    assert machines.released == 1
