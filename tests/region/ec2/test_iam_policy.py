"""docs/iam-policy.json gives what the code calls and nothing else. A run over the emulated region has its own check of
the record (`tests.policy.uncovered`); here both directions are read from the code itself."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

import cloudtrain.provider.ec2
from cloudtrain.core.spec import Ec2Spec, RunSpec
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2 import doctor, tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import catalogue, offers
from tests import policy

FOLDER = Path(cloudtrain.provider.ec2.__file__).parent
# Service of the SDK, and the prefix of its rights.
SERVICES = {
    "ec2": "ec2",
    "ssm": "ssm",
    "sts": "sts",
    "service-quotas": "servicequotas",
    "pricing": "pricing",
    "freetier": "freetier",
    "ec2-instance-connect": "ec2-instance-connect",
}
# Rights that are needed although no call bears their name.
WITHOUT_A_CALL = {
    "iam:CreateServiceLinkedRole",  # done by EC2 for the caller at an account's first spot request
}


@cache
def operations() -> dict[str, str]:
    """`run_instances` -> `ec2:RunInstances`, for every operation of our services."""
    session = botocore.session.get_session()
    found: dict[str, str] = {}
    for service, prefix in SERVICES.items():
        for name in session.get_service_model(service).operation_names:
            found.setdefault(xform_name(name), f"{prefix}:{name}")
    return found


def called() -> dict[str, set[str]]:
    """Rights by the module that calls them: client methods, and operations behind paginators and waiters."""
    waits = {"instance_running": "describe_instances", "instance_terminated": "describe_instances"}
    found: dict[str, set[str]] = {}
    for file in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name = node.func.attr
            if name in ("get_paginator", "get_waiter"):
                [given] = node.args
                assert isinstance(given, ast.Constant), f"{file.name}: a literal name, so that rights can be counted"
                name = waits.get(str(given.value), str(given.value))
                assert name in operations(), name
            if name in operations():
                found.setdefault(operations()[name], set()).add(file.name)
    return found


def test_every_call_in_the_code_is_allowed() -> None:
    needed = called()
    assert len(needed) > 15
    missing = set(needed) - policy.allowed() - policy.NEED_NO_RIGHT
    assert not missing, {right: needed[right] for right in missing}


def test_nothing_is_allowed_that_the_code_does_not_call() -> None:
    assert policy.allowed() - set(called()) == WITHOUT_A_CALL


def test_every_right_exists_by_this_name() -> None:
    known = set(operations().values()) | WITHOUT_A_CALL
    assert policy.allowed() <= known


def test_the_look_ups_before_a_launch_are_covered_by_the_record(
    region_of: Callable[..., Region], clients_of: Callable[..., Clients], spec_of: Callable[..., RunSpec]
) -> None:
    region = region_of()
    clients = clients_of(region)
    offers.survey(spec_of(spot=True), clients)
    catalogue.survey(clients, gpu="T4", refresh=True)
    list(doctor.checks(Ec2Spec(), lambda: clients))
    assert len({call["action"] for call in region.calls()}) >= 15
    assert policy.uncovered(region.calls()) == set()


def test_the_record_of_a_call_without_a_right_is_noticed() -> None:
    calls = [{"service": "ec2", "action": "CreateKeyPair"}, {"service": "sts", "action": "GetCallerIdentity"}]
    assert policy.uncovered(calls) == {"ec2:CreateKeyPair"}


def test_the_form_is_one_that_iam_takes() -> None:
    raw = json.loads(policy.POLICY.read_text(encoding="utf-8"))
    assert raw["Version"] == "2012-10-17"
    sids = [one["Sid"] for one in raw["Statement"]]
    assert len(set(sids)) == len(sids)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids)
    assert all(set(one) <= {"Sid", "Effect", "Action", "Resource", "Condition"} for one in raw["Statement"])
    # The limit of a managed policy is 6,144 characters without white space (IAM user guide).
    assert len(re.sub(r"\s", "", json.dumps(raw))) < 6144


@pytest.mark.parametrize(
    "action",
    [
        "TerminateInstances",
        "DeleteSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "ModifyInstanceAttribute",
        "CreateTags",
        "StartInstances",
    ],
)
def test_what_can_hurt_is_allowed_on_our_own_alone(action: str) -> None:
    conditions = [one["Condition"] for one in policy.statements() if f"ec2:{action}" in one["Action"]]
    managed = {"aws:ResourceTag/cloudtrain:managed": "true"}
    own = {"StringEquals": {**managed, "aws:ResourceTag/cloudtrain:owner": "${aws:userid}"}}
    nameless = {
        "StringEquals": managed,
        "StringLike": {
            "aws:userid": "*:botocore-session-*",
            "aws:ResourceTag/cloudtrain:owner": "*:botocore-session",
        },
    }
    # Beside our own: tags in the call that creates, and a machine that its owner has marked for use.
    others = (
        {"StringEquals": {"ec2:CreateAction": ["CreateSecurityGroup", "RunInstances"]}},
        {"StringEquals": {"aws:ResourceTag/cloudtrain:use": "true"}},
    )
    assert own in conditions and nameless in conditions
    assert all(one in (own, nameless, *others) for one in conditions)


ANNA, BEN = "AIDAANNAXXXXXXXXXXXXX", "AROABENXXXXXXXXXXXXXX:ben@example.org"
NAMELESS = "AROADEVXXXXXXXXXXXXXX:botocore-session-17"
HURTS = sorted({action for one in policy.statements() if one["Sid"] == "OwnOnly" for action in one["Action"]})


@pytest.mark.parametrize("action", HURTS)
@pytest.mark.parametrize("caller", [ANNA, BEN, NAMELESS + "00000000"])
def test_of_two_people_each_may_hurt_only_what_is_their_own(caller: str, action: str) -> None:
    for launched_by in (ANNA, BEN, NAMELESS + "11111111"):
        made = tags.tags_of_run("brave-otter", "feed", tags.owner_of(launched_by), 0.0)
        context = {"aws:userid": caller, **{f"aws:ResourceTag/{key}": value for key, value in made.items()}}
        own = tags.owner_of(caller) == tags.owner_of(launched_by)
        assert policy.allows(action, "arn:aws:ec2:us-east-1:123456789012:instance/i-1", context) == own
        context.pop("aws:ResourceTag/cloudtrain:managed")
        assert not policy.allows(action, "arn:aws:ec2:us-east-1:123456789012:instance/i-1", context)


def test_a_launch_needs_the_mark_version_2_of_the_metadata_and_an_image_of_amazon_or_ours() -> None:
    ours = {"aws:userid": ANNA, "aws:PrincipalAccount": "123456789012"}
    marked = {**ours, "aws:RequestTag/cloudtrain:managed": "true"}
    machine, image = "arn:aws:ec2:us-east-1:123456789012:instance/*", "arn:aws:ec2:us-east-1::image/ami-1"

    def may(resource: str, context: dict[str, str]) -> bool:
        return policy.allows("ec2:RunInstances", resource, context)

    assert may(machine, {**marked, "ec2:MetadataHttpTokens": "required"})
    assert may("arn:aws:ec2:us-east-1:123456789012:volume/*", marked)
    assert not may(machine, marked) and not may(machine, {**marked, "ec2:MetadataHttpTokens": "optional"})
    assert not may(machine, {**ours, "ec2:MetadataHttpTokens": "required"})
    assert may(image, {**ours, "ec2:Owner": "amazon"}) and may(image, {**ours, "ec2:Owner": "123456789012"})
    assert not may(image, {**ours, "ec2:Owner": "999999999999"}) and not may(image, ours)


def test_what_is_launched_must_carry_our_mark() -> None:
    launches = [one for one in policy.statements() if "ec2:RunInstances" in one["Action"]]
    mark = ("aws:RequestTag/cloudtrain:managed", "true")
    marked = [one for one in launches if mark in one.get("Condition", {}).get("StringEquals", {}).items()]
    free = [resource for one in launches if one not in marked for resource in one["Resource"]]
    assert [one["Resource"] for one in marked] == [["arn:aws:ec2:*:*:instance/*"], ["arn:aws:ec2:*:*:volume/*"]]
    assert not any("instance/*" in resource or "volume" in resource for resource in free)


def test_only_look_ups_go_without_a_condition_on_everything() -> None:
    for one in policy.statements():
        if one["Resource"] == ["*"] and "Condition" not in one:
            assert all(action.split(":")[1].startswith(("Describe", "Get")) for action in one["Action"])
