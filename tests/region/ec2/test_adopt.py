"""Instances whose registry was lost: found by tag, verified by their console output, entered by a key or by AWS."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch, UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.provider.ec2 import trust
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.reach import adopt
from cloudtrain.transport.ssh_keys import new_key
from tests.region.ec2.conftest import QUICK, Notes


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def reached(trip_of: Callable[..., Any]) -> Any:
    """A machine whose first login has replaced its host key."""
    trip = trip_of()
    trip.instance = trip.acquire()
    trip.open(trip.instance).close()
    yield trip
    trip.clients.ec2.terminate_instances(InstanceIds=[trip.instance.id])


def enter(trip: Any, identity: Any = None) -> Any:
    orphan = adopt.find(trip.clients, trip.instance.id, "ubuntu")
    notes = Notes()
    notes.write(adopt.notes(orphan, trip.clients))
    transport = adopt.enter(orphan, trip.clients, notes, trip.told.append, QUICK, identity=identity)
    return transport, notes.read(Ec2Notes)


def test_the_tags_tell_the_run(reached: Any, tmp_path: Any) -> None:
    orphan = adopt.find(reached.clients, reached.instance.id, "ubuntu")
    assert (orphan.run, orphan.token) == ("brave-otter", reached.instance.details.token)
    assert orphan.expires_at == pytest.approx(reached.instance.details.expires_at)
    assert orphan.group is not None
    plan = adopt.plan(
        orphan, "us-east-1", profile=None, train=adopt.learnt({}), job=JobSpec(source="."), runs_dir=tmp_path / "runs"
    )
    assert plan.spec.name == "brave-otter" and plan.spec.ec2 is not None
    assert (plan.spec.ec2.types, plan.spec.ec2.region) == (("g4dn.xlarge",), "us-east-1")
    assert plan.limit_s == pytest.approx(7200, abs=60) and plan.price_per_hour == pytest.approx(0.535932, abs=1e-5)
    assert type(plan).from_dict(plan.to_dict()) == plan


def test_a_copy_of_the_key_opens_it(reached: Any, home: Any, tmp_path: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copy(trust.keys_folder("brave-otter") / "client", copy)
    shutil.rmtree(home)
    transport, notes = enter(reached, copy)
    with transport:
        assert transport.run(["echo", "hello"]).stdout == b"hello\n"
    # The pin is the key that the first login put there, read from the console.
    assert notes.host_key.split() == reached.region.machines()[reached.instance.id].host_key.split()[:2]
    kept = trust.keys_folder("brave-otter") / "client"
    assert kept.read_bytes() == copy.read_bytes() and kept.stat().st_mode & 0o77 == 0


def test_the_runs_own_key_is_used_where_only_the_registry_was_lost(reached: Any) -> None:
    transport, _ = enter(reached)
    transport.close()
    assert not reached.region.calls("SendSSHPublicKey")


def test_instance_connect_opens_it_when_every_key_is_lost(reached: Any, home: Any) -> None:
    shutil.rmtree(home)
    transport, _ = enter(reached)
    transport.close()
    assert len(reached.region.calls("SendSSHPublicKey")) == 1
    # The new key stays: the next login needs nothing of AWS.
    transport, _ = enter(reached)
    transport.close()
    assert len(reached.region.calls("SendSSHPublicKey")) == 1


def test_where_nobody_can_log_in_it_is_said_and_the_way_to_end_it_too(reached: Any, home: Any) -> None:
    shutil.rmtree(home)
    reached.region.inject("error:AccessDeniedException@SendSSHPublicKey")
    with pytest.raises(ConnectionFailed) as raised:
        enter(reached)
    assert raised.value.code == "no_key" and reached.instance.id in raised.value.message
    assert "--identity" in str(raised.value.hint) and "cloudtrain clean --all --yes" in str(raised.value.hint)
    assert "billed" in str(raised.value.consequence)
    assert not trust.keys_folder("brave-otter").exists()


def test_a_key_that_it_does_not_accept_is_not_kept(reached: Any, home: Any, tmp_path: Any) -> None:
    shutil.rmtree(home)
    new_key(tmp_path / "keys" / "other")
    with pytest.raises(ConnectionFailed) as raised:
        enter(reached, tmp_path / "keys" / "other")
    assert raised.value.code == "auth_refused"
    assert not trust.keys_folder("brave-otter").exists()


def test_a_machine_that_shows_another_key_than_its_console_is_not_entered(trip_of: Callable[..., Any]) -> None:
    trip = trip_of("host-key-changes-on-reconnect")
    trip.instance = trip.acquire()
    trust_key = trust.keys_folder("brave-otter") / "client"
    assert trust_key.exists()
    trip.region.inject("wrong-host-key")
    with pytest.raises(HostKeyMismatch):
        enter(trip)
    assert not trip.region.calls("SendSSHPublicKey")
    trip.clients.ec2.terminate_instances(InstanceIds=[trip.instance.id])


def test_strangers_and_the_dead_are_refused(reached: Any) -> None:
    image = reached.plan.offer.details.image_id
    made = reached.clients.ec2.run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)
    stranger = made["Instances"][0]["InstanceId"]
    with pytest.raises(UsageError, match="not launched by cloudtrain"):
        adopt.find(reached.clients, stranger, "ubuntu")
    reached.clients.ec2.terminate_instances(InstanceIds=[stranger])
    with pytest.raises(UsageError, match="it does not exist"):
        adopt.find(reached.clients, "i-00000000000000000", "ubuntu")
