"""Where an instance can stand: zones that offer the type, and subnets whose machines the Internet can reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloudtrain.core.errors import Refused, SignInError, UsageError
from cloudtrain.provider.ec2.offer.types import not_offered
from cloudtrain.provider.ec2.translate import NOTHING, translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import RouteTableTypeDef, SubnetTypeDef

NO_ADDRESS = "its machines get no public IPv4 address"
NO_ROOM = "it has no free address"
MAKE_DEFAULT = "aws ec2 create-default-vpc makes one, with a subnet in each zone; it costs nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet of the Region.

    Attributes:
        default: AWS's own for its zone, part of the default VPC.
        cidr: its addresses.
        public_ip: machines get a public IPv4 address without being asked for.
        free: addresses left; None: unknown.
        routed: whether its route table leads to an Internet gateway; None: unknown.
    """

    id: str
    zone: str
    vpc: str
    default: bool
    public_ip: bool
    cidr: str = ""
    free: int | None = None
    routed: bool | None = None

    @property
    def problem(self) -> str | None:
        """Why no machine of ours should stand in it; None: one could.

        The launch asks for a public address itself, so a subnet named by the user needs only the route (where that may
        be looked at). A default subnet that was set to give none is not overruled unasked.
        """
        if self.routed is False:
            return "its route table has no way to an Internet gateway"
        if not self.public_ip and (self.default or self.routed is None):
            return NO_ADDRESS
        if self.free == 0:
            return NO_ROOM
        return None

    @property
    def fix(self) -> str | None:
        """The command that mends `problem`, where there is one."""
        if self.problem == NO_ADDRESS:
            return f"aws ec2 modify-subnet-attribute --subnet-id {self.id} --map-public-ip-on-launch"
        return None


