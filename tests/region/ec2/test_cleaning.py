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
from cloudtrain.provider.ec2.end.cleaning import Known
from tests.region.ec2.conftest import QUICK


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
    known = Known(run="brave-otter", tokens=frozenset({instance.details.token}))
    assert all(one.safe and one.known is known for one in cleaning.find(trip.clients, [known], time.time()))
    later = instance.details.expires_at + 3600
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
