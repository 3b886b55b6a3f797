"""docs/iam-policy.json as tests read it: which calls it allows, and which of its rights nothing calls."""

from __future__ import annotations

import fnmatch
import json
import re
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
