"""What counts as taken back, and zones that are asked last."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import cloudtrain
from cloudtrain.provider.ec2 import instances
from cloudtrain.provider.ec2.launch import acquire, attempts
from cloudtrain.provider.ec2.notes import Slot


@pytest.mark.parametrize(
    ("lifecycle", "code", "transition", "expected"),
    [
        ("spot", "Server.SpotInstanceTermination", "", True),
        ("spot", "Server.SpotInstanceShutdown", "", True),
        ("spot", "", "Server.SpotInstanceTermination (2026-11-23 08:22:00 GMT)", True),
        ("spot", "Client.UserInitiatedShutdown", "Server.SpotInstanceTermination", False),
        ("spot", "Client.InstanceInitiatedShutdown", "", False),
        (None, "Server.SpotInstanceTermination", "", False),
    ],
)
def test_what_counts_as_taken_back(lifecycle: str | None, code: str, transition: str, expected: bool) -> None:
    found: dict[str, Any] = {"State": {"Name": "shutting-down"}, "StateTransitionReason": transition}
    found |= {"InstanceLifecycle": lifecycle} if lifecycle else {}
    found |= {"StateReason": {"Code": code, "Message": code}} if code else {}
    assert instances.reclaimed(found) is expected
    assert not instances.reclaimed({**found, "State": {"Name": "running"}})


def test_zones_to_avoid_are_asked_last_and_nothing_else_changes_its_place() -> None:
    slots = [Slot(t, z) for t in ("g4dn.xlarge", "g6.xlarge") for z in "abc"]
    found = [(s.type, s.zone) for s in attempts.ordered(slots, ["a"])]
    assert found[:2] == [("g4dn.xlarge", "b"), ("g4dn.xlarge", "c")]
    assert found[-2:] == [("g4dn.xlarge", "a"), ("g6.xlarge", "a")]
    assert attempts.ordered(slots, []) == slots


@pytest.mark.parametrize(
    "code", ["Client.InternalError", "Client.InvalidKMSKey.InvalidState", "Client.InvalidKmsKey.X"]
)
def test_a_disk_whose_key_may_not_be_used_names_the_rights_that_the_document_gives(code: str) -> None:
    page = (Path(cloudtrain.__file__).parent.parent / "docs" / "ec2.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    statements = json.loads(block)
    rights = {right for one in statements for right in ([one["Action"]] if one["Sid"] != "DiskKey" else one["Action"])}
    hint = acquire._died("i-1", code, "Client error on launch").hint or ""
    assert set(re.findall(r"kms:[\w*]+", hint)) == rights and "docs/ec2.md" in hint and len(rights) == 5
    assert statements[1]["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
