"""`--private-ip`: no public address is asked for, and every step goes to the private one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed, Refused
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.ec2 import network, tags
from cloudtrain.provider.ec2.instances import one
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.offer import prices
from cloudtrain.provider.ec2.reach import adopt, existing
from tests.region.ec2.conftest import QUICK, Notes
from tests.region.ec2.test_offers import own_subnet


def test_from_the_launch_to_a_machine_that_is_woken(trip_of: Any, region_of: Any, clients_of: Any) -> None:
    region = region_of()
    subnet = own_subnet(clients_of(region))
    trip = trip_of(private_ip=True, subnet=subnet, region=region)
    note = str(trip.plan.offer.price_note)
    assert "IPv4 and" not in note.split(";")[0] and trip.plan.price_per_hour == pytest.approx(
        prices.load().hourly(0.526, 45).total - 0.005, abs=1e-3
    )
    instance = trip.acquire()
    found = one(trip.clients, instance.id)
    assert found is not None and not found.get("PublicIpAddress") and found["SubnetId"] == subnet
    assert instance.address == found["PrivateIpAddress"]
    assert tags.as_map(found["Tags"])[tags.ADDRESS] == "private"
    trip.open(instance).close()
    orphan = adopt.find(trip.clients, instance.id, "ubuntu")
    assert orphan.private and orphan.instance.address == instance.address
    notes = Notes()
    notes.write(adopt.notes(orphan, trip.clients))
    adopt.enter(orphan, trip.clients, notes, trip.told.append, QUICK, identity=None).close()
    assert notes.read(Ec2Notes).private is True and not notes.read(Ec2Notes).group
    assert len(region.calls("AuthorizeSecurityGroupIngress")) == 1, "the rule of its launch stays as it is"
    trip.machine(instance).park_at_end()
    trip.clients.ec2.stop_instances(InstanceIds=[instance.id])
    woken = trip.machine(instance).wake()
    found = one(trip.clients, instance.id)
    assert found is not None and woken.address == found["PrivateIpAddress"] and woken.life is InstanceLife.RUNNING
    trip.open(woken).close()
    seen = trip.find()
    assert seen is not None and seen.address == woken.address
    trip.release(woken)
    assert not trip.left().get("instances")


def test_what_does_not_answer_there_is_a_matter_of_the_way(trip_of: Any) -> None:
    trip = trip_of(private_ip=True, ssh_cidr="10.0.0.0/8", pace=replace(QUICK, boot=1.0))
    instance = trip.acquire()
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(replace(instance, port=1))
    assert f"at its private address {instance.address}" in caught.value.message
    assert "VPN" in str(caught.value.hint) and "--ssh-cidr" in str(caught.value.hint)


def test_of_the_users_own_machine(trip_of: Any) -> None:
    trip = trip_of(private_ip=True)
    instance = trip.acquire()
    found = one(trip.clients, instance.id)
    assert found is not None
    with pytest.raises(Refused, match="no public address") as caught:
        existing._running(found, trip.clients, trip.told.append, replace(QUICK, visible=0.0), private=False)
    assert "--private-ip" in str(caught.value.hint)
    assert existing._running(found, trip.clients, trip.told.append, QUICK, private=True) is found


def test_the_port_is_open_for_the_address_that_leads_there() -> None:
    clients: Any = SimpleNamespace(loopback=False)

    def never() -> str:
        raise AssertionError("no public address is asked for")

    assert network.caller_cidr(clients, None, never, "127.0.0.0/8") == "127.0.0.1/32"
    assert network.caller_cidr(clients, None, never, "127.3.2.1") == "127.0.0.1/32"
    assert network.caller_cidr(clients, "10.1.0.0/16", never, "127.0.0.0/8") == "10.1.0.0/16"


def test_no_way_there_is_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(network: str) -> str:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(network, "address_towards", unreachable)
    clients: Any = SimpleNamespace(loopback=False)
    with pytest.raises(ConnectionFailed, match=r"no route to 10\.0\.1\.0/24") as caught:
        network.caller_cidr(clients, None, str, "10.0.1.0/24")
    assert "VPN" in str(caught.value.hint) and caught.value.consequence == "nothing was created"
