"""Write docs/errors.md from the catalogue of error codes, and docs/json.md from the schemas in docs/schema.

python scripts/contract_docs.py            writes them
python scripts/contract_docs.py --check    says whether they are up to date; exit code 1 if they are not
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cloudtrain.core import errors  # noqa: E402
from cloudtrain.core.error_codes import CODES, CONSEQUENCES, HINTS, JOB  # noqa: E402

DOCS = ROOT / "docs"
BY = "This page is written by `python scripts/contract_docs.py`; do not edit it."

ERRORS = """\
# Errors

{by} Its source is
`cloudtrain/core/error_codes.py`, and a test holds that against every place in the program that makes an error.

An error on the screen says what happened, with its code in square brackets, then what to do next, and what it means
for money and data. With `--json` the code is `error.code`. Codes are stable: scripts may rely on them, and none is ever
used for something else. The words may change.

```text
error: no g4dn.xlarge free in us-east-1 (5 places tried) [no_capacity]
hint:  --instance g4dn.xlarge,g6.xlarge tries both types; or another Region   (nothing is billed)
```

Most errors say themselves what to type next and what they mean for money and data, with the names and numbers of the
case. The tables below have what is shown where one does not.

**Is something still billed?** `billing.running` in `--json` says what this computer knows. `cloudtrain ls --remote` and
`cloudtrain clean` ask AWS, and need nothing on this computer for it.

## Exit codes

