"""Random stories of a machine, in simulated hours: what every screen says of money is held against EC2's own record."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.billing import cost, running
from cloudtrain.cli import standing
from cloudtrain.console.pages import listing
from cloudtrain.core.plan import OfferDetails
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.store import Run, Store
from tests import plans

HOUR, DISK_A_DAY, LEASE_S, WAKE_S = 0.5, 0.12, 7200.0, 1800.0
# Claims that nothing is billed by the hour.
FREE = re.compile(r"nothing (?:of it )?is billed|not billed|terminated|is parked")


@dataclass
class Ec2:
    """What EC2 does with one machine, and its own record of it: [start, end or None]."""

    now: float
    expires_at: float = 0.0
    up: list[list[float | None]] = field(default_factory=list)
    life: InstanceLife = InstanceLife.NONE
    parked: bool = False
    gone: float | None = None

    def start(self, lease_s: float) -> None:
        self.up.append([self.now, None])
        self.life, self.expires_at = InstanceLife.RUNNING, self.now + lease_s

    def stop(self, life: InstanceLife) -> None:
        if self.life is InstanceLife.RUNNING:
            self.up[-1][1] = self.now
            self.parked = life is InstanceLife.PARKED
        if life is InstanceLife.TERMINATED and self.gone is None:
            self.gone = self.now
        self.life = life

    def passes(self, seconds: float, parks: bool) -> None:
        """Time; the lease ends the machine, whoever watches."""
        until = self.now + seconds
        if self.life is InstanceLife.RUNNING and until >= self.expires_at:
            self.now = self.expires_at
            self.stop(InstanceLife.PARKED if parks else InstanceLife.TERMINATED)
        self.now = until

    def since(self) -> float | None:
        return self.up[-1][1]

    def usd(self) -> float:
        """What EC2 bills until now, disk of parked times included."""
        total = 0.0
        for number, (began, ended) in enumerate(self.up):
            assert began is not None
            total += HOUR * max(60.0, (self.now if ended is None else ended) - began) / 3600
            if ended is not None and (number + 1 < len(self.up) or self.parked):
                again = self.up[number + 1][0] if number + 1 < len(self.up) else self.gone or self.now
                assert again is not None
                total += DISK_A_DAY * (again - ended) / 86400
        return total


class Story:
    """One run, as the product keeps it, beside EC2 as it is.

    `tells`: EC2 says since when a machine is down that has ended by itself; else its lease's end has to do. Of one that
    somebody has ended it always does.
    """

    def __init__(self, folder: Path, parks: bool, tells: bool) -> None:
        self.ec2, self.parks, self.tells = Ec2(now=1_800_000_000.0), parks, tells
        self.store = Store(folder / "registry.sqlite", clock=lambda: self.ec2.now)
        plan = plans.plan(folder / "runs", target=Target.EC2, ec2=Ec2Spec())
        self.plan = replace(plan, offer=replace(plan.offer, details=OfferDetails(parked_per_day=DISK_A_DAY)))
        run = self.store.move(self.store.add(self.plan), RunState.PROVISIONING, life=InstanceLife.LAUNCHING)
        self.ec2.passes(40.0, parks)
        self.ec2.start(LEASE_S)
        machine = plans.machine(began_at=self.ec2.now, expires_at=self.ec2.expires_at)
        for state in (RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
            run = self.store.move(run, state, life=InstanceLife.RUNNING, instance=machine)
        self.name = run.name
        self.sees = True  # the registry knows how EC2 has it now

    @property
    def run(self) -> Run:
        return self.store.get(self.name)

    def wait(self, seconds: float) -> None:
        before = self.ec2.life
        self.ec2.passes(seconds, self.parks)
        self.sees = self.sees and before is self.ec2.life

    def look(self) -> None:
        """Somebody asks EC2."""
        run = self.run
        assert run.instance is not None
        if not self.ec2.life.may_be_up:
            at = self.ec2.since() if self.tells or run.state.final else None
            if run.life is InstanceLife.PARKED and self.ec2.life is InstanceLife.TERMINATED:
                over = cost.ended(run.instance, self.ec2.gone, self.ec2.now, disk_per_day=DISK_A_DAY)
            else:
                over = cost.ended(run.instance, at, self.ec2.now)
            self.store.note(run, life=self.ec2.life, instance=over)
        self.sees = True

    def wake(self) -> None:
        self.look()
        if self.ec2.life is InstanceLife.PARKED:
            self.ec2.start(WAKE_S)
            new = plans.machine(began_at=self.ec2.now, expires_at=self.ec2.expires_at)
            self.store.note(self.run, life=InstanceLife.RUNNING, instance=cost.woken(self.run, new, self.ec2.now))

    def give_back(self, confirmed: bool) -> None:
        """The end of the run: EC2 does it, and says so or does not."""
        self.look()
        self.ec2.stop(InstanceLife.TERMINATED)
        self.sees = False
        run = self.store.move(self.run, RunState.PULLING)
        self.store.move(run, RunState.SUCCEEDED)
        if confirmed:
            self.look()

    def check(self) -> None:
        now, run = self.ec2.now, self.run
        told, record = cost.cost(run, now), self.ec2.usd()
        assert told is not None
        if self.sees or self.ec2.life is not InstanceLife.TERMINATED:
            off = abs(told - record)
            # What is not seen yet is the disk of a machine that parked by itself: the rest its lease has told.
            unseen = DISK_A_DAY * max(0.0, now - self.ec2.expires_at) / 86400 if not self.sees else 0.0
            assert off <= max(0.01, 0.02 * record) + unseen, (told, record, run.instance)
        else:
            assert told >= record - 0.01, "an end that is not confirmed costs no less than it does"
        said = [*listing.table([run]), *listing.page(run, self.store), standing.machine(run, self.store, now) or ""]
        if self.ec2.life is InstanceLife.RUNNING:
            claims = [line for line in said if FREE.search(line)]
            assert not claims, claims
            assert running.of([(run, self.store.read_journal(run.name))], now)["running"]
        if self.sees and self.ec2.life is InstanceLife.TERMINATED and run.state.final:
            assert not running.of([(run, self.store.read_journal(run.name))], now)["running"]
        json.dumps(listing.record(run), allow_nan=False)


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1.0, 52.0, 235.0, 1800.0, 7300.0, 86400.0])),
    st.tuples(st.sampled_from(["look", "wake"]), st.none()),
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    steps=st.lists(STEPS, max_size=12),
    parks=st.booleans(),
    tells=st.booleans(),
    confirmed=st.sampled_from([None, True, False]),
)
def test_no_sentence_is_false_and_every_cost_is_that_of_ec2(
    steps: list[tuple[str, float | None]], parks: bool, tells: bool, confirmed: bool | None
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        story = Story(Path(folder), parks, tells)
        patched.setattr("time.time", lambda: story.ec2.now)
        for step, seconds in steps:
            story.wait(seconds) if seconds is not None else getattr(story, step)()
            story.check()
        if confirmed is not None:
            story.give_back(confirmed)
            story.check()
            story.wait(600.0)
            story.look()
            story.check()
