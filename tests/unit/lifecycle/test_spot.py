"""When a run whose spot instance was taken back may have another one, and what that must never change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.billing import cost
from cloudtrain.cli import following
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core.disk import sha256
from cloudtrain.core.errors import RECLAIMED, ConnectionFailed, ExitCode, RunError
from cloudtrain.core.events import Event, LogLines, Warned
from cloudtrain.core.instance import Details, Instance
from cloudtrain.core.notes import Notes, RunNotes
from cloudtrain.core.plan import CodeSummary, make_plan
from cloudtrain.core.spec import Ec2Spec, JobSpec, Limits, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import ExitRecord
from cloudtrain.lifecycle import checkpoints, spot, stop
from cloudtrain.lifecycle.repeat import continuation
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.ec2.notes import Debt, Ec2Notes
from cloudtrain.provider.local import LocalProvider
from cloudtrain.run_folder import code_copy, outcome
from cloudtrain.run_folder.files import read_attempts
from cloudtrain.source import tree
from cloudtrain.store import Run, Store
from tests import plans

NAME = "brave-otter"


class Killed(BaseException):
    """Stands for a kill -9: nothing catches it."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def context(tmp_path: Path, clock: Clock, told: list[Event]) -> Context:
    store = Store(tmp_path / "registry.sqlite", clock=clock)
    return Context(store=store, provider=lambda spec: LocalProvider(), emit=told.append, clock=clock)


def machine(number: int, **details: Any) -> Instance:
    return Instance(
        id=f"i-{number}",
        provider=Target.EC2,
        owned=True,
        workdir="w",
        type="g4dn.xlarge",
        zone=f"us-east-1{'abc'[number - 1]}",
        price_per_hour=0.36,
        life=InstanceLife.RUNNING,
        details=Details(**{"expires_at": 8200.0, "spot": True, **details}),
    )


def taken(
    context: Context, tmp_path: Path, *, ec2: Ec2Spec | None = None, secrets: tuple[str, ...] = (), **limits: Any
) -> Run:
    """A run of 2 h, interrupted after ten minutes, with a checkpoint here."""
    source = tmp_path / "net"
    source.mkdir()
    (source / "train.py").write_text("print()\n")
    spec = plans.spec(
        tmp_path / "runs",
        NAME,
        target=Target.EC2,
        ec2=ec2 or Ec2Spec(spot=True),
        job=JobSpec(source=str(source), module="net.train", secrets=secrets),
        limits=Limits(**limits),
    )
    run = context.store.add(make_plan(spec, plans.offer(0.36), CodeSummary(files=1, bytes=9)))
    run.folder.mkdir(parents=True)
    files = tree.scan(source, cache=None)
    code_copy.keep(run.folder, files, files.digest, "i-1", context.store.journal(NAME), lambda _: None)
    (run.folder / "console.log").write_bytes(b"one\n")
    (run.folder / "events.jsonl").write_bytes(b'{"kind": "start"}\n')
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "last.pt").write_bytes(b"weights")
    digest = sha256(run.folder / "checkpoints" / "last.pt") or ""
    known = checkpoints.Checkpoint(name="checkpoints/last.pt", size=7, sha256=digest, epoch=1, step=0)
    context.store.write_journal(NAME, RunNotes(checkpoint=known))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
        run = context.store.move(run, state, instance=machine(1), life=InstanceLife.RUNNING)
    context.clock.now += 600  # type: ignore[attr-defined]
    row = spot.told(run, context.store.read_journal(NAME), "its spot instance was taken back")
    return context.store.move(run, RunState.INTERRUPTED, error=row, life=InstanceLife.TERMINATED)


def go_on(run: Run, context: Context) -> Run | None:
    with Session(run, context) as session:
        return spot.go_on(run, session)


