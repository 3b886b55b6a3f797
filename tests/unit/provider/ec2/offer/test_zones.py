"""Zones and subnets: which route table holds, what is unreachable, and where a type can stand."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtrain.core.errors import Refused, UsageError
from cloudtrain.provider.ec2.offer import zones
from cloudtrain.provider.ec2.offer.zones import Subnet


def subnet(zone: str, number: int = 1, **more: Any) -> Subnet:
    base: dict[str, Any] = {"vpc": "vpc-1", "default": True, "public_ip": True, "routed": True, "free": 100}
    return Subnet(id=f"subnet-{zone[-1]}{number}", zone=zone, **{**base, **more})


def table(
    *links: dict[str, Any], to: str | None = "igw-1", state: str = "active", vpc: str = "vpc-1"
) -> dict[str, Any]:
    routes = [{"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"}]
    if to is not None:
        routes.append({"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": to, "State": state})
    return {"VpcId": vpc, "Routes": routes, "Associations": list(links)}


MAIN = {"Main": True}


@pytest.mark.parametrize(
    ("tables", "leads_out"),
    [
        ([table(MAIN)], True),
        ([table(MAIN, to=None)], False),
        ([table(MAIN, to="nat-1")], False),
        ([table(MAIN, state="blackhole")], False),
        ([table(MAIN, to=None), table({"SubnetId": "subnet-a1"})], True),
        ([table(MAIN), table({"SubnetId": "subnet-a1"}, to=None)], False),
        ([table(MAIN, vpc="vpc-2")], None),
        (None, None),
    ],
)
def test_a_subnets_own_table_goes_before_the_main_one(tables: Any, leads_out: bool | None) -> None:
    [found] = zones.routed([subnet("us-east-1a", routed=None)], tables)
    assert found.routed is leads_out


def test_an_own_subnet_that_gives_no_address_will_do_since_the_launch_asks_for_one() -> None:
    assert subnet("us-east-1a", public_ip=False, default=False).problem is None
    unknown = subnet("us-east-1a", public_ip=False, default=False, routed=None)
    assert unknown.problem is not None
    assert "--map-public-ip-on-launch" in (unknown.fix or "")


def test_a_default_subnet_that_was_set_to_give_none_is_not_overruled() -> None:
    private = subnet("us-east-1a", public_ip=False)
    with pytest.raises(Refused, match="no public IPv4 address") as caught:
        zones.usable([private], "us-east-1")
    assert caught.value.hint == f"{private.fix}; or --private-ip, if a VPN of yours leads there"
    assert zones.usable([private, subnet("us-east-1b")], "us-east-1") == (subnet("us-east-1b"),)
    assert zones.usable([private], "us-east-1", asked=private.id) == (private,)


def test_who_comes_over_a_vpn_needs_neither_address_nor_route_but_room() -> None:
    inner = subnet("us-east-1a", default=False, public_ip=False, routed=False)
    with pytest.raises(Refused) as caught:
        zones.usable([inner], "us-east-1", asked=inner.id)
    assert "--private-ip" in (caught.value.hint or "")
    assert [one.id for one in zones.usable([inner], "us-east-1", asked=inner.id, private=True)] == [inner.id]
    full = subnet("us-east-1a", default=False, free=0)
    for private in (False, True):
        with pytest.raises(Refused, match="no free address") as caught:
            zones.usable([full], "us-east-1", asked=full.id, private=private)
        assert caught.value.hint == "free an address there, or use another --subnet"


def test_default_subnets_that_cannot_be_reached_are_left_out() -> None:
    found = [subnet("us-east-1a", routed=False), subnet("us-east-1b"), subnet("us-east-1c", free=0)]
    assert [one.zone for one in zones.usable(found, "us-east-1")] == ["us-east-1b"]
    with pytest.raises(Refused) as caught:
        zones.usable([found[0], found[2]], "us-east-1")
    assert caught.value.code == "no_public_ip"
    assert "subnet-c1" in (caught.value.detail or "")


def test_a_region_without_any_subnet_says_how_to_make_the_default_ones() -> None:
    with pytest.raises(Refused) as caught:
        zones.usable([], "us-east-1")
    assert (caught.value.code, caught.value.detail) == ("no_vpc", None)
    assert "create-default-vpc" in (caught.value.hint or "")


def test_other_subnets_are_not_used_unasked() -> None:
    own = subnet("us-east-1a", default=False)
    with pytest.raises(Refused, match="no default network"):
        zones.usable([own], "us-east-1")
    assert zones.usable([own], "us-east-1", asked=own.id) == (own,)
    with pytest.raises(UsageError):
        zones.usable([own], "us-east-1", asked="subnet-other")


def test_a_type_stands_in_one_subnet_a_zone_that_sells_it() -> None:
    allowed = [subnet("us-east-1a"), subnet("us-east-1a", 2), subnet("us-east-1e"), subnet("us-east-1b")]
    offered = {"g4dn.xlarge": ("us-east-1a", "us-east-1b"), "g6.xlarge": ()}
    places = zones.place("g4dn.xlarge", offered, allowed, "us-east-1")
    assert [one.id for one in places] == ["subnet-a1", "subnet-b1"]
    with pytest.raises(Refused, match=r"g6\.xlarge is not offered in us-east-1"):
        zones.place("g6.xlarge", offered, allowed, "us-east-1")
    with pytest.raises(Refused, match="us-east-1e, where the usable subnets are"):
        zones.place("g4dn.xlarge", offered, [allowed[2]], "us-east-1")
