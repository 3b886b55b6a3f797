"""docs/iam-policy.json as tests read it: which calls it allows, and which of its rights nothing calls."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
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