def test_it_goes_on_within_the_time_and_the_money_of_the_first_plan(
    context: Context, tmp_path: Path, clock: Clock, told: list[Event]
) -> None:
    run = taken(context, tmp_path)
    assert outcome.exit_code(run) is ExitCode.LIMIT
    again = go_on(run, context)
    assert again is not None and (again.state, again.life) == (RunState.PROVISIONING, InstanceLife.LAUNCHING)
    assert (again.error, again.ending, again.ended_at) == (None, None, None)
    notes = context.store.read_journal(NAME)
    assert (notes.attempt, notes.avoid_zones, notes.run_ends_at) == (2, ("us-east-1a",), 8200.0)
    clock.now += 300
    # The first machine's bill does not grow while the next is looked for.
    assert cost.cost(again, clock.now) == pytest.approx(0.06)
    plan = spot.plan_for(again, notes, clock.now)
    assert plan.limit_s == 8200.0 - clock.now and plan.at_most_usd == run.plan.at_most_usd
    second = spot.priced(machine(2), notes, clock.now)
    assert spot.priced(second, notes, clock.now + 99) == second
    clock.now += 1000
    total = cost.cost(replace(again, instance=second), clock.now)
    assert total == pytest.approx(0.06 + 0.1) and total < (run.plan.at_most_usd or 0)
    assert "stay as they were" in str(told[-2])


def test_log_and_events_of_each_machine_are_kept_apart(context: Context, tmp_path: Path) -> None:
    run = taken(context, tmp_path)
    go_on(run, context)
    (run.folder / "console.log").write_bytes(b"two\n")
    (run.folder / "events.jsonl").write_bytes(b'{"kind": "result"}\n')
    spot.shelve(run.folder, 1)  # a command that comes back does not take the second for the first
    assert (run.folder / "console.1.log").read_bytes() == b"one\n"
    assert [event["kind"] for event in read_attempts(run.folder)] == ["start", "result"]
    [over] = context.store.read_journal(NAME).attempts
    assert over.log == {"bytes": 4, "sha256": sha256(run.folder / "console.1.log"), "whole": False}

    class Shows(Reporter):
        shown = b""

        def emit(self, event: Event) -> None:
            self.shown += event.data if isinstance(event, LogLines) else b""

        plan = result = failure = lambda self, value: None  # type: ignore[assignment]

    reporter = Shows()
    following.show_log(run, reporter, last=None)
    assert reporter.shown == b"one\ntwo\n"


