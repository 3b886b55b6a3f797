"""The lease of a machine through its boots: an extended one, a parked one that is woken, and what its console tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cloudtrain.core.instance import Instance
from cloudtrain.core.spec import Limits
from cloudtrain.provider.ec2 import instances
from cloudtrain.provider.ec2.end import lease
from cloudtrain.provider.ec2.reach import adopt
from cloudtrain.transport.ssh_keys import fingerprint
from tests.region.ec2.conftest import QUICK, Notes, Trip


def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within 30 s: {what}")


def timer(trip: Trip, instance: Instance) -> float | None:
    return trip.region.machines()[instance.id].timers.get("cloudtrain-lease.timer")


def extended(trip: Trip, instance: Instance, by_s: float) -> float:
    later = float(int(instance.details["expires_at"] + by_s))
    with trip.open(instance) as transport:
        assert trip.provider.extend(instance, transport, later, trip.notes, trip.told.append)
    return later


def parked(trip: Trip, instance: Instance) -> None:
    trip.provider.keep(instance, trip.notes, trip.told.append)
    trip.clients.ec2.stop_instances(InstanceIds=[instance.id])
    until(lambda: instances.state_of(instances.one(trip.clients, instance.id) or {}) == "stopped", "stopped")


@pytest.fixture
def trip(trip_of: Any) -> Trip:
    made: Trip = trip_of(limits=Limits(max_time_s=7200.0))
    return made


def test_an_extended_lease_survives_a_reboot(trip: Trip) -> None:
    instance = trip.acquire()
    later = extended(trip, instance, 1800)
    trip.clients.ec2.reboot_instances(InstanceIds=[instance.id])
    until(lambda: "boot 2" in trip.region.machines()[instance.id].console, "the second boot")
    until(lambda: timer(trip, instance) == later, "the timer with the later end")
    later = extended(trip, instance, 3600)
    assert timer(trip, instance) == later
    trip.release(instance)
    assert trip.left() == {}


def test_a_woken_machine_has_its_own_short_lease_whatever_was_promised_before(trip: Trip) -> None:
    instance = trip.acquire()
    extended(trip, instance, 36000)
    parked(trip, instance)
    woken = trip.provider.wake(instance, trip.notes, trip.told.append)
    with trip.open(woken) as transport:
        expires = timer(trip, woken)
        assert expires is not None and expires < time.time() + lease.WAKE_S + 1
        assert transport.run(["true"]).exit_code == 0
    trip.clients.ec2.reboot_instances(InstanceIds=[instance.id])
    until(lambda: "boot 3" in trip.region.machines()[instance.id].console, "the third boot")
    until(lambda: timer(trip, woken) == expires, "the short lease again")
    trip.release(woken)
    assert trip.left() == {}


def test_a_machine_that_was_woken_tells_its_key_and_can_be_adopted(trip: Trip) -> None:
    instance = trip.acquire()
    trip.open(instance).close()
    parked(trip, instance)
    woken = trip.provider.wake(instance, trip.notes, trip.told.append)
    trip.open(woken).close()
    pinned = trip.notes.read()["ec2_host_key"]
    orphan = adopt.find(trip.clients, instance.id, "ubuntu")
    notes = Notes()
    notes.write(adopt.notes(orphan, trip.clients))
    adopt.enter(orphan, trip.clients, notes, trip.told.append, QUICK, identity=None).close()
    assert fingerprint(notes.read()["ec2_host_key"]) == fingerprint(pinned)
    trip.release(woken)
    assert trip.left() == {}


def test_the_requests_that_move_a_machines_end_are_on_record(trip: Trip) -> None:
    instance = trip.acquire()
    extended(trip, instance, 600)
    parked(trip, instance)
    woken = trip.provider.wake(instance, trip.notes, trip.told.append)
    trip.release(woken)
    calls = [request["call"] for request in trip.notes.read()["aws_requests"]]
    # `parked` stops it by hand, which is nobody's record.
    assert calls == [
        "RunInstances",
        "CreateTags",
        "ModifyInstanceAttribute",
        "ModifyInstanceAttribute",
        "CreateTags",
        "StartInstances",
        "TerminateInstances",
    ]
    assert trip.left() == {}
