"""A spot instance that is taken back, and the next one: never two that are billed, no later end, no old key."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from cloudtrain.core.errors import (
    GONE,
    RECLAIMED,
    CloudtrainError,
    ConnectionFailed,
    QuotaExceeded,
    Refused,
    SignInError,
)
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.plan import Plan
from cloudtrain.core.spec import Limits
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.provider.ec2 import instances, tags
from cloudtrain.provider.ec2.launch import acquire
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.reach import boot
from tests.lease_end import lease_end
from tests.region.ec2.conftest import QUICK, Killed, Notes, Trip

SHORT = replace(QUICK, poll=0.1, settle=0.3)


def again(trip: Trip, number: int = 2, *avoided: str) -> None:
    """What the story notes before it asks for another machine."""
    trip.notes.write(RunNotes(attempt=number, avoid_zones=tuple(avoided)))


def state(trip: Trip, instance_id: str) -> str:
    return instances.state_of(instances.one(trip.clients, instance_id) or {})


def ended(trip: Trip, instance_id: str) -> dict[str, Any]:
    """EC2's description of an instance, once it has ended."""
    for _ in range(200):
        found = instances.one(trip.clients, instance_id) or {}
        if instances.state_of(found) == "terminated":
            return dict(found)
        time.sleep(0.1)
    raise AssertionError(f"{instance_id} lives")


def tokens(trip: Trip) -> list[str]:
    return [str(call["parameters"]["ClientToken"]) for call in trip.launches()]


def alive(trip: Trip) -> list[str]:
    """What is billed, or will be."""
    return [str(found["InstanceId"]) for found in instances.described(trip.clients, tags.where())]


@pytest.fixture
def taken(trip_of: Any) -> tuple[Trip, Instance]:
    """A run whose first spot instance was logged in to, and then taken back."""
    from moto.ec2.models import ec2_backends

    from cloudtrain.emulator.aws.core import SPOT_TERMINATION

    trip = trip_of(spot=True, limits=Limits(max_time_s=3600.0))
    first = trip.acquire()
    trip.open(first).close()
    [machine] = ec2_backends[trip.region.account][trip.region.name].all_instances()
    trip.region.core.lives.terminate(machine, SPOT_TERMINATION)
    ended(trip, first.id)
    return trip, first


