"""The commands that repeat a run. Pure."""

from __future__ import annotations

import re
import shlex
from typing import Any

from cloudtrain.report.facts import Facts


def rerun(facts: Facts) -> str:
    """The run once more from its own record: settings, seed, place and the very code."""
    return f"cloudtrain rerun {facts.name}"


def run(facts: Facts) -> str:
    """The run with every setting spelt out. What belongs to a person is in capitals, to be filled in."""
    train, settings, machine = facts.train, facts.settings, facts.machine
    argv = ["cloudtrain", "run"]
    target = facts.receipt.get("target")
    if target == "local":
        argv.append("--local")
    elif target == "host":
        argv += ["--host", "USER@ADDRESS"]
    else:
        argv += [*_flag("--instance", machine.get("instance_type")), *_flag("--region", machine.get("region"))]
        argv += ["--spot"] if machine.get("market") == "spot" else []
        argv += ["--dry-run"] if facts.receipt.get("rehearsal") else []
    if facts.command:
        return shlex.join([*argv, "--", *facts.command])
    if not facts.shipped:
        argv += ["--job", "FOLDER"]
    if facts.shipped or "model" in settings:
        argv += _flag("--model", settings.get("model", train.get("model")))
    for key in ("epochs", "batch_size", "seed", "lr", "recipe"):
        value = train.get(key)
        argv += _flag("--" + key.replace("_", "-"), settings.get(key) if value is None else value)
    argv += _flag("--device", train.get("device"))
    args = train.get("args")
    if isinstance(args, list) and args:
        argv += ["--", *map(str, args)]
    return shlex.join(argv)


def parts(command: str) -> list[str]:
    """A command in the pieces between which its line may break: an option stays with its value."""
    return re.split(r" (?=--)", command)


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, float):
        return [name, f"{value:g}" if float(f"{value:g}") == value else repr(value)]
    return [name, str(value)] if isinstance(value, (int, str)) and not isinstance(value, bool) else []
