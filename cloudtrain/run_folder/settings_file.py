"""`runs/NAME/config.toml`: the settings that a run used, ready for `cloudtrain run --config FILE`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudtrain.config.table import SETTINGS
from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.run_folder.redact import Redaction
from cloudtrain.source.shipped import job_folder
from cloudtrain.store import Run

NAME = "config.toml"


def toml(run: Run, start: Mapping[str, Any]) -> str:
    """The file's text. What the recipe decided is in it once the job has told (`start`, its event).

    What belongs to a person, an account or a computer is left out: profile, tags, login, private key file, addresses,
    the folder of the runs, and arguments for the job that name such a thing, of which a comment is left.
    """
    spec = run.plan.spec
    values = {each.name: each.value_in(spec) for each in SETTINGS.values() if each.goes_to and not each.private}
    for name, kind in (("epochs", int), ("batch_size", int), ("lr", float)):
        values[name] = values[name] or _number(start.get(name), kind)
    values["recipe"] = values["recipe"] or _name(start.get("recipe"))
    values["job"] = _below_project(spec)
    public = Redaction(run, RunNotes())
    given: dict[str, Any] = {name: list(values[name]) for name in ("args", "command", "packages", "resume_args")}
    given |= {"vars": spec.job.vars}
    told = {name: public(value) for name, value in given.items()}
    private = [name for name, value in given.items() if told[name] != value]
    of_module = [each.name for each in SETTINGS.values() if each.part == "train" or each.name == "module"]
    without = {
        **dict.fromkeys(private, True),
        **dict.fromkeys(("job", "module"), _shipped(spec)),
        **dict.fromkeys(of_module if spec.job.command else (), True),
        "outputs": spec.job.outputs == ("**",),
        "instance": spec.ec2 is not None and spec.ec2.instance_id is not None,
        "spot_restarts": spec.ec2 is None or not spec.ec2.spot,
    }
    lines = [f"# The settings of {run.name}. To use them again: {_command(run)}\n"]
    lines += [
        f"{name} = {_value(value)}\n"
        for name, value in values.items()
        if value not in (None, "", ".", (), {}) and value is not False and not without.get(name)
    ]
    if "args" in private:
        lines.append(f"# Arguments with something private in them; give them after --: {_value(told['args'])}\n")
    lines += [f"# Without what is private in it: {name} = {_value(told[name])}\n" for name in private if name != "args"]
    return "".join(lines)


def _shipped(spec: RunSpec) -> bool:
    try:
        return Path(spec.job.source) == job_folder()
    except UsageError:
        return False


def _below_project(spec: RunSpec) -> str | None:
    """The training package as a setting of its project means it; None where it lies elsewhere on this computer."""
    source, project = Path(spec.job.source), Path(spec.runs_dir).parent
    return source.relative_to(project).as_posix() if source.is_relative_to(project) else None


def _command(run: Run) -> str:
    spec = run.plan.spec
    flags = {Target.LOCAL: " --local", Target.HOST: " --host USER@ADDRESS", Target.EC2: ""}[spec.target]
    if spec.ec2 is not None:
        flags = " --dry-run" if spec.ec2.rehearsal else " --instance-id ID" if spec.ec2.instance_id else ""
    if not _shipped(spec) and _below_project(spec) is None:
        flags += " --job FOLDER"
    return f"cloudtrain run --config {Path(spec.runs_dir).name}/{run.name}/{NAME}{flags}"


def _number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """A figure that a job told, if it is one."""
    allowed = (int,) if kind is int else (int, float)
    return value if isinstance(value, allowed) and not isinstance(value, bool) and 0 < value < 1e9 else None


def _name(value: Any) -> str | None:
    """A name that a job told, if it is one."""
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) < 100 else None


def _value(value: Any) -> str:
    """TOML of a value; JSON's texts, numbers and lists are TOML's too."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_value(key)} = {_value(text)}' for key, text in value.items())} }}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