def test_an_instance_that_was_taken_back_is_told_apart(
    taken: tuple[Trip, Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 1.0)
    trip, first = taken
    assert ended(trip, first.id)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(first)
    assert caught.value.code == RECLAIMED and "Server.SpotInstanceTermination" in caught.value.message
    assert trip.find() is None
    assert "had already ended: Server.SpotInstanceTermination" in trip.release(first).summary
    assert trip.left() == {}


def test_one_that_was_ended_otherwise_is_gone(trip_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 1.0)
    trip = trip_of("terminated:2", spot=True)
    first = trip.acquire()
    ended(trip, first.id)
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(first)
    assert caught.value.code == GONE
    trip.release(first)


def test_one_that_ec2_has_forgotten_is_gone(trip_of: Any, region_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 1.0)
    region = region_of(timing=Timing(pending_s=0.1, boot_s=0.1, forget_s=0.1))
    trip = trip_of("terminated:1", region=region, pace=replace(QUICK, visible=2.0))
    first = trip.acquire()
    for _ in range(100):
        if instances.one(trip.clients, first.id) is None:
            break
        time.sleep(0.1)
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(first)
    assert caught.value.code == GONE and "no longer knows it" in caught.value.message
    trip.release(first)


def test_the_next_machine_is_elsewhere_trusted_anew_and_ends_when_the_first_would_have(
    taken: tuple[Trip, Instance],
) -> None:
    trip, first = taken
    pinned = trip.notes.read(Ec2Notes).host_key
    again(trip, 2, "us-east-1a")
    second = trip.acquire()
    assert (first.zone, second.zone) == ("us-east-1a", "us-east-1b") and second.id != first.id
    assert second.details.spot and second.details.expires_at == first.details.expires_at
    assert second.details.token.endswith("-2") and len(set(tokens(trip))) == trip.effects() == 2
    assert second.host_key not in (pinned, first.host_key)
    with trip.open(second) as transport:
        assert transport.run(["true"]).exit_code == 0
        elapses = lease_end(trip.region.machines()[second.id].root)
        assert elapses is not None and abs(elapses - first.details.expires_at) < 2
    launch = trip.launches()[-1]["parameters"]
    assert launch["InstanceInitiatedShutdownBehavior"] == "terminate" and "one-time" in str(launch)
    assert trip.find() == trip.acquire() and alive(trip) == [second.id]
    assert trip.notes.read(Ec2Notes).former == ()
    # One group for both, and it goes with the last.
    assert len(trip.region.calls("CreateSecurityGroup")) == 1
    trip.release(second)
    assert trip.left() == {}


def test_after_a_release_the_lease_is_still_the_first_one(taken: tuple[Trip, Instance]) -> None:
    trip, first = taken
    trip.release(first)
    assert trip.left() == {}
    again(trip)
    second = trip.acquire()
    assert second.details.expires_at == first.details.expires_at and second.details.token.endswith("-2")
    trip.open(second).close()
    trip.release(second)
    assert trip.left() == {}


def test_a_shorter_plan_is_honoured_and_a_longer_one_is_not(taken: tuple[Trip, Instance]) -> None:
    trip, first = taken
    plan: Plan = trip.plan
    trip.plan = replace(plan, limit_s=600.0)
    again(trip)
    second = trip.acquire()
    assert second.details.expires_at < time.time() + 610
    trip.plan = replace(plan, limit_s=86400.0)
    again(trip, 3)
    third = trip.acquire()
    assert third.details.expires_at == first.details.expires_at and alive(trip) == [third.id]
    trip.release(third)
    assert trip.left() == {}


def test_a_run_whose_time_is_over_gets_no_other_machine(taken: tuple[Trip, Instance]) -> None:
    trip, _ = taken
    trip.notes.write(Ec2Notes(ends_by=time.time() + 30))
    again(trip)
    with pytest.raises(Refused) as caught:
        trip.acquire()
    assert caught.value.code == "lease_over" and trip.effects() == 1 and trip.left() == {}


def test_an_extended_lease_is_the_runs(trip_of: Any) -> None:
    trip = trip_of(spot=True, limits=Limits(max_time_s=3600.0))
    first = trip.acquire()
    later = float(int(time.time() + 5000))
    with trip.open(first) as transport:
        assert trip.machine(first).extend(transport, later)
    again(trip)
    trip.plan = replace(trip.plan, limit_s=86400.0)
    second = trip.acquire()
    assert second.details.expires_at == later
    trip.release(second)
    assert trip.left() == {}


def test_a_machine_that_is_still_there_is_ended_first(trip_of: Any) -> None:
    trip = trip_of(spot=True)
    first = trip.acquire()
    seen: list[str] = []
    trip.clients.ec2_launch.meta.events.register(
        "before-call.ec2.RunInstances", lambda **ignored: seen.append(state(trip, first.id))
    )
    again(trip)
    second = trip.acquire()
    assert second.id != first.id and len(seen) == 1 and seen[0] in ("shutting-down", "terminated")
    assert f"{first.id} has ended: Client.UserInitiatedShutdown" in trip.said()
    ended(trip, first.id)
    trip.release(second)
    assert trip.left() == {}


def test_a_machine_that_cannot_be_ended_keeps_its_place_and_nothing_else_is_launched(trip_of: Any) -> None:
    trip = trip_of("UnauthorizedOperation:1@TerminateInstances", spot=True)
    first = trip.acquire()
    again(trip)
    with pytest.raises(SignInError) as caught:
        trip.acquire()
    assert first.id in caught.value.message + str(caught.value.consequence) and "billed" in str(
        caught.value.consequence
    )
    assert trip.effects() == 1 and trip.notes.read(Ec2Notes).former == (first.id,)
    assert trip.find().id == first.id
    second = trip.acquire()
    assert alive(trip) == [second.id]
    trip.release(second)
    assert trip.left() == {}


def test_a_lost_answer_at_the_second_attempt_gives_one_instance(taken: tuple[Trip, Instance]) -> None:
    trip, _ = taken
    trip.region.inject("lost-response@RunInstances")
    again(trip)
    second = trip.acquire()
    assert trip.effects() == 2 and alive(trip) == [second.id]
    assert len(tokens(trip)) == 3 and len(set(tokens(trip)[1:])) == 1
    trip.release(second)
    assert trip.left() == {}


def test_killed_at_any_write_of_the_second_attempt_one_instance_is_left(trip_of: Any, region_of: Any) -> None:
    region = region_of(timing=Timing(pending_s=0.05, boot_s=0.05, shutting_down_s=0.05))
    deaths = 0
    for released, points in ((False, range(1, 8)), (True, (1, 3))):
        for point in points:
            name = f"otter-{point}-{'released' if released else 'there'}"
            trip = trip_of(region=region, spot=True, name=name, pace=SHORT)
            first = trip.acquire()
            if released:
                trip.release(first)
            again(trip, 2, "us-east-1a")
            before = len(region.calls("RunInstances"))
            trip.notes.die_at = trip.notes.writes + point
            try:
                second = trip.acquire()
            except Killed:
                deaths += 1
                # Whatever was launched is found, by the run's own notes and by no note at all.
                for each in alive(trip):
                    found = trip.find()
                    assert found is not None and found.id == each
                second = trip.acquire()
            trip.notes.die_at = None
            assert sum(call["effect"] for call in region.calls("RunInstances")[before:]) == 1
            assert alive(trip) == [second.id] and trip.find().id == second.id != first.id
            trip.release(second)
            assert trip.left() == {}
    assert deaths == 9


def test_killed_before_the_second_launch_a_release_leaves_nothing(trip_of: Any, region_of: Any) -> None:
    """The story gives the machine back when a step fails; here the one before is still up."""
    region = region_of(timing=Timing(pending_s=0.05, boot_s=0.05, shutting_down_s=0.05))
    for point in range(1, 8):
        trip = trip_of(region=region, spot=True, name=f"otter-{point}", pace=SHORT)
        first = trip.acquire()
        again(trip)
        trip.notes.die_at = trip.notes.writes + point
        with pytest.raises(Killed):
            trip.acquire()
        trip.notes.die_at = None
        found = trip.find()
        if found is not None:
            trip.release(found)
        assert alive(trip) == [], f"killed at write {point}"
        ended(trip, first.id)
        # What is left costs nothing and carries the marks of the run.
        assert {item.kind for item in instances.inventory(trip.clients, run=trip.plan.spec.name)} <= {"security group"}


def test_two_that_are_up_both_end_with_the_run(trip_of: Any) -> None:
    """Not by our doing; but should it happen, a release of one ends the other too."""
    trip = trip_of(spot=True)
    first = trip.acquire()
    notes = trip.notes.read(Ec2Notes)
    trip.notes = Notes()
    trip.notes.write(RunNotes(attempt=2))
    second = trip.acquire()
    trip.notes.write(Ec2Notes(seeds=(*notes.seeds, *trip.notes.read(Ec2Notes).seeds)))
    assert len(alive(trip)) == 2 and trip.find().id == second.id
    trip.release(second)
    assert state(trip, first.id) in ("shutting-down", "terminated") and trip.left() == {}


def test_the_quota_may_count_the_machine_before_for_a_while(
    taken: tuple[Trip, Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquire, "QUOTA_PAUSE_S", 0.3)
    trip, _ = taken
    trip.region.inject("MaxSpotInstanceCountExceeded:2@RunInstances")
    again(trip)
    second = trip.acquire()
    assert len(set(tokens(trip)[1:])) == 1 and trip.effects() == 2
    trip.release(second)
    assert trip.left() == {}


def test_a_quota_that_stays_used_up_ends_the_wait(
    taken: tuple[Trip, Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquire, "QUOTA_PAUSE_S", 0.2)
    monkeypatch.setattr(acquire, "QUOTA_WAIT_S", 1.0)
    trip, _ = taken
    trip.region.inject("MaxSpotInstanceCountExceeded:1000@RunInstances")
    again(trip)
    with pytest.raises(QuotaExceeded):
        trip.acquire()
    assert trip.effects() == 1 and trip.left() == {}


def test_full_everywhere_leaves_a_run_that_can_be_tried_again(taken: tuple[Trip, Instance]) -> None:
    trip, first = taken
    trip.region.inject("capacity:*")
    again(trip, 2, "us-east-1a")
    with pytest.raises(CloudtrainError) as caught:
        trip.acquire()
    assert caught.value.code == "no_capacity" and trip.left() == {}
    assert trip.launches()[-1]["parameters"] and len(trip.launches()) == 6
    trip.region.faults.replace([])
    again(trip, 3)
    third = trip.acquire()
    trip.open(third).close()
    assert third.details.expires_at == first.details.expires_at
    trip.release(third)
    assert trip.left() == {}


def test_the_first_attempt_is_as_it_always_was(trip_of: Any) -> None:
    trip = trip_of(spot=True)
    trip.notes.write(RunNotes(attempt=1, avoid_zones=()))
    first = trip.acquire()
    assert "-" not in first.details.token and trip.acquire().id == first.id and len(trip.launches()) == 1
    assert tags.utc_seconds(tags.utc_text(trip.notes.read(Ec2Notes).ends_by)) == first.details.expires_at
    trip.release(first)
    assert trip.left() == {}