The [README](../README.md#exit-codes) explains each. Where an error code has two, the same thing is met at different
moments: 2 and 5 before anything was billed, 6 while a machine may be running, 7 and 130 as the end of a run. A run that
has ended badly (3, 7, 130) says where its results are and what became of its machine.

{exits}

## Codes

Where `next` is empty, every error of the code says itself what to do. In brackets: what it means for money and data,
where that is not what holds for its exit code.

{codes}

## The training itself

The command's error is `training_failed` with exit code 3; the code below stands in its `cause` and in the `error` event
of `events.jsonl`, and the error says what to do. A job of your own may have others.

{job}
"""

# What to do next, by exit code.
NEXT = {
    1: "cloudtrain ls shows what still exists; the message names the file with the traceback",
    2: "correct what the message names; cloudtrain COMMAND --help",
    3: "cloudtrain logs; then correct it and run again",
    4: "aws login, or add the right that the message names; cloudtrain doctor checks both",
    5: "cloudtrain doctor shows what is in the way; or another type, Region or --max-cost",
    6: "run the same command again; cloudtrain logs goes on where it stopped",
    7: "cloudtrain run --resume RUN goes on from what of it is here",
    8: "cloudtrain logs watches beside it, cloudtrain wait waits for its end",
    130: "cloudtrain ls",
}

JSON = f"""\
# JSON

{BY} Its source is the schemas in [schema/](schema)
(JSON Schema, draft 2020-12), and tests hold the real output of every command against them.

Every command takes `--json`. Then stdout is JSON and nothing else; messages for people go to stderr. Nothing is asked:
what needs an answer fails with `confirmation_needed` unless `--yes` gives it. Characters outside ASCII are escaped, so
the encoding of a terminal does not matter, and a number that JSON has no word for (a loss that became NaN) is `null`.

- **One object** is what most commands print.
- **JSON lines** come from {{lines}}: one object a line, as things happen.

The last line is a `result`, and there is exactly one, also when the command fails, is interrupted or was mistyped
(`wait` has one for each run). So a script reads the last line and looks at `ok`:

```sh
cloudtrain run --model 3 --local --yes --json | tail -n 1
```

```text
{{example}}
```

`ok` is whether the exit code is 0, `exit` is the exit code, `error` says why. **`billing.running` says whether a
machine may be up and billed**: look at it after every failure.

In schema version 1 things are only added: ignore keys and types of lines that you do not know. Money is in US dollars,
accuracies are in percent, durations in seconds, sizes in bytes, points in time ISO 8601 UTC (but `at` of an epoch, the
training's own, is unix seconds).

A failure of any command:

```json
{{failure}}
```
"""

EXAMPLE = """\
{"ts": "2026-11-23T07:43:26.120+00:00", "type": "result", "run": "brave-otter", "schema_version": 1, "ok": true, "exit": 0, ...}"""  # noqa: E501

FAILURE = {
    "ts": "2026-11-23T07:43:26.120+00:00",
    "type": "result",
    "run": "brave-otter",
    "schema_version": 1,
    "ok": False,
    "exit": 5,
    "error": {
        "code": "quota",
        "exit": 5,
        "message": "g4dn.xlarge needs 4 vCPU, the quota allows 0 (Running On-Demand G and VT instances, us-east-1)",
        "detail": None,
        "consequence": "nothing was created, nothing is billed",
        "hint": "cloudtrain doctor prints the command that asks for more",
        "cause": None,
    },
    "billing": {"running": False, "parked": False, "ends_by": None},
}


def pages() -> dict[Path, str]:
    """The text of each page that this writes, by its path."""
    return {DOCS / "errors.md": _errors(), DOCS / "json.md": _json()}


def _errors() -> str:
    means = {3: "the run has ended; what it had saved is in its folder here"}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.CloudtrainError):
            means.setdefault(int(kind.exit_code), kind.default_consequence)  # the general kind comes first
    exits = [(str(code), means[code], NEXT[code]) for code in sorted(means)]
    codes = [
        (f"`{code}`", ", ".join(map(str, one.exits)), one.cause, _next(code)) for code, one in sorted(CODES.items())
    ]
    job = [(f"`{code}`", cause) for code, cause in sorted(JOB.items())]
    return ERRORS.format(
        by=BY,
        exits=_table(("exit", "money and data", "next"), exits),
        codes=_table(("code", "exit", "what has happened", "next"), codes),
        job=_table(("code", "what has happened"), job),
    )


def _next(code: str) -> str:
    meaning = f"({CONSEQUENCES[code]})" if code in CONSEQUENCES else ""
    return f"{HINTS.get(code, '')} {meaning}".strip()


def _json() -> str:
    schemas = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "schema").glob("*.json")}
    shared = schemas.pop("shared")["$defs"]
    lines = [f"`{name}`" for name in sorted(schemas) if schemas[name]["x-lines"]]
    head = JSON.format(
        lines=f"{', '.join(lines[:-1])} and {lines[-1]}", example=EXAMPLE, failure=json.dumps(FAILURE, indent=2)
    )

    def of(name: str, title: str, without: Collection[str] = ()) -> list[str]:
        return [f"### {title}\n", f"{shared[name]['description']}\n", _keys(shared[name], shared, without), ""]

    parts = [head, "## What every result has\n", _keys(shared["result"], shared), ""]
    parts += [*of("error", "`error`"), *of("billing", "`billing`")]
    parts += ["## Lines\n", "Lines that come before the result. Each has `ts`, `type` and `run`, too.\n"]
    for name in shared:
        if name.endswith("_line"):
            parts += of(name, f"`{name.removesuffix('_line')}`", ("ts", "type", "run"))
    parts += ["## Commands\n"]
    for name in sorted(schemas):
        parts += _command(name, schemas[name], shared)
    parts += ["## Objects\n", "What several commands print.\n"]
    for name in ("run", "leftover", "report", "plan", "took", "artifact", "figure"):
        parts += of(name, name)
    return "\n".join(parts).rstrip() + "\n"


def _command(name: str, schema: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `cloudtrain {name.replace('-', ' ')} --json`\n"
    kind = "JSON lines" if schema["x-lines"] else "One object"
    yield f"{kind} ([schema](schema/{name}.json)). {schema['description']}\n"
    known = set(_properties(shared["result"], shared))
    for one in schema["anyOf"]:
        reference = _name(one) if "$ref" in one else ""
        if reference in ("failure", "plan_result") or reference.endswith("_line"):
            continue
        if reference == "run_result" and name != "run":
            yield "Its result is that of `run`."
        elif reference == "run_result":
            yield "Its result, beside what every result has:\n"
            yield _keys(shared["run_result"], shared, known)
        else:
            yield _keys(one, shared, known)
        yield ""


def _properties(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """All keys of an object, those of what it refers to first."""
    found: dict[str, Mapping[str, Any]] = {}
    for part in schema.get("allOf", ()):
        found |= _properties(shared[_name(part)] if "$ref" in part else part, shared)
    return found | schema.get("properties", {})


def _keys(schema: Mapping[str, Any], shared: Mapping[str, Any], without: Collection[str] = ()) -> str:
    rows = [
        (f"`{key}`", _kind(value), value.get("description", ""))
        for key, value in _properties(schema, shared).items()
        if key not in without
    ]
    return _table(("key", "type", "what"), rows) if rows else "Nothing more."


def _name(part: Mapping[str, Any]) -> str:
    return str(part["$ref"]).rpartition("/")[2]


def _kind(value: Mapping[str, Any]) -> str:
    """What a value is, in a word or two."""
    if "$ref" in value:
        name = _name(value)
        return f"[{name}](#{name})" if name not in ("epoch", "receipt") else "object"
    if "anyOf" in value:
        return " or ".join(_kind(one) for one in value["anyOf"])
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        words = [f"`{word}`" for word in value["enum"] if word is not None]
        return ", ".join(words) + (" or null" if None in value["enum"] else "")
    kinds = value.get("type", "any")
    if kinds == "array":
        return f"list of {_kind(value['items'])}"
    if value.get("format") == "date-time":
        kinds = ["time", *(["null"] if isinstance(kinds, list) else [])]
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("  |", " |") for line in lines)


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{'not current' if check else 'written'}: {', '.join(stale)}" if stale else "current")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
