"""Flags of `cloudtrain run`: those of settings are made from their table, the others are declared here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import typer

from cloudtrain.cli.options import Bell, EnvFile, Json, Keep, OnInterrupt, OnlyPlan, Plain, Yes, complete_run, setting
from cloudtrain.config.table import GROUPS, SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What `run` is given that is no setting."""

    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings file that overrides the project's, such as runs/NAME/config.toml."),
    ] = None
    local: Annotated[bool, typer.Option("--local", help="Train on this computer.")] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Rehearse the EC2 run here: emulated region, this CPU, nothing is billed."),
    ] = False
    instance_id: Annotated[str | None, typer.Option(metavar="ID", help="Your own instance; it is not terminated.")] = (
        None
    )
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Take over the machine that this run has kept: no launch.", autocompletion=complete_run
        ),
    ] = None
    host: Annotated[str | None, typer.Option(metavar="USER@ADDRESS[:PORT]", help="An existing machine.")] = None
    host_key: Annotated[
        str | None, typer.Option(metavar="SHA256:...", help="Its host key, as ssh-keygen -l shows it.")
    ] = None
    fault: Annotated[list[str] | None, typer.Option(help="Fault to inject in a rehearsal; may be repeated.")] = None
    keep: Keep = None
    keep_on_failure: Annotated[
        str | None, typer.Option(metavar="TIME", help="The same where the run fails, for a look: 15m.")
    ] = None
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on from this run's checkpoint, or a program's own files, anywhere.",
            autocompletion=complete_run,
        ),
    ] = None
    env_file: EnvFile = None
    name: Annotated[str | None, typer.Option(help="Name of the run.", show_default="two words")] = None
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave once training has begun.")] = False
    on_interrupt: Annotated[
        OnInterrupt, typer.Option("--on-interrupt", help="What SIGTERM does, and Ctrl-C without a terminal to ask on.")
    ] = OnInterrupt.DETACH
    only_plan: OnlyPlan = False
    yes: Yes = False
    json: Json = False
    plain: Plain = False
    bell: Bell = False


# Headings of the help: those of the settings, whose flags stand where it says "", and two of ours.
_HEADINGS: Mapping[str, tuple[str, ...]] = {
    "What is trained": ("", "resume", "name"),
    "Your own program, instead of the one that comes along": ("", "env_file"),
    "The machine": ("local", "dry_run", "fault", "on", "instance_id", "host", "host_key", ""),
    "Money": ("", "keep", "keep_on_failure", "only_plan", "yes"),
    "Watching": ("detach", "on_interrupt", "json", "plain", "bell"),
    "Options": ("config",),
}


def flagged(function: Callable[..., None]) -> Callable[..., None]:
    """`function(context, **flags)` with the signature that the parser wants: every flag, in the order of the help."""
    context, _ = inspect.signature(function, eval_str=True).parameters.values()
    flags = inspect.signature(Flags, eval_str=True).parameters
    parameters = [context]
    for heading, names in _HEADINGS.items():
        settings = [each.name for each in GROUPS.get(heading, ()) if each.flag]
        for name in (one for given in names for one in ([given] if given else settings)):
            parameter = flags.get(name) or inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[SETTINGS[name].kind | None, setting(name)],
            )
            kind, option = get_args(parameter.annotation)
            option = copy(option)  # other commands have it, too
            option.rich_help_panel = heading
            parameters.append(parameter.replace(annotation=Annotated[kind, option]))
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function
