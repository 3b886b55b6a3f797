"""Flags of `cloudtrain run`: those of settings are made from their table, the others are declared here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, get_args

import typer

from cloudtrain.cli.options import Bell, EnvFile, Json, Keep, OnInterrupt, OnlyPlan, Plain, Yes, complete_run, setting
from cloudtrain.config.table import SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What `run` is given that is no setting."""

    config: Annotated[
        Path | None, typer.Option(help="Settings file that overrides the project's, such as runs/NAME/config.toml.")
    ] = None
    local: Annotated[bool, typer.Option("--local", help="Train on this computer.")] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Rehearse the EC2 run here: emulated region, this CPU, nothing is billed."),
    ] = False
    instance_id: Annotated[str | None, typer.Option(help="Your own instance; it is not terminated.")] = None
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Take over the machine that this run has kept: no launch.", autocompletion=complete_run
        ),
    ] = None
    host: Annotated[str | None, typer.Option(help="An existing machine: USER@ADDRESS[:PORT].")] = None
    host_key: Annotated[str | None, typer.Option(help="Its host key, SHA256:... as ssh-keygen -l shows it.")] = None
    fault: Annotated[list[str] | None, typer.Option(help="Fault to inject in a rehearsal; may be repeated.")] = None
    keep: Keep = None
    keep_on_failure: Annotated[
        str | None, typer.Option(metavar="TIME", help="The same where the run fails, for a look: 15m.")
    ] = None
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Continue from this run's checkpoint, here or elsewhere.", autocompletion=complete_run
        ),
    ] = None
    env_file: EnvFile = None
    name: Annotated[str | None, typer.Option(help="Name of the run; two words if left out.")] = None
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave once training has begun.")] = False
    on_interrupt: Annotated[
        OnInterrupt, typer.Option("--on-interrupt", help="What SIGTERM does, and Ctrl-C without a terminal to ask on.")
    ] = OnInterrupt.DETACH
    only_plan: OnlyPlan = False
    yes: Yes = False
    json: Json = False
    plain: Plain = False
    bell: Bell = False


# In the help settings come in the order of their table, then the others, but for these: flag -> those that follow it.
_AFTER = {
    "seed": ("lr", "recipe"),
    "device": ("config",),
    "job": ("local", "dry_run"),
    "volume_size": ("python",),
    "instance": ("on", "instance_id", "host", "identity", "host_key"),
    "allow_cpu": ("fault",),
    "secrets": ("env_file",),
}


def flagged(function: Callable[..., None]) -> Callable[..., None]:
    """`function(context, **flags)` with the signature that the parser wants: every flag, in the order of the help."""
    context, _ = inspect.signature(function, eval_str=True).parameters.values()
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = {
        name: inspect.Parameter(name, kind, default=None, annotation=Annotated[each.kind | None, setting(name)])
        for name, each in SETTINGS.items()
        if each.flag
    }
    parameters |= inspect.signature(Flags, eval_str=True).parameters
    moved = {name for names in _AFTER.values() for name in names}
    order = [name for first in parameters if first not in moved for name in (first, *_AFTER.get(first, ()))]
    function.__signature__ = inspect.Signature([context, *(parameters[name] for name in order)])  # type: ignore[attr-defined]
    return function


def before_command(words: Sequence[str], everywhere: Iterable[str]) -> list[str]:
    """Of what follows `run` on a command line, cloudtrain's own part: a program's command begins after it.

    Args:
        everywhere: options of cloudtrain itself.
    """
    alone = {*everywhere, "--help", "-h"}
    for each in SETTINGS.values():
        if each.flag and each.kind is bool:
            alone.update(each.names[0].split("/"))
    for name, parameter in inspect.signature(Flags, eval_str=True).parameters.items():
        kind, option = get_args(parameter.annotation)
        if kind is bool:
            # Typer keeps the first name in the place of a default.
            names = [name for name in (option.default, *(option.param_decls or ())) if isinstance(name, str)]
            alone.update(names or [f"--{name.replace('_', '-')}"])
    value = False

    def is_ours(word: str) -> bool:
        nonlocal value
        joined = "=" in word or (len(word) > 2 and word[1] != "-")  # --epochs=2, -m3
        of_an_option, value = value, not value and word not in alone and not joined
        return of_an_option or (word.startswith("-") and word != "--")

    return list(takewhile(is_ours, words))
