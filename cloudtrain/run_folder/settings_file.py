"""`runs/NAME/config.toml`: the settings that a run used, ready for `cloudtrain run --config FILE`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Ec2Spec, RunSpec, Target
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
    train, limits, ec2 = spec.train, spec.limits, spec.ec2
    values: dict[str, Any] = {
        "model": train.model,
        "epochs": train.epochs or _number(start.get("epochs"), int),
        "batch_size": train.batch_size or _number(start.get("batch_size"), int),
        "seed": train.seed,
        "lr": train.lr or _number(start.get("lr"), float),
        "device": train.device,
        "recipe": train.recipe or _name(start.get("recipe")),
    }
    public = Redaction(run, RunNotes())(train.args)
    told = public == list(train.args)
    values["args"] = list(train.args) or None if told else None
    if not _shipped(spec):
        values |= {"job": _below_project(spec), "module": spec.job.module}
    if spec.job.outputs != ("**",):
        values["outputs"] = list(spec.job.outputs)
    if ec2 is not None:
        values |= _of_ec2(ec2)
    values |= {"max_time": limits.max_time_s, "max_cost": limits.max_cost_usd, "grace": limits.grace_s}
    values["if_i_vanish"] = limits.if_i_vanish
    values["spot_restarts"] = limits.spot_restarts if ec2 is not None and ec2.spot else None
    lines = [f"# The settings of {run.name}. To use them again: {_command(run)}\n"]
    lines += [f"{key} = {_value(value)}\n" for key, value in values.items() if value is not None]
    if not told:
        lines.append(f"# Arguments with something private in them; give them after --: {_value(public)}\n")
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


def _of_ec2(ec2: Ec2Spec) -> dict[str, Any]:
    return {
        "instance": list(ec2.types) if not ec2.instance_id else None,
        "region": ec2.region,
        "spot": ec2.spot or None,
        "ami": ec2.ami,
        "subnet": ec2.subnet,
        "private_ip": ec2.private_ip or None,
        "security_group": ec2.security_group,
        "volume_size": ec2.volume_gb,
        "allow_cpu": ec2.allow_cpu or None,
        "boot_limit": ec2.boot_limit_s,
    }


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
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