def offered(names: Iterable[str], ec2: EC2Client) -> dict[str, tuple[str, ...]]:
    """Zones that sell each type, by one DescribeInstanceTypeOfferings. Whether one is free there only a launch tells.

    Raises:
        SignInError, ConnectionFailed: EC2 did not answer.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    with translated("look up zones"):
        pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": sorted(found)}]
        )
        for page in pages:
            for row in page["InstanceTypeOfferings"]:
                found.setdefault(str(row["InstanceType"]), []).append(row["Location"])
    return {name: tuple(sorted(zones)) for name, zones in found.items()}


def subnets(ec2: EC2Client) -> tuple[Subnet, ...]:
    """Every subnet of the Region, by one DescribeSubnets; `routed` is still unknown.

    Raises:
        SignInError, ConnectionFailed: EC2 did not answer.
    """
    with translated("look up subnets"):
        pages = ec2.get_paginator("describe_subnets").paginate()
        rows = [_subnet(row) for page in pages for row in page["Subnets"]]
    return tuple(sorted(rows, key=lambda one: (one.zone, one.id)))


def _subnet(row: SubnetTypeDef) -> Subnet:
    return Subnet(
        id=row["SubnetId"],
        zone=row["AvailabilityZone"],
        vpc=row["VpcId"],
        default=row.get("DefaultForAz", False),
        public_ip=row.get("MapPublicIpOnLaunch", False),
        cidr=row.get("CidrBlock", ""),
        free=row.get("AvailableIpAddressCount"),
    )


def routes(ec2: EC2Client) -> tuple[RouteTableTypeDef, ...] | None:
    """Every route table of the Region, by one DescribeRouteTables; None: the right to look is missing.

    Raises:
        SignInError, ConnectionFailed: EC2 did not answer.
    """
    try:
        with translated("look up route tables"):
            pages = ec2.get_paginator("describe_route_tables").paginate()
            return tuple(table for page in pages for table in page["RouteTables"])
    except SignInError as error:
        if error.code != "denied":
            raise
        return None


def routed(found: Sequence[Subnet], tables: Sequence[RouteTableTypeDef] | None) -> tuple[Subnet, ...]:
    """The same subnets with `routed` filled in: each by its own table, else by the main one of its VPC."""
    if tables is None:
        return tuple(found)
    own: dict[str, bool] = {}
    main: dict[str, bool] = {}
    for table in tables:
        leads_out = _leads_out(table)
        for link in table.get("Associations", []):
            if link.get("Main"):
                main[table.get("VpcId", "")] = leads_out
            elif link.get("SubnetId"):
                own[link["SubnetId"]] = leads_out
    return tuple(replace(one, routed=own.get(one.id, main.get(one.vpc))) for one in found)


def _leads_out(table: RouteTableTypeDef) -> bool:
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0"
        and route.get("GatewayId", "").startswith("igw-")
        and route.get("State", "active") == "active"
        for route in table.get("Routes", [])
    )


def usable(
    found: Sequence[Subnet], region: str, *, asked: str | None = None, private: bool = False
) -> tuple[Subnet, ...]:
    """Subnets that a launch may use: the one asked for, else the reachable default ones, one a zone.

    Args:
        private: machines are reached at their private address, and need neither a public one nor a way from outside.

    Raises:
        UsageError: there is no such subnet.
        Refused: no default VPC, or no machine there could be reached; names the fix.
    """
    if private:
        found = [replace(one, public_ip=True, routed=None) for one in found]
    if asked is not None:
        return (_asked(found, asked, region),)
    default = [one for one in found if one.default]
    if not default:
        raise Refused(
            f"{region} has no default network (VPC) in this account",
            hint="--subnet with one of the subnets below, or: aws ec2 create-default-vpc" if found else MAKE_DEFAULT,
            consequence=NOTHING,
            code="no_vpc",
            detail="\n".join(f"{one.id}  {one.zone}  {one.problem or 'reachable'}" for one in found[:20]) or None,
        )
    reachable = [one for one in default if one.problem is None]
    if not reachable:
        first = default[0]
        raise Refused(
            f"no machine in the default subnets of {region} could be reached: {first.problem}",
            hint=_cure(first, "add an Internet gateway and a default route to the VPC, or use --subnet"),
            consequence=NOTHING,
            code="no_public_ip",
            detail="\n".join(f"{one.id}  {one.zone}  {one.problem}" for one in default),
        )
    return tuple(reachable)


def _asked(found: Sequence[Subnet], asked: str, region: str) -> Subnet:
    one = next((subnet for subnet in found if subnet.id == asked), None)
    if one is None:
        raise UsageError(
            f"there is no subnet {asked} in {region}",
            hint="leave --subnet out for the default network, or use one of those below",
            consequence=NOTHING,
            code="no_subnet",
            detail="\n".join(f"{subnet.id}  {subnet.zone}" for subnet in found[:20]) or None,
        )
    named = replace(one, default=False)
    if named.problem is not None:
        raise Refused(
            f"no machine in {asked} could be reached: {named.problem}",
            hint=_cure(named, "add a route 0.0.0.0/0 to an Internet gateway, or use another --subnet"),
            consequence=NOTHING,
            code="no_public_ip",
        )
    return one


def _cure(one: Subnet, otherwise: str) -> str:
    """What to do about a subnet that has a problem."""
    if one.problem == NO_ROOM:
        return "free an address there, or use another --subnet"
    return f"{one.fix or otherwise}; or --private-ip, if a VPN of yours leads there"


def place(name: str, zones: Mapping[str, Sequence[str]], allowed: Sequence[Subnet], region: str) -> tuple[Subnet, ...]:
    """The subnets, one a zone, in which `name` can be launched.

    Raises:
        Refused: the Region or its usable subnets do not offer the type.
    """
    selling = zones.get(name, ())
    if not selling:
        raise not_offered(name, region)
    chosen: dict[str, Subnet] = {}
    for one in allowed:
        if one.zone in selling:
            chosen.setdefault(one.zone, one)
    if not chosen:
        here = ", ".join(sorted({one.zone for one in allowed}))
        raise Refused(
            f"{name} is not offered in {here}, where the usable subnets are",
            hint=f"it is offered in {', '.join(selling)}: use a --subnet there",
            consequence=NOTHING,
            code="not_offered",
        )
    return tuple(chosen.values())
