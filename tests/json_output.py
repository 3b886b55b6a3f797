"""What a command prints with `--json`, held against docs/schema and what a schema cannot tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from cloudtrain.core.error_codes import CODES
from tests.conftest import ROOT

SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "docs/schema").glob("*.json")}


def closed(node: Any, member: bool = False) -> Any:
    """A schema that also refuses keys which it does not name. The published ones allow them: additions are no break."""
    if isinstance(node, list):
        return [closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    # What is asked under a condition says nothing of the other keys.
    made = {
        key: value if key in ("if", "then", "else") else closed(value)
        for key, value in node.items()
        if key not in ("allOf", "$ref")
    }
    if "allOf" in node:
        made["allOf"] = [closed(one, member=True) for one in node["allOf"]]
    if "$ref" in node:
        made["$ref"] = node["$ref"] + (".open" if member else "")
    names_keys = "allOf" in node or ("properties" in node and "additionalProperties" not in node)
    return made if member or not names_keys else {**made, "unevaluatedProperties": False}


def _shared() -> dict[str, Any]:
    shared, defs = closed(SCHEMAS["shared"]), SCHEMAS["shared"]["$defs"]
    for name, schema in defs.items():
        shared["$defs"][f"{name}.open"] = closed(schema, member=True)
    return shared


REGISTRY: Registry[Any] = Registry().with_resource("shared.json", Resource.from_contents(_shared()))
VALIDATORS = {
    name: Draft202012Validator(closed(schema), registry=REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for name, schema in SCHEMAS.items()
    if name != "shared"
}


@dataclass
class Answer:
    """What a command printed as JSON, and how it left."""

    lines: list[dict[str, Any]]
    code: int
    aside: str

    @property
    def result(self) -> dict[str, Any]:
        return self.lines[-1]


def check(name: str, answer: Answer, told: str) -> None:
    """Hold an answer against its schema and the promises that a schema cannot tell."""
    assert answer.lines, told
    for line in answer.lines:
        wrong = best_match(VALIDATORS[name].iter_errors(line))
        while wrong is not None and wrong.context:
            # The alternative that was meant is the one that fails deepest.
            wrong = max(wrong.context, key=lambda error: (error.validator != "const", len(error.absolute_path)))
        assert wrong is None, f"{told}\n{wrong.message} at {list(wrong.absolute_path)} of {json.dumps(line)[:2000]}"
    results = [line for line in answer.lines if line["type"] == "result"]
    assert answer.lines[-1]["type"] == "result" and (len(results) == 1 or name == "wait"), told
    assert len(answer.lines) == 1 or SCHEMAS[name]["x-lines"], f"{told}\nmore than one object"
    if name != "wait":
        assert results[-1]["exit"] == answer.code, told
    for result in results:
        assert result["ok"] is (result["exit"] == 0), told
        assert result["ok"] or result["error"]["exit"] == result["exit"], told
        if result["error"] is not None:
            assert result["error"]["code"] in CODES, told
            assert result["error"]["hint"] and result["error"]["consequence"], told
