"""Who may reach the instance: one security group for each run, port 22, one address."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from cloudtrain.core.errors import ConnectionFailed, Refused, UsageError
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.notes import Group
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import NOTHING, Failure, failure_of, translated

CHECK_IP = "https://checkip.amazonaws.com"
SSH_PORT = 22


def ask_address(url: str = CHECK_IP, timeout: float = 10.0) -> str:
    """This computer's public address as AWS's own service sees it: asked without a proxy first, since SSH uses none.

    `AWS_CA_BUNDLE` holds for this question as for every other to AWS.

    Raises:
        OSError: no answer.
    """
    trusted = urllib.request.HTTPSHandler(
        context=ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), trusted)
    asked = [direct, urllib.request.build_opener(trusted)] if urllib.request.getproxies() else [direct]
    for opener in asked:
        try:
            with opener.open(url, timeout=timeout / len(asked)) as answer:
                return str(answer.read(256).decode("ascii", "replace")).strip()
        except OSError:
            if opener is asked[-1]:
                raise
    raise AssertionError("each turn returns or goes on")


def address_towards(network: str) -> str:
    """The address by which this computer sends to a network or address, and nothing is sent. What a VPN makes of it on
    the way is not seen here.

    Raises:
        OSError: there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        # Not its first address, which is that of a broadcast where this computer is in it.
        way.connect((str(ipaddress.ip_network(network)[-1 if "/" not in network else 1]), SSH_PORT))
        return str(way.getsockname()[0])


def caller_cidr(
    clients: Clients, asked: str | None, ask: Callable[[], str] = ask_address, towards: str | None = None
) -> str:
    """The range that may reach port 22: `asked` (`--ssh-cidr`), else this computer's address alone.

    Args:
        ask: tells its public address.
        towards: the private network that it goes to instead, over the user's own way there.

    Raises:
        UsageError: `asked` is no address range.
        ConnectionFailed: the address cannot be found out.
    """
    if asked:
        try:
            return str(ipaddress.ip_network(asked.strip(), strict=False))
        except ValueError:
            raise UsageError(
                f"{asked!r} is not an address range",
                hint="--ssh-cidr 203.0.113.7/32",
                consequence=NOTHING,
                code="bad_cidr",
            ) from None
    if clients.loopback:
        return "127.0.0.1/32"
    try:
        address = ipaddress.IPv4Address(address_towards(towards) if towards else ask())
    except (OSError, ValueError) as error:
        if towards:
            raise ConnectionFailed(
                f"this computer has no route to {towards}",
                hint="connect the VPN first, or say from where it will be: --ssh-cidr RANGE",
                consequence=NOTHING,
                code="own_address",
                detail=str(error),
            ) from error
        # An IPv6 answer is of no use either: the instance is reached by its public IPv4 address.
        raise ConnectionFailed(
            f"could not find out this computer's public IPv4 address from {CHECK_IP}",
            hint="give it: --ssh-cidr ADDRESS/32 (or use your own group: --security-group sg-...)",
            consequence=NOTHING,
            code="own_address",
            detail=str(error),
        ) from error
    return f"{address}/32"


def default_vpc(clients: Clients) -> str:
    """The Region's default network.

    Raises:
        Refused: there is none.
    """
    with translated("look up the default VPC", profile=clients.profile):
        found = clients.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise Refused(
            f"{clients.region} has no default network (VPC)",
            hint="aws ec2 create-default-vpc, or --subnet subnet-...",
            consequence=NOTHING,
            code="no_vpc",
        )
    return str(found[0]["VpcId"])


def ensure_group(clients: Clients, name: str, vpc: str, cidr: str, marks: Mapping[str, str]) -> Group:
    """The group called `name` with port 22 open for `cidr` alone; made, with its tags, if it is not there."""
    wanted: Any = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    with translated("make the security group", profile=clients.profile, consequence="no instance was started"):
        found = clients.ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
        if not found:
            try:
                made = clients.ec2.create_security_group(
                    GroupName=name,
                    Description=f"SSH for cloudtrain run {marks[tags.RUN]}",
                    VpcId=vpc,
                    TagSpecifications=tags.specifications(marks, "security-group"),  # type: ignore[arg-type]
                )
                group = made["GroupId"]
                _allow(clients, group, cidr)
                return Group(group, cidr)
            except ClientError as error:
                # Made by a call whose answer was lost.
                if failure_of(error) is not Failure.DUPLICATE:
                    raise
                found = clients.ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
        group = found[0]["GroupId"]
    allow_only(clients, group, cidr)
    return Group(group, cidr)


def allow_only(clients: Clients, group: str, cidr: str) -> None:
    """Open port 22 of `group` for `cidr`, then close it for everything else. In this order, so that a crash between the
    two locks nobody out."""
    with translated("open port 22", profile=clients.profile, consequence="the old address stays allowed"):
        _allow(clients, group, cidr)
        for rule in clients.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]:
            if rule.get("FromPort") == SSH_PORT:
                _close(clients, group, rule, cidr)


def _close(clients: Clients, group: str, rule: Mapping[str, Any], but: str) -> None:
    """Take every address from `rule` of `group`, except `but`."""
    bare = {key: value for key, value in rule.items() if key in ("IpProtocol", "FromPort", "ToPort")}
    for kind, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
        others = [{key: allowed[key]} for allowed in rule.get(kind, []) if allowed.get(key) != but]
        if not others:
            continue
        stale: Any = [{**bare, kind: others}]
        try:
            clients.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=stale)
        except ClientError as error:
            if failure_of(error) is not Failure.ABSENT:
                raise


def _allow(clients: Clients, group: str, cidr: str) -> None:
    six = ipaddress.ip_network(cidr).version == 6
    source: Any = {"Ipv6Ranges": [{"CidrIpv6": cidr}]} if six else {"IpRanges": [{"CidrIp": cidr}]}
    rule: Any = [{"IpProtocol": "tcp", "FromPort": SSH_PORT, "ToPort": SSH_PORT, **source}]
    for pause in (0.5, 1.0, 2.0, 4.0, 8.0, 0.0):
        try:
            clients.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
            return
        except ClientError as error:
            failure = failure_of(error)
            if failure is Failure.DUPLICATE:
                return
            # A group that was made a moment ago may not be known everywhere yet.
            if failure is not Failure.ABSENT or not pause:
                raise
        time.sleep(pause)


def delete_group(clients: Clients, group: str, pace: Pace, *, within_s: float | None = None) -> bool:
    """Delete `group`; False if something still holds it after `within_s` seconds (None: `pace.group`). One that is gone
    already is fine."""
    for _ in pace.polls(pace.group if within_s is None else within_s):
        try:
            clients.ec2.delete_security_group(GroupId=group)
            return True
        except ClientError as error:
            failure = failure_of(error)
            if failure is Failure.ABSENT:
                return True
            if failure is not Failure.IN_USE:
                with translated("delete the security group", profile=clients.profile, consequence="it costs nothing"):
                    raise
    return False


def group_named(clients: Clients, name: str) -> str | None:
    """The id of our own group called `name`, wherever in the Region it is."""
    wanted: Any = [{"Name": "group-name", "Values": [name]}, *tags.where()]
    with translated("look up the security group", profile=clients.profile, consequence=None):
        found = clients.ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    return str(found[0]["GroupId"]) if found else None
