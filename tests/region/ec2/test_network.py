"""Port 22 for one address, in a group of the run's own, and the group gone afterwards."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cloudtrain.core.errors import Refused
from cloudtrain.provider.ec2 import network, tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.pace import Pace

MARKS = tags.tags_of_run("brave-otter", "feed", "me", 1_800_000_000)


@pytest.fixture
def clients(region_of: Any, clients_of: Any) -> Clients:
    made: Clients = clients_of(region_of())
    return made


def sources(clients: Clients, group: str) -> list[str]:
    found = clients.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert all((rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (22, 22, "tcp") for rule in found)
    return sorted(
        [r["CidrIp"] for rule in found for r in rule["IpRanges"]]
        + [r["CidrIpv6"] for rule in found for r in rule["Ipv6Ranges"]]
    )


def test_behind_a_loopback_endpoint_nobody_is_asked(clients: Clients) -> None:
    def ask() -> str:
        raise AssertionError("asked")

    assert network.caller_cidr(clients, None, ask) == "127.0.0.1/32"


def test_the_group_is_made_once_and_tagged_at_birth(clients: Clients) -> None:
    vpc = network.default_vpc(clients)
    first = network.ensure_group(clients, "cloudtrain-brave-otter-feed", vpc, "203.0.113.7/32", MARKS)
    again = network.ensure_group(clients, "cloudtrain-brave-otter-feed", vpc, "203.0.113.7/32", MARKS)
    assert first == again and sources(clients, first.id) == ["203.0.113.7/32"]
    found = clients.ec2.describe_security_groups(GroupIds=[first.id])["SecurityGroups"][0]
    assert tags.as_map(found["Tags"]) == MARKS
    assert network.group_named(clients, "cloudtrain-brave-otter-feed") == first.id


def test_a_new_address_replaces_the_old_one(clients: Clients) -> None:
    vpc = network.default_vpc(clients)
    group = network.ensure_group(clients, "g", vpc, "203.0.113.7/32", MARKS).id
    for cidr in ("198.51.100.1/32", "2001:db8::7/128", "2001:db8::7/128", "192.0.2.1/32"):
        network.allow_only(clients, group, cidr)
        assert sources(clients, group) == [cidr]


def test_a_lost_answer_to_the_creation_makes_no_second_group(region_of: Any, clients_of: Any) -> None:
    region = region_of("internal-after-effect@CreateSecurityGroup")
    clients = clients_of(region)
    group = network.ensure_group(clients, "g", network.default_vpc(clients), "203.0.113.7/32", MARKS)
    assert sources(clients, group.id) == ["203.0.113.7/32"]
    assert len(region.inventory()["security_groups"]) == 1


def test_a_group_in_use_is_tried_again_but_not_for_ever(region_of: Any, clients_of: Any) -> None:
    region = region_of("DependencyViolation:2@DeleteSecurityGroup")
    clients = clients_of(region)
    group = network.ensure_group(clients, "g", network.default_vpc(clients), "203.0.113.7/32", MARKS).id
    pauses: list[float] = []
    pace = Pace(group=20.0, sleep=pauses.append, clock=itertools.count().__next__)
    assert network.delete_group(clients, group, pace)
    assert len(pauses) == 2
    assert network.delete_group(clients, group, pace), "gone already is fine"
    other = network.ensure_group(clients, "h", network.default_vpc(clients), "203.0.113.7/32", MARKS).id
    region.inject("DependencyViolation:99@DeleteSecurityGroup")
    assert not network.delete_group(clients, other, pace)


def test_no_default_network_is_said_before_anything_is_made(region_of: Any, clients_of: Any) -> None:
    clients = clients_of(region_of("no-default-vpc"))
    with pytest.raises(Refused) as caught:
        network.default_vpc(clients)
    assert caught.value.code == "no_vpc" and "create-default-vpc" in str(caught.value.hint)
