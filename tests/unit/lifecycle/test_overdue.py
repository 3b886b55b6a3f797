"""Who follows a run holds its end, by EC2's word alone and by a clock that nobody sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.billing import expiry, running
from cloudtrain.cli import standing
from cloudtrain.console.pages import listing
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Event, StepProgress, Warned
from cloudtrain.core.instance import Ended, Instance
from cloudtrain.core.notes import Journal, RunNotes
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import overdue
from cloudtrain.store import Run, Store
from tests import plans

END = 1_800_000_000.0
TRAINS = (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING)


@dataclass
class Account:
    """EC2's side: what it was asked for, and what it answers."""

    asked: list[bool] = field(default_factory=list)
    fails: bool = False
    had_ended: bool = False

    def machine(self, instance: Instance, journal: Journal, emit: Any) -> Account:
        return self

    def end(self, *, parks: bool) -> Ended:
        self.asked.append(parks)
        if self.fails:
            raise ConnectionFailed("EC2 does not answer")
        return Ended(InstanceLife.PARKED if parks else InstanceLife.TERMINATED, told=not self.had_ended)


@dataclass
class Scene:
    store: Store
    account: Account
    steady: float = 1000.0
    wall: float = END - 100.0
    told: list[Event] = field(default_factory=list)

    def run(self, *states: RunState, target: Target = Target.EC2, ec2: Ec2Spec | None = None, **notes: Any) -> Run:
        run = self.store.add(plans.plan(self.store.path.parent / "runs", target=target, ec2=ec2 or Ec2Spec()))
        for state in states:
            run = self.store.move(run, state)
        self.store.write_journal(run.name, RunNotes.of(notes))
        return self.store.note(run, life=InstanceLife.RUNNING, instance=plans.machine(expires_at=END))

    def guard(self, run: Run) -> overdue.Guard:
        provider: Any = self.account
        journal = self.store.journal(run.name)
        return overdue.Guard(run, self.store, provider, journal, lambda: self.wall, lambda: self.steady)

    def after(self, guard: overdue.Guard, seconds: float) -> str:
        """What is told when so many seconds have passed since the guard began."""
        self.steady = 1000.0 + seconds
        guard.look()
        guard.say(self.told.append)
        return " ".join(f"{event.message} {event.hint}" for event in self.told if isinstance(event, Warned))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(Store(tmp_path / "registry.sqlite"), Account())


def test_a_machine_that_outlives_its_end_is_parked_through_ec2_whatever_its_host_says(scene: Scene) -> None:
    run = scene.run(*TRAINS)
    guard = scene.guard(run)
    assert scene.after(guard, 100 + 59) == "" and scene.account.asked == []
    told = scene.after(guard, 100 + 61)
    assert scene.account.asked == [True]
    assert "should have ended by" in told and "EC2 was asked to end it, and says at" in told and "stopped" in told
    now = scene.store.get(run.name)
    assert now.life is InstanceLife.PARKED and expiry.away(now)
    assert scene.after(guard, 900) == told, "once"


def test_no_clock_that_is_set_moves_the_end(scene: Scene) -> None:
    guard = scene.guard(scene.run(*TRAINS))
    scene.wall -= 3 * 3600.0
    scene.after(guard, 100 + 61)
    assert scene.account.asked == [True]


@pytest.mark.parametrize("notes", [{}, {"pulled": []}], ids=["nothing-sent", "all-here"])
def test_with_nothing_to_lose_it_is_terminated(scene: Scene, notes: dict[str, Any]) -> None:
    run = scene.run(*(TRAINS if notes else TRAINS[:2]), **notes)
    assert "terminated" in scene.after(scene.guard(run), 200)
    assert scene.account.asked == [False]


def test_one_that_had_ended_by_itself_is_known_and_not_spoken_of(scene: Scene) -> None:
    scene.account.had_ended = True
    run = scene.run(*TRAINS)
    assert scene.after(scene.guard(run), 200) == ""
    assert scene.store.get(run.name).life is InstanceLife.PARKED


def test_without_an_answer_nothing_is_claimed_and_it_is_tried_again(scene: Scene) -> None:
    scene.account.fails = True
    run = scene.run(*TRAINS)
    guard = scene.guard(run)
    told = scene.after(guard, 200)
    assert "has not said that it did: EC2 does not answer" in told and f"cloudtrain stop {run.name}" in told
    assert scene.after(guard, 210) == told and scene.store.get(run.name).life is InstanceLife.RUNNING
    scene.account.fails = False
    assert "says at" in scene.after(guard, 220)


@pytest.mark.parametrize(("target", "ec2"), [(Target.HOST, None), (Target.EC2, Ec2Spec(instance_id="i-1"))])
def test_a_machine_of_the_users_is_never_ended(scene: Scene, target: Target, ec2: Ec2Spec | None) -> None:
    guard = scene.guard(scene.run(*TRAINS, target=target, ec2=ec2))
    guard.last_call(1.0, "no")
    scene.after(guard, 90000)
    assert scene.account.asked == []


def test_a_host_that_drips_for_ever_holds_no_stop(scene: Scene) -> None:
    run = scene.run(*TRAINS, RunState.PULLING)
    guard = scene.guard(run)
    guard.last_call(50.0, "what it has did not come within 50 s")
    hears = guard.hearing(scene.told.append)
    hears(StepProgress("pull", "model.pt", done=80_000.0, total=1e9, unit="B"))
    assert scene.after(guard, 55) == "", "8 kB a second is a slow link"
    assert "did not come within 50 s" in scene.after(guard, 61)
    assert scene.account.asked == [True] and not guard.wakes


def test_what_is_past_its_end_is_said_to_be_so_and_no_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: END + 30.0)
    run = scene.run(*TRAINS)
    words = f"not confirmed; cloudtrain stop {run.name}"
    table, page = listing.table([run]), listing.page(run, scene.store)
    assert "past its end, not confirmed" in table[1] and any(words in line for line in table[2:])
    assert any(words in line for line in page)
    assert words in str(standing.machine_up(run, END + 30.0))
    billed = running.of([(run, {})], END + 30.0)
    assert (billed["running"], billed["ends_by"]) == (True, None)
    assert expiry.overdue_s(run, END - 1.0) is None
