"""Flags and settings to a RunSpec."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.machinery import FrozenImporter, PathFinder
from pathlib import Path
from typing import Any

from cloudtrain.config.settings import Settings
from cloudtrain.config.table import SETTINGS, duration
from cloudtrain.core import credentials
from cloudtrain.core.errors import UsageError
from cloudtrain.core.names import new_name
from cloudtrain.core.spec import RECIPES, Ec2Spec, JobSpec, Limits, RunSpec, Target, TrainSpec, check_name, check_train
from cloudtrain.core.text import meant
from cloudtrain.lifecycle import machine_end, takeover
from cloudtrain.provider.host_address import parse_host
from cloudtrain.source import command
from cloudtrain.source.shipped import job_folder
from cloudtrain.store import Run, Store

# Of `--keep`, in seconds.
SHORTEST_KEEP_S = 60.0


def build(
    settings: Settings,
    store: Store,
    *,
    name: str | None,
    local: bool,
    host: str | None,
    host_key: str | None,
    instance_id: str | None,
    dry_run: bool,
    faults: tuple[str, ...],
    words: tuple[str, ...],
    keep_s: float | None = None,
    keep_on_failure_s: float | None = None,
    on: Run | None = None,
) -> RunSpec:
    """The run that was asked for.

    Args:
        on: the run whose kept machine it takes over.
        words: what was typed after the options: a command, or arguments of the training program.

    Raises:
        UsageError: naming the flag that cannot be used, and what can.
    """
    if on is not None:
        takeover.check(on, store, time.time())
    # Such a command may say --dry-run again.
    rehearsed = on is not None and on.plan.spec.rehearsal
    own = dry_run and not rehearsed
    target = _target(settings, local=local, host=host, instance_id=instance_id, dry_run=own, on=on is not None)
    dry_run = dry_run or rehearsed
    if faults and not dry_run:
        raise UsageError("--fault is for rehearsals", hint="add --dry-run", code="bad_setting")
    job = _job(settings, words, away=target is Target.HOST or (target is Target.EC2 and not dry_run))
    # A command has its own words for how it trains.
    train = TrainSpec(**({} if job.command else settings.fields("train") | ({"args": words} if words else {})))
    if job.shipped and train.recipe not in (None, *RECIPES):
        hint = meant(str(train.recipe), RECIPES, f"--recipe {', '.join(RECIPES[:-1])} or {RECIPES[-1]}")
        raise UsageError(f"there is no recipe {train.recipe!r}", hint=hint, code="bad_setting")
    if dry_run and not job.command and _is_open(train, settings):
        train = replace(train, recipe="fast")  # it trains on this computer's CPU
    # Nobody repeats a stranger's program from zero, which is billed, unless that was asked for.
    over = not job.command or settings.get("spot_restarts") is not None
    limits = Limits(**settings.fields("limits"), keep_s=keep_s, keep_on_failure_s=keep_on_failure_s, starts_over=over)
    spec = RunSpec(
        name=check_name(name) if name else new_name(set(store.names())),
        target=target,
        train=check_train(train),
        job=job,
        runs_dir=str(settings.runs_dir),
        limits=_check_limits(limits),
        host=parse_host(host, identity=settings.get("identity"), fingerprint=host_key)
        if target is Target.HOST and host
        else None,
        ec2=_taken_over(on, settings)
        if on is not None
        else _ec2(settings, instance_id, host_key, dry_run, faults)
        if target is Target.EC2
        else None,
    )
    if keep_s or keep_on_failure_s:
        machine_end.check(spec)
    return spec


def from_files(settings: Settings, spec: RunSpec) -> dict[str, str]:
    """Which settings of money and trust a file has decided for this run: name -> path of the file."""
    of_ec2 = {each.name for each in SETTINGS.values() if each.part in ("ec2", "limits")} - {"max_time"}
    without = set() if spec.target is Target.EC2 else of_ec2 | {"confirm_above"}
    return {name: path for name, path in settings.from_files().items() if name not in without}


def keeping(text: str | None, option: str = "--keep") -> float | None:
    """Seconds of `--keep TIME`, or of another `option`; None where it was not given.

    Raises:
        UsageError: it is no duration, or too short for anybody to log in.
    """
    if text is None:
        return None
    try:
        seconds = duration(text)
    except ValueError as error:
        raise UsageError(
            f"{option}: {error}", hint=f"{option} 30m", consequence="nothing was changed", code="bad_setting"
        ) from error
    if seconds < SHORTEST_KEEP_S:
        raise UsageError(
            f"{option} {text} is too short to log in",
            hint=f"{option} 1m or longer",
            consequence="nothing was changed",
            code="bad_setting",
        )
    return seconds


def of_run(spec: RunSpec, *, elsewhere: bool) -> dict[str, Any]:
    """The settings of a run that is to go on: its limits and its device, and those of its place unless it is to go on
    `elsewhere`. None where nobody had set one."""
    values = {each.name: each.value_in(spec) for each in SETTINGS.values() if each.part and not each.trained}
    if spec.ec2 is not None:
        values["identity"] = spec.ec2.identity
    anywhere = {each.name for each in SETTINGS.values() if each.part == "limits"} | {"device", "spot"}
    return {name: value for name, value in values.items() if not elsewhere or name in anywhere}


def place_of(spec: RunSpec) -> dict[str, Any]:
    """The arguments of `build` that say where: the place of a run that is to go on."""
    host, ec2 = spec.host, spec.ec2
    name = (host.name or host.address) if host else ""
    address = f"[{name}]" if ":" in name else name
    return {
        "local": spec.target is Target.LOCAL,
        "host": f"{host.user}@{address}:{host.port}" if host else None,
        "host_key": host.fingerprint if host else ec2.host_key if ec2 else None,
        "instance_id": ec2.instance_id if ec2 else None,
        "dry_run": spec.rehearsal,
    }


def refuse_other_training(given: Mapping[str, object]) -> None:
    """A run that goes on trains what it began.

    Raises:
        UsageError: naming the flags that would change that.
    """
    flags = [SETTINGS[n].option if n in SETTINGS else f"--{n}" for n, value in given.items() if value is not None]
    if flags:
        several = len(flags) > 1
        raise UsageError(
            f"{' and '.join(flags)} cannot be given with --resume: the training goes on as it began",
            hint=f"leave {'them' if several else 'it'} out, or start a new run without --resume",
            code="bad_setting",
        )


def going_on(spec: RunSpec, continued: RunSpec) -> RunSpec:
    """`spec`, which says where and within which limits, with the training of the run that it continues."""
    return replace(
        spec,
        train=replace(continued.train, device=spec.train.device),
        job=replace(continued.job, python=spec.job.python),
        resume=continued.resume,
    )


def _check_limits(limits: Limits) -> Limits:
    cost, restarts, end = limits.max_cost_usd, limits.spot_restarts, limits.if_i_vanish
    if end not in ("park", "terminate"):
        hint = meant(end, ("park", "terminate"), "--if-i-vanish park or terminate")
        raise UsageError(f"cannot {end!r} a machine", hint=hint, code="bad_setting")
    if cost is not None and cost <= 0:
        raise UsageError(f"a run cannot cost at most ${cost:g}", hint="--max-cost above 0", code="bad_setting")
    if limits.results_gib is not None and limits.results_gib <= 0:
        told = f"a run cannot bring {limits.results_gib:g} GiB of results"
        raise UsageError(told, hint="results_limit above 0", code="bad_setting")
    if restarts < 0:
        raise UsageError(f"a run cannot go on {restarts} times", hint="--spot-restarts 0 or more", code="bad_setting")
    return limits


def _target(
    settings: Settings, *, local: bool, host: str | None, instance_id: str | None, dry_run: bool, on: bool
) -> Target:
    asked = {"--on": on, "--local": local, "--host": bool(host), "--instance-id": bool(instance_id)}
    asked["--dry-run"] = dry_run
    given = [flag for flag, value in asked.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", hint=f"keep {given[0]} alone", code="bad_setting")
    if local:
        return Target.LOCAL
    if host:
        return Target.HOST
    if on or instance_id or dry_run or settings.get("instance"):
        return Target.EC2
    raise UsageError(
        "say where to train",
        hint="--local here, --dry-run to rehearse EC2 for free, --instance g4dn.xlarge on EC2",
        code="no_target",
    )


def _is_open(train: TrainSpec, settings: Settings) -> bool:
    """Whether the shipped job trains and nobody has said for how long."""
    return "--recipe" not in train.args and not (train.recipe or train.epochs or settings.get("job"))


def refuse_with_command(words: tuple[str, ...], given: Mapping[str, object]) -> None:
    """Flags of the shipped training program say nothing to another one.

    Raises:
        UsageError: one was `given` beside a command (code `not_with_command`).
    """
    flags = [
        SETTINGS[name].option
        for name, value in given.items()
        if value is not None and (SETTINGS[name].part == "train" or name == "job")
    ]
    if _is_command(words) and flags:
        raise UsageError(
            f"{' and '.join(flags)} {'are' if len(flags) > 1 else 'is'} for the training program that comes along",
            hint=f"arguments of {words[0]} stand after it, or leave out {words[0]!r}",
            consequence="nothing was started",
            code="not_with_command",
        )


def _is_command(words: tuple[str, ...]) -> bool:
    return bool(words) and not words[0].startswith("-")


def _job(settings: Settings, words: tuple[str, ...], *, away: bool) -> JobSpec:
    """What runs; its interpreter is a setting where it trains `away` from this computer."""
    known: dict[str, Any] = settings.fields("job") | {"python": settings.get("python") if away else None}
    given: str | None = known.get("source")
    if _is_command(words):
        project, cwd = command.project_of(Path.cwd())
        known |= {"source": str(project), "command": words, "cwd": cwd}
    elif known.get("command"):
        project = settings.project / given if given else command.project_of(settings.project)[0]
        known |= {"source": str(project.absolute()), "command": (*known["command"], *words)}
    if known.get("command"):
        notebook = command.NOTEBOOK_PACKAGES if known["command"][0].endswith(command.NOTEBOOK) else ()
        job = JobSpec(**known | {"packages": (*known.get("packages", ()), *notebook)})
        _check_secrets(job)
        return job
    known.pop("cwd", None)
    source = (settings.project / given).absolute() if given else job_folder()
    if not source.is_dir():
        raise UsageError(
            f"there is no folder {source}", hint="--job FOLDER with the training package", code="bad_setting"
        )
    known |= ({"module": f"{source.name}.train"} if given and "module" not in known else {}) | {"source": str(source)}
    job = JobSpec(**known)
    _check_not_hidden(source, job.module)
    _check_secrets(job)
    return job


def _check_secrets(job: JobSpec) -> None:
    """Each is named, not given, and no variable besides.

    Raises:
        UsageError: naming one that is.
    """
    if any(credentials.without_tokens(name) != name for name in job.secrets):
        raise UsageError(
            "what --secret was given looks like a secret, not like its name",
            hint="--secret HF_TOKEN takes the value of HF_TOKEN in this shell; what was typed is in its history now",
            code="bad_setting",
        )
    if both := [name for name in job.secrets if name in job.vars]:
        hint = f"leave out --env {both[0]}: the value comes from this shell, or from --env-file"
        raise UsageError(f"{both[0]} cannot be both a variable and a secret", hint=hint, code="bad_setting")


def _check_not_hidden(source: Path, module: str) -> None:
    """`python -m MODULE` runs what is in the folder `source`: without an `__init__.py` it gives way to any other module
    of its name, wherever that lies on the host's path. What is installed here stands for what is there.

    Raises:
        UsageError: there is another one.
    """
    name = source.name
    if module.partition(".")[0] != name or (source / "__init__.py").exists():
        return
    of_python = name in sys.stdlib_module_names
    # All that is installed here, also by a link as this very program may be.
    places = [place for place in sys.path if place and Path(place).resolve() != source.parent.resolve()]
    found = None if of_python else PathFinder.find_spec(name, places)
    if not of_python and (found is None or found.origin is None):
        return
    # These are there before any path is looked at, so no file in the folder helps.
    always = name in sys.builtin_module_names or FrozenImporter.find_spec(name) is not None
    whose = "Python's own" if of_python else "an installed"
    raise UsageError(
        f"{source} has no __init__.py: {whose} module of the same name would be found instead of {module}",
        hint=f"rename the folder {name}" if always else f"put an empty file there: touch {source / '__init__.py'}",
        code="bad_setting",
    )


def _taken_over(run: Run, settings: Settings) -> Ec2Spec:
    """The kept machine of `run` as a place."""
    was, instance, own = run.plan.spec.ec2, run.instance, settings.fields("ec2")
    assert was is not None and instance is not None
    return replace(
        was,
        from_run=run.name,
        types=(instance.type,),
        region=run.plan.offer.details.region or was.region,
        allow_cpu=own.get("allow_cpu", was.allow_cpu),
        boot_limit_s=own.get("boot_limit_s", was.boot_limit_s),
    )


def refuse_other_machine(given: Mapping[str, object], settings: Settings, spec: RunSpec) -> None:
    """A machine that is taken over is as it is.

    Args:
        given: settings that have a flag; None: the flag was not given.

    Raises:
        UsageError: naming the flags that want another one.
    """
    differ = []
    for name, each in SETTINGS.items():
        if each.part != "ec2" or name in ("allow_cpu", "boot_limit") or given.get(name) is None:
            continue
        asked, has = settings.get(name), each.value_in(spec)
        if not (set(has) <= set(asked) if name == "instance" else asked == has):
            differ.append(f"{each.option} (it has {', '.join(has) if name == 'instance' else has})")
    if differ:
        raise UsageError(
            f"the machine that is taken over is another one: {'; '.join(differ)}",
            hint="leave that out, or leave --on out to launch one",
            code="bad_setting",
        )


def _ec2(
    settings: Settings, instance_id: str | None, host_key: str | None, dry_run: bool, faults: tuple[str, ...]
) -> Ec2Spec:
    identity = settings.get("identity") if instance_id else None
    return Ec2Spec(
        **settings.fields("ec2"),
        identity=str(Path(identity).expanduser().absolute()) if identity else None,
        host_key=host_key,
        instance_id=instance_id,
        rehearsal=dry_run,
        faults=faults,
    )
