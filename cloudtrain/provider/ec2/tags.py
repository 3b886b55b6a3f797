"""The marks by which everything of ours is found again, with no local state at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cloudtrain.core.spec import Ec2Spec
from cloudtrain.core.version import __version__

MANAGED = "cloudtrain:managed"
RUN = "cloudtrain:run"
TOKEN = "cloudtrain:token"
OWNER = "cloudtrain:owner"
EXPIRES_AT = "cloudtrain:expires-at"
VERSION = "cloudtrain:version"
# "private": the machine has no other address, so whoever takes it back must go that way.
ADDRESS = "cloudtrain:address"
# Set by the emulated region on its machines; honoured only where the endpoint is a loopback address.
EMULATOR_PORT = "emulator:ssh-port"


def tags_of_run(run: str, token: str, owner: str, expires_at: float, spec: Ec2Spec | None = None) -> dict[str, str]:
    """Tags of everything that one launch attempt creates: those that `spec` asks for, and ours.

    Args:
        token: names the attempt, so that two runs of one name in one account are told apart.
        owner: `owner_of` the caller.
        expires_at: unix seconds.
    """
    return {
        "Name": f"cloudtrain-{run}",
        **(spec.tags if spec else {}),
        **({ADDRESS: "private"} if spec and spec.private_ip else {}),
        MANAGED: "true",
        RUN: run,
        TOKEN: token,
        OWNER: owner,
        EXPIRES_AT: utc_text(expires_at),
        VERSION: __version__,
    }


def utc_text(seconds: float) -> str:
    """Unix seconds as `2026-11-23T12:34:56Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_seconds(text: str | None) -> float | None:
    """The inverse of `utc_text`; None for anything else, since others may have edited the tag."""
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def owner_of(user_id: str) -> str:
    """The mark of the caller: AWS's unique id of a user, or of a role with the name of its session, which policies know
    as `${aws:userid}`. The number that the SDK makes up anew for each session of a role is left out, or nobody would
    find their own instances again."""
    return re.sub(r":botocore-session-\d+$", ":botocore-session", user_id)


def owners_of(user_id: str, arn: str) -> frozenset[str]:
    """Every mark that the caller's machines may carry: `owner_of`, and the hash of the ARN of earlier releases."""
    former = hashlib.sha256(re.sub(r"/botocore-session-\d+$", "", arn).encode()).hexdigest()[:16]
    return frozenset({owner_of(user_id), former})


def is_others(owner: str, mine: frozenset[str] | None) -> bool:
    """Whether a thing with this mark is somebody else's; `mine`: those of the caller, None: all are taken for ours."""
    return mine is not None and bool(owner) and owner not in mine


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in the form that the EC2 API takes."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def as_map(tags: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Tags in the form that the EC2 API gives, as a mapping."""
    return {str(tag.get("Key", "")): str(tag.get("Value", "")) for tag in tags or ()}


def specifications(tags: Mapping[str, str], *resources: str) -> list[dict[str, Any]]:
    """The `TagSpecifications` of a call that creates `resources` ("instance", "volume", ...)."""
    return [{"ResourceType": resource, "Tags": as_list(tags)} for resource in resources]


def where(**wanted: str | Iterable[str] | None) -> list[dict[str, Any]]:
    """`Filters` for what carries our mark and the `wanted` tags: `where(run="brave-otter", token=[...])`."""
    filters: list[dict[str, Any]] = [{"Name": f"tag:{MANAGED}", "Values": ["true"]}]
    for name, value in wanted.items():
        if value is not None:
            values = [value] if isinstance(value, str) else list(value)
            filters.append({"Name": f"tag:cloudtrain:{name}", "Values": values})
    return filters
