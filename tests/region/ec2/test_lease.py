"""The lease of a machine through its boots: an extended one, a parked one that is woken, and what its console tells."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Limits
from cloudtrain.provider.ec2 import instances, machine_lease
from cloudtrain.provider.ec2.machine import WAKE_S
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.reach import adopt
from cloudtrain.transport.ssh_keys import fingerprint
from tests.lease_end import lease_end
from tests.region.ec2.conftest import QUICK, Notes, Trip


def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within 30 s: {what}")


def end_of(trip: Trip, instance: Instance) -> float | None:
    return lease_end(trip.region.machines()[instance.id].root)


def extended(trip: Trip, instance: Instance, by_s: float) -> float:
    later = float(int(instance.details.expires_at + by_s))
    with trip.open(instance) as transport:
        assert trip.machine(instance).extend(transport, later)
    return later


def parked(trip: Trip, instance: Instance) -> None:
    trip.machine(instance).park_at_end()
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
    until(lambda: end_of(trip, instance) == later, "the later end")
    later = extended(trip, instance, 3600)
    assert end_of(trip, instance) == later
    trip.release(instance)
    assert trip.left() == {}


def test_a_woken_machine_has_its_own_short_lease_whatever_was_promised_before(trip: Trip) -> None:
    instance = trip.acquire()
    extended(trip, instance, 36000)
    parked(trip, instance)
    woken = trip.machine(instance).wake()
    with trip.open(woken) as transport:
        expires = end_of(trip, woken)
        assert expires is not None and expires < time.time() + WAKE_S + 1
        assert transport.run(["true"]).exit_code == 0
    trip.clients.ec2.reboot_instances(InstanceIds=[instance.id])
    until(lambda: "boot 3" in trip.region.machines()[instance.id].console, "the third boot")
    until(lambda: end_of(trip, woken) == expires, "the short lease again")
    trip.release(woken)
    assert trip.left() == {}


def test_a_machine_that_was_woken_tells_its_key_and_can_be_adopted(trip: Trip) -> None:
    instance = trip.acquire()
    trip.open(instance).close()
    parked(trip, instance)
    woken = trip.machine(instance).wake()
    trip.open(woken).close()
    pinned = trip.notes.read(Ec2Notes).host_key
    orphan = adopt.find(trip.clients, instance.id, "ubuntu")
    notes = Notes()
    notes.write(adopt.notes(orphan, trip.clients))
    adopt.enter(orphan, trip.clients, notes, trip.told.append, QUICK, identity=None).close()
    assert fingerprint(notes.read(Ec2Notes).host_key) == fingerprint(pinned)
    trip.release(woken)
    assert trip.left() == {}


def ended(trip: Trip, instance: Instance) -> None:
    """It ended by itself; what is left is released."""
    until(lambda: instances.state_of(instances.one(trip.clients, instance.id) or {}) == "terminated", "the end")
    trip.release(instance)


@pytest.mark.parametrize("behind", ["", "inhibited"])
def test_a_machine_that_is_held_ends_at_the_moved_end_whatever_holds_up_its_poweroff(trip: Trip, behind: str) -> None:
    if behind:
        trip.region.inject(behind)
    instance = trip.acquire()
    with trip.open(instance) as transport, contextlib.suppress(ConnectionFailed):
        trip.machine(instance).end_at(transport, time.time() + 2)
    ended(trip, instance)
    assert trip.left() == {}


def test_a_lease_ends_its_machine_though_the_clock_is_hours_behind(trip: Trip) -> None:
    instance = trip.acquire()
    with trip.open(instance) as transport:
        # As told to a machine whose clock says three hours less than ours: its end is far, the time until it is not.
        script = machine_lease.move(time.time() + 3 * 3600, 2.0)
        assert transport.run(["sudo", "sh", "-c", script]).exit_code == 0
    ended(trip, instance)
    assert trip.left() == {}


def test_a_lease_that_was_killed_is_back(trip: Trip) -> None:
    instance = trip.acquire()
    with trip.open(instance) as transport:
        look = ["sh", "-c", "pgrep -f $CLOUDTRAIN_ROOT/etc/cloudtrain/lease.s[h]"]
        first = transport.run(look).stdout.split()
        assert len(first) == 1
        # With what it has started, as systemd ends the rest of a unit whose main process is gone.
        transport.run(["pkill", "-9", "-g", first[0].decode()])
        until(lambda: transport.run(look).stdout.split() not in ([], first), "another one")
    trip.release(instance)
    assert trip.left() == {}


# What `bootcmd` of the last release (8e56cd4) writes: the lease is a timer with a calendar line.
OLD_BOOT = """\
root="${CLOUDTRAIN_ROOT:-}"
units="$root/etc/systemd/system"
mkdir -p "$units"
expiry='@EXPIRY@'
if read -r moved calendar < "$root/etc/cloudtrain/lease" && [ "$moved" -gt 0 ]; then expiry=$calendar; fi 2> /dev/null
printf '[Service]\\nType=oneshot\\nExecStart=systemctl --no-block poweroff\\n' > "$units/cloudtrain-lease.service"
printf '[Timer]\\nOnCalendar=%s\\nPersistent=true\\nAccuracySec=1s\\n\\n[Install]\\nWantedBy=timers.target\\n' \\
  "$expiry" > "$units/cloudtrain-lease.timer"
systemctl daemon-reload
systemctl enable cloudtrain-lease.timer
systemctl --no-block start cloudtrain-lease.timer
"""


@pytest.fixture
def old(trip: Trip, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    """A machine that the last release launched."""

    def boot(expires_at: float, lasts_s: float) -> str:
        return OLD_BOOT.replace("@EXPIRY@", f"{datetime.fromtimestamp(int(expires_at), UTC):%Y-%m-%d %H:%M:%S UTC}")

    with monkeypatch.context() as patch:
        patch.setattr(machine_lease, "script", boot)
        made = trip.acquire()
        trip.open(made).close()
    yield made
    assert trip.left() == {}


def test_a_machine_of_the_last_release_is_extended_and_held(trip: Trip, old: Instance) -> None:
    def at() -> float | None:
        return trip.region.machines()[old.id].timers.get("cloudtrain-lease.timer")

    later = extended(trip, old, 1800)
    assert at() == later
    trip.clients.ec2.reboot_instances(InstanceIds=[old.id])
    until(lambda: "boot 2" in trip.region.machines()[old.id].console and at() == later, "the later end again")
    with trip.open(old) as transport, contextlib.suppress(ConnectionFailed):
        trip.machine(old).end_at(transport, time.time() + 3)
    ended(trip, old)


def test_a_machine_of_the_last_release_that_is_woken_has_a_lease_of_this_one(trip: Trip, old: Instance) -> None:
    extended(trip, old, 36000)
    parked(trip, old)
    woken = trip.machine(old).wake()
    with trip.open(woken):
        expires = end_of(trip, woken)
        assert expires is not None and expires < time.time() + WAKE_S + 1
        assert trip.region.machines()[old.id].timers == {}
    trip.release(woken)


def test_the_requests_that_move_a_machines_end_are_on_record(trip: Trip) -> None:
    instance = trip.acquire()
    extended(trip, instance, 600)
    parked(trip, instance)
    woken = trip.machine(instance).wake()
    trip.release(woken)
    calls = [request.call for request in trip.notes.read(RunNotes).aws_requests]
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
