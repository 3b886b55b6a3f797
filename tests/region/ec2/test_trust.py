"""Keys of a run, and the change of the host key: whatever is interrupted, one pinned key fits."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtrain.core.errors import HostKeyMismatch
from cloudtrain.provider.ec2 import trust
from cloudtrain.provider.ec2.notes import Ec2Notes
from tests.region.ec2.conftest import Killed


def test_the_first_login_replaces_the_host_key(trip_of: Any) -> None:
    trip = trip_of()
    instance = trip.acquire()
    launched = instance.host_key
    with trip.open(instance) as transport:
        assert transport.run(["echo", "hello"]).stdout == b"hello\n"
    notes = trip.notes.read(Ec2Notes)
    assert notes.host_key != launched and notes.next_host_key is None
    assert "PRIVATE KEY" not in trip.notes.text
    assert trip.region.machines()[instance.id].host_key == notes.host_key
    # The instance as the registry holds it still has the old key; the journal's counts.
    with trip.open(instance) as transport:
        assert transport.run(["true"]).exit_code == 0
    assert trip.notes.read(Ec2Notes).host_key == notes.host_key
    trip.release(instance)
    assert trip.left() == {} and not trust.keys_folder("brave-otter").exists()


def test_killed_at_any_write_of_the_change_the_next_login_works(trip_of: Any, region_of: Any) -> None:
    region = region_of()
    trip = trip_of(region=region)
    deaths = 0
    for point in range(1, 5):
        for after in (False, True):
            instance = trip.acquire()
            trip.notes.write(Ec2Notes(host_key_rotated=False, reached=None))
            trip.notes.die_at, trip.notes.after = trip.notes.writes + point, after
            try:
                trip.open(instance).close()
            except Killed:
                deaths += 1
            trip.notes.die_at = None
            with trip.open(instance) as transport:
                assert transport.run(["true"]).exit_code == 0
            notes = trip.notes.read(Ec2Notes)
            assert region.machines()[instance.id].host_key == notes.host_key
            assert notes.host_key_rotated and notes.next_host_key is None
    assert deaths >= 4
    trip.release(trip.acquire())


def test_a_machine_that_cannot_make_a_key_keeps_its_own_and_says_so(trip_of: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(trust, "MAKE", "exit 3")
    trip = trip_of()
    instance = trip.acquire()
    trip.open(instance).close()
    assert "host key of the launch is kept" in trip.said()
    assert trip.notes.read(Ec2Notes).host_key == instance.host_key
    trip.open(instance).close()
    trip.release(instance)


def test_a_machine_that_does_not_take_the_new_key_is_still_the_same_machine(trip_of: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(trust, "INSTALL", "exit 3")
    trip = trip_of()
    instance = trip.acquire()
    with trip.open(instance) as transport:
        assert transport.run(["true"]).exit_code == 0
    assert "did not take the new one" in trip.said()
    assert trip.notes.read(Ec2Notes).host_key == instance.host_key
    trip.release(instance)


def test_a_third_key_after_the_change_is_fatal(trip_of: Any) -> None:
    trip = trip_of("host-key-changes-on-reconnect")
    instance = trip.acquire()
    with pytest.raises(HostKeyMismatch):
        trip.open(instance)
    with pytest.raises(HostKeyMismatch) as caught:
        trip.open(instance)
    assert instance.id in caught.value.message and str(caught.value.detail).count("SHA256:") == 2
    trip.release(instance)
    assert trip.left() == {}