@pytest.mark.parametrize("at", ["write_journal", "shelve", "move"])
def test_a_command_killed_on_the_way_to_the_next_machine_leaves_a_run_that_can_go_on_by_hand(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    run = taken(context, tmp_path)

    def dies(*arguments: Any, **options: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(spot if at == "shelve" else Store, at, dies)
        with pytest.raises(Killed):
            go_on(run, context)
    run = context.store.get(NAME)
    assert run.state is RunState.INTERRUPTED and not context.store.read_journal(NAME).owed
    rest = continuation(run, context.store, "calm-otter")
    assert rest.checkpoint.epoch == 1 and rest.notes.resumed_from["name"] == NAME
    assert b"".join(path.read_bytes() for path in sorted(run.folder.glob("console*.log"))) == b"one\n"


def why_not(told: list[Event]) -> str:
    [warned] = [event for event in told if isinstance(event, Warned)]
    assert f"cloudtrain run --resume {NAME}" in (warned.hint or "")
    return warned.message


@pytest.mark.parametrize(
    ("limits", "later", "notes", "why"),
    [
        ({"spot_restarts": 0}, 0, RunNotes(), "--spot-restarts allows none"),
        ({"spot_restarts": 1}, 0, RunNotes(attempt=2), "--spot-restarts allows 1, and all are used"),
        ({}, 6200, RunNotes(), "7 min are left of its time"),
        ({}, 9999, RunNotes(), "0 min are left of its time"),
        ({}, 0, RunNotes(owed=True), "the end of its machine is not confirmed"),
        ({}, 0, Ec2Notes(release_pending=Debt(id="i-1")), "the end of its machine is not confirmed"),
        ({}, 0, RunNotes(stop_wanted=True), "it was asked to stop"),
    ],
)
def test_no_other_machine(
    context: Context,
    tmp_path: Path,
    clock: Clock,
    told: list[Event],
    limits: dict[str, Any],
    later: float,
    notes: Notes,
    why: str,
) -> None:
    run = taken(context, tmp_path, **limits)
    context.store.write_journal(NAME, notes)
    clock.now += later
    assert go_on(run, context) is None and why in why_not(told)
    assert context.store.get(NAME).state is RunState.INTERRUPTED
    assert (run.folder / "console.log").exists() and not (run.folder / "console.1.log").exists()


def test_no_other_machine_for_a_command_that_lacks_a_secret(
    context: Context, tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = taken(context, tmp_path, secrets=("MY_TOKEN",))
    assert go_on(run, context) is None and "does not know the secret MY_TOKEN" in why_not(told)
    monkeypatch.setenv("MY_TOKEN", "hunter2-Zq7")
    assert go_on(context.store.get(NAME), context) is not None


def test_no_other_machine_while_one_may_live(context: Context, tmp_path: Path, told: list[Event]) -> None:
    run = context.store.note(taken(context, tmp_path), life=InstanceLife.RUNNING)
    assert go_on(run, context) is None and "not confirmed" in why_not(told)


def test_other_code_is_never_sent_for_the_rest_of_a_run(context: Context, tmp_path: Path, told: list[Event]) -> None:
    run = taken(context, tmp_path)
    (tmp_path / "net" / "train.py").write_text("print('other')\n")
    notes = context.store.read_journal(NAME) | RunNotes(attempt=2)
    assert (spot.source_of(run, notes) / "train.py").read_text() == "print()\n"
    (run.folder / "code.tar.gz").unlink()
    assert go_on(run, context) is None and "is not what brave-otter ran" in why_not(told)


def test_a_users_own_spot_instance_and_other_ends_are_left_alone(context: Context, tmp_path: Path) -> None:
    run = taken(context, tmp_path, ec2=Ec2Spec(spot=True, instance_id="i-1"))
    assert go_on(run, context) is None
    other = replace(
        run, error=RunError(code="no_capacity"), plan=replace(run.plan, spec=replace(run.plan.spec, ec2=None))
    )
    assert go_on(other, context) is None


def test_a_stop_is_on_record_before_anything_else(context: Context, tmp_path: Path) -> None:
    """So that the command which follows the run launches nothing more for it."""
    run = taken(context, tmp_path)
    go_on(run, context)

    def nobody(spec: object) -> Any:
        raise ConnectionFailed("there is nobody to ask")

    with pytest.raises(ConnectionFailed):
        stop.stop(context.store.get(NAME), replace(context, provider=nobody))
    assert context.store.read_journal(NAME).stop_wanted is True


def test_what_is_fetched_before_the_end_is_tried_again_and_not_for_ever(
    context: Context, tmp_path: Path, clock: Clock
) -> None:
    run = taken(context, tmp_path)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.now += seconds

    going = replace(run, state=RunState.PULLING, ending=ExitRecord(stop="spot"))
    with Session(run, replace(context, sleep=sleep)) as session:
        broken = ConnectionFailed("the link broke")
        tries: list[Any] = [broken, broken, going]

        def act() -> Run:
            step = tries.pop(0)
            if isinstance(step, Exception):
                raise step
            return step  # type: ignore[no-any-return]

        assert spot.within_notice(going, session, act) is going and len(waited) == 2
        tries[:] = [broken]
        with pytest.raises(ConnectionFailed):
            spot.within_notice(replace(going, ending=ExitRecord(stop="user")), session, act)
        tries[:] = [broken] * 500
        with pytest.raises(ConnectionFailed):
            spot.within_notice(going, session, act)
        assert 400 < len(tries) < 500
        tries[:] = [ConnectionFailed("it is gone", code=RECLAIMED), going]
        with pytest.raises(ConnectionFailed, match="gone"):
            spot.within_notice(going, session, act)
