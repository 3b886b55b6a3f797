"""docs/iam-policy.json as tests read it: which calls it allows, and which of its rights nothing calls."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

POLICY = Path(__file__).resolve().parent.parent / "docs" / "iam-policy.json"

# GetCallerIdentity is answered for everybody and needs no right (IAM user guide).
NEED_NO_RIGHT = {"sts:GetCallerIdentity"}


def statements() -> list[dict[str, Any]]:
    """The statements, with lists where a single text may stand."""
    found = json.loads(POLICY.read_text(encoding="utf-8"))["Statement"]
    return [
        {**one, **{key: [one[key]] if isinstance(one[key], str) else one[key] for key in ("Action", "Resource")}}
        for one in found
    ]


def allowed() -> set[str]:
    """Every right that the policy gives."""
    return {action for one in statements() if one["Effect"] == "Allow" for action in one["Action"]}


def uncovered(calls: Iterable[Mapping[str, Any]]) -> set[str]:
    """Rights that these calls need and the policy does not give.

    Args:
        calls: entries of the emulated region's record (`Region.calls()`), or anything with `service` and `action`.
    """
    needed = {f"{call['service']}:{call['action']}" for call in calls} - NEED_NO_RIGHT
    rights = allowed()
    return {one for one in needed if not any(fnmatch.fnmatchcase(one, right) for right in rights)}


def allows(action: str, resource: str, context: Mapping[str, str]) -> bool:
    """Whether the policy lets a caller do `action` on the ARN `resource`.

    Args:
        context: condition keys of the call, as IAM fills them in ("aws:userid", "aws:ResourceTag/..."). One that a
            condition names and the call has not is not met.
    """
    return any(
        any(fnmatch.fnmatchcase(action, right) for right in one["Action"])
        and any(fnmatch.fnmatchcase(resource, arn) for arn in one["Resource"])
        and all(_met(operator, wanted, context) for operator, wanted in one.get("Condition", {}).items())
        for one in statements()
    )


def _met(operator: str, wanted: Mapping[str, str | list[str]], context: Mapping[str, str]) -> bool:
    same = {"StringEquals": str.__eq__, "StringLike": fnmatch.fnmatchcase}[operator]

    def fits(key: str, values: str | list[str]) -> bool:
        filled = [_filled(value, context) for value in ([values] if isinstance(values, str) else values)]
        return key in context and any(value is not None and same(context[key], value) for value in filled)

    return all(fits(key, values) for key, values in wanted.items())


def _filled(text: str, context: Mapping[str, str]) -> str | None:
    """`text` with the caller's values for its variables; None: the caller has none of that name."""
    names = re.findall(r"\$\{([^}]+)\}", text)
    for name in names:
        text = text.replace(f"${{{name}}}", context.get(name, "\0"))
    return None if "\0" in text else text


def refused(calls: Iterable[Mapping[str, Any]], *, user: str | None = None) -> set[str]:
    """Rights that the recorded calls of a run ask for with their things and condition keys, and do not get.

    Args:
        calls: as of `uncovered`; its images are Amazon's, and all else that they name is what they have launched.
        user: who makes them; None: whoever has launched.
    """
    calls = [call for call in calls if f"{call['service']}:{call['action']}" not in NEED_NO_RIGHT]
    made = next(_tags_sent(call["parameters"]) for call in calls if call["action"] == "RunInstances")["instance"]
    facts = {f"aws:ResourceTag/{key}": value for key, value in made.items()}
    who = user or made["cloudtrain:owner"]

    def of(id: str) -> Mapping[str, str]:
        return {"ec2:Owner": "amazon"} if id.startswith("ami-") else facts

    return {
        right
        for call in calls
        for right, arn, keys in asks(
            f"{call['service']}:{call['action']}", call["parameters"], "123456789012", call["region"], of
        )
        if not allows(right, arn, {"aws:userid": who, **keys})
    }


def asks(
    action: str, sent: Mapping[str, Any], account: str, region: str, facts: Callable[[str], Mapping[str, str]]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What IAM is asked about one call: (right, ARN, condition keys), by AWS's service authorization reference.

    Args:
        action: "ec2:RunInstances".
        sent: its parameters as they are sent, the nested ones of EC2 by their full name ("InstanceId.1").
        facts: condition keys of a thing that exists, by its id: its tags as "aws:ResourceTag/KEY", an image's
            "ec2:Owner".
    """
    place = f"arn:aws:ec2:{region}:{account}"
    of_call = {"aws:PrincipalAccount": account}
    made = _tags_sent(sent)
    if action in ("ec2:RunInstances", "ec2:CreateSecurityGroup"):
        name = action.partition(":")[2]
        kinds = ["instance", "volume", "network-interface"] if name == "RunInstances" else ["security-group"]
        if sent.get("InstanceMarketOptions.MarketType") == "spot":
            kinds.append("spot-instances-request")
        options = {"ec2:MetadataHttpTokens": str(sent.get("MetadataOptions.HttpTokens", "optional"))}
        for kind in kinds:
            marks = {f"aws:RequestTag/{key}": value for key, value in made.get(kind, {}).items()}
            yield action, f"{place}:{kind}/*", of_call | marks | (options if kind == "instance" else {})
            if marks:
                yield "ec2:CreateTags", f"{place}:{kind}/*", of_call | marks | {"ec2:CreateAction": name}
    named = [str(value) for key, value in sent.items() if _NAMES_A_THING.search(key)]
    if action.startswith("ssm:"):
        paths = [sent["Path"]] if "Path" in sent else sent["Names"]
        yield from ((action, f"arn:aws:ssm:{region}::parameter{path}", of_call) for path in paths)
    elif action.partition(":")[2].startswith(("Describe", "Get")) and action != "ec2:GetConsoleOutput":
        yield action, "*", of_call
    else:
        for one in named:
            kind = _KINDS[one.partition("-")[0]]
            where = f"arn:aws:ec2:{region}:" if kind == "image" else place
            yield action, f"{where}:{kind}/{one}", of_call | dict(facts(one))


_KINDS = {"i": "instance", "vol": "volume", "sg": "security-group", "subnet": "subnet", "vpc": "vpc", "ami": "image"}
_NAMES_A_THING = re.compile(
    r"(?:^|\.)(?:InstanceId|VolumeId|GroupId|SubnetId|VpcId|ImageId|ResourceId|SecurityGroupId)\b"
)


def _tags_sent(sent: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The `TagSpecifications` of a call, by the kind of thing."""
    found: dict[str, dict[str, str]] = {}
    for key, value in sent.items():
        if match := re.fullmatch(r"(TagSpecification\.\d+)\.(Tag\.\d+)\.Key", key):
            kind = str(sent[f"{match[1]}.ResourceType"])
            found.setdefault(kind, {})[str(value)] = str(sent[f"{match[1]}.{match[2]}.Value"])
    return found
