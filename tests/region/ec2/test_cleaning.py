"""Leftovers are found by their tags, judged with care, and gone only when EC2 says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cloudtrain.core.errors import SignInError
from cloudtrain.core.events import Event
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.end import cleaning
from cloudtrain.provider.ec2.end.cleaning import Known, judge
from cloudtrain.provider.ec2.instances import Item
from tests.region.ec2.conftest import QUICK

NOW = 1_800_000_000.0
LIVE = Item(kind="instance", id="i-1", state="running", run="brave-otter", token="feed", expires_at=NOW + 600)
OVER = replace(LIVE, expires_at=NOW - cleaning.OVERDUE_S)
PARKED = replace(OVER, state="stopped")
DISK = Item(kind="volume", id="vol-1", state="available", run="brave-otter", token="feed", expires_at=NOW + 600)
GROUP = Item(kind="security group", id="sg-1", run="brave-otter", token="feed")
RUN = Known(run="brave-otter", tokens=frozenset({"feed"}))


@pytest.mark.parametrize(
    ("item", "run", "why"),
    [
        (OVER, None, "its lease is over"),
        (LIVE, RUN, "its run never began to train"),
        (OVER, RUN, "its run never began to train"),
        (LIVE, replace(RUN, ended=True), "its run ended before training began"),
        (LIVE, replace(RUN, trained=True, pulled=True, ended=True), "its run is over and pulled"),
        (PARKED, replace(RUN, trained=True, pulled=True), "its results are pulled"),
        (DISK, replace(RUN, trained=True, pulled=True, ended=True), "its run is over and pulled"),
        (replace(DISK, expires_at=NOW - 3600), None, "its run is over, no instance holds it"),
        (GROUP, None, "no instance uses it"),
    ],
)
def test_what_is_safe_to_end(item: Item, run: Known | None, why: str) -> None:
    assert judge(item, run, {}, NOW) == (True, why, None)


@pytest.mark.parametrize(
    ("item", "run", "why", "loss"),
    [
        # Nobody here knows it: it may be training for another computer, or hold a result on its disk.
        (LIVE, None, "may be training", "what brave-otter has trained"),
        (PARKED, None, "parked", "the results of brave-otter"),
        # Its lease has just ended: it may be about to park what it has.
        (replace(LIVE, expires_at=NOW - 60), None, "may be training", "what brave-otter has trained"),
        (replace(LIVE, expires_at=None), None, "may be training", "what brave-otter has trained"),
        # A result that exists there alone is kept even when the lease is over.
        (LIVE, replace(RUN, trained=True), "trains and is not pulled", "the results of brave-otter"),
        (OVER, replace(RUN, trained=True), "has trained and is not pulled", "the results of brave-otter"),
        (PARKED, replace(RUN, trained=True), "is parked and is not pulled", "the results of brave-otter"),
        (replace(DISK, expires_at=NOW - 1), replace(RUN, trained=True), "not pulled", "the results of brave-otter"),
        (DISK, None, "not known here", "what is on vol-1"),
        (replace(DISK, state="in-use"), None, "held by a machine that is not ours", "what is on vol-1"),
        (replace(DISK, state="in-use"), replace(RUN, ended=True), "not ours", "what is on vol-1"),
        # Another command is at it.
        (LIVE, replace(RUN, busy=True), "another command is acting", None),
        (GROUP, replace(RUN, busy=True), "another command is acting", None),
        (LIVE, replace(RUN, busy=True, trained=True), "another command is acting", "what brave-otter is doing"),
    ],
)
def test_what_is_not_safe_to_end(item: Item, run: Known | None, why: str, loss: str | None) -> None:
    safe, told, lost = judge(item, run, {}, NOW)
    assert not safe and why in told
    assert (lost is None) == (loss is None) and (loss or "") in (lost or "")


@pytest.mark.parametrize("safe", [True, False])
def test_a_group_goes_with_its_instance_and_not_before(safe: bool) -> None:
    assert judge(GROUP, None, {"feed": safe}, NOW) == (safe, "it goes with its instance", None)


def test_everything_is_found_priced_and_ended_with_no_local_state(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    instance = trip.acquire()
    left = cleaning.find(trip.clients, [], time.time())
    assert [one.item.kind for one in left] == ["instance", "security group"]
    (machine, group) = left
    assert machine.item.id == instance.id and machine.age_s is not None and 0 <= machine.age_s < 60
    assert machine.usd_per_hour == pytest.approx(0.526 + 0.005 + machine.usd_per_month / 730, abs=0.002)  # type: ignore[operator]
    assert not machine.safe and not group.safe and machine.billed and not group.billed
    told: list[Event] = []
    ended = cleaning.end(left, trip.clients, told.append, QUICK)
    assert [(one.leftover.item.kind, one.gone, one.told) for one in ended] == [
        ("instance", True, "terminated"),
        ("security group", True, "deleted"),
    ]
    assert trip.left() == {} and cleaning.find(trip.clients, [], time.time()) == []
    # Again is no error.
    assert all(one.gone for one in cleaning.end(left, trip.clients, told.append, QUICK))


def test_a_run_that_is_known_is_judged_by_what_is_known(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    instance = trip.acquire()
    known = Known(run="brave-otter", tokens=frozenset({instance.details["token"]}))
    assert all(one.safe and one.known is known for one in cleaning.find(trip.clients, [known], time.time()))
    later = instance.details["expires_at"] + 3600
    trained = replace(known, trained=True)
    assert not any(one.safe for one in cleaning.find(trip.clients, [trained], later))
    assert all(one.safe for one in cleaning.find(trip.clients, [], later))
    trip.release(instance)


def test_a_refused_termination_keeps_no_other_from_ending(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    first = trip.acquire()
    second = trip_of(name="calm-raven", region=trip.region)
    second.acquire()
    left = cleaning.find(trip.clients, [], time.time())
    machines = sorted((one for one in left if one.item.kind == "instance"), key=lambda one: one.item.id != first.id)
    trip.region.inject("error:UnauthorizedOperation:1@TerminateInstances")
    ended = cleaning.end(machines[:1], trip.clients, lambda event: None, QUICK)
    ended += cleaning.end(machines[1:], trip.clients, lambda event: None, QUICK)
    assert [one.gone for one in ended] == [False, True]
    assert ended[0].may_cost and isinstance(ended[0].error, SignInError) and "TerminateInstances" in ended[0].told
    assert not ended[1].may_cost
    rest = cleaning.find(trip.clients, [], time.time())
    assert [one.item.id for one in rest if one.item.kind == "instance"] == [first.id]
    assert all(one.gone for one in cleaning.end(rest, trip.clients, lambda event: None, QUICK))
    assert trip.left() == {}


def test_an_answer_that_says_so_is_not_enough(trip_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """TerminateInstances answers well, the instance goes on: it is reported as still there."""
    trip = trip_of()
    instance = trip.acquire()
    (machine, _) = cleaning.find(trip.clients, [], time.time())
    real = trip.clients.ec2.terminate_instances
    monkeypatch.setattr(trip.clients.ec2, "terminate_instances", lambda **asked: {"TerminatingInstances": []})
    (ended,) = cleaning.end([machine], trip.clients, lambda event: None, replace(QUICK, end=1.0))
    assert not ended.gone and ended.may_cost and "still running" in ended.told
    monkeypatch.setattr(trip.clients.ec2, "terminate_instances", real)
    trip.release(instance)


def test_a_lost_answer_is_asked_for_again(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    trip.acquire()
    trip.region.inject("lost-response@TerminateInstances")
    left = cleaning.find(trip.clients, [], time.time())
    assert all(one.gone for one in cleaning.end(left, trip.clients, lambda event: None, QUICK))
    assert trip.left() == {}


def test_a_disk_that_was_left_behind(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    marks = tags.tags_of_run("brave-otter", "feed", "me", time.time() - 3600)
    made = trip.clients.ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=45, TagSpecifications=tags.specifications(marks, "volume")
    )
    (disk,) = cleaning.find(trip.clients, [], time.time())
    assert (disk.item.id, disk.safe, disk.usd_per_hour) == (made["VolumeId"], True, None)
    assert disk.usd_per_month == pytest.approx(3.6)
    (ended,) = cleaning.end([disk], trip.clients, lambda event: None, QUICK)
    assert (ended.gone, ended.told) == (True, "deleted")
    assert trip.left() == {}
    (again,) = cleaning.end([disk], trip.clients, lambda event: None, QUICK)
    assert again.gone


def test_a_group_in_use_is_said_to_cost_nothing(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    instance = trip.acquire()
    (_, group) = cleaning.find(trip.clients, [], time.time())
    (ended,) = cleaning.end([group], trip.clients, lambda event: None, replace(QUICK, group=0.5))
    assert not ended.gone and not ended.may_cost and "costs nothing" in ended.told
    trip.release(instance)


def test_a_parked_instance_costs_its_disk(trip_of: Callable[..., Any]) -> None:
    trip = trip_of()
    instance = trip.acquire()
    trip.clients.ec2.stop_instances(InstanceIds=[instance.id])
    deadline = time.monotonic() + 20
    while (machine := cleaning.find(trip.clients, [], time.time())[0]).item.state != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert machine.parked and machine.usd_per_hour is None and machine.usd_per_month
    # Its lease being over changes nothing: its disk may hold a result.
    (machine, _) = cleaning.find(trip.clients, [], time.time() + 1e6)
    assert not machine.safe and "cloudtrain adopt" in machine.why
    trip.release(instance)


def test_the_regions_of_the_account(trip_of: Callable[..., Any]) -> None:
    found = cleaning.regions(trip_of().clients)
    assert {"us-east-1", "eu-central-1"} <= set(found) and found == sorted(found)
