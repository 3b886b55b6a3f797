"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cloudtrain.config.table import SETTINGS
from cloudtrain.console.choose import Look
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.store import Store


def complete_run(incomplete: str) -> list[str]:
    """Names of runs that begin with what is typed."""
    try:
        return [name for name in Store().names() if name.startswith(incomplete)]
    except CloudtrainError:
        return []


class OnInterrupt(StrEnum):
    """What becomes of a run whose command is asked to end where nobody can be asked back."""

    DETACH = "detach"
    STOP = "stop"


def setting(name: str) -> Any:
    """The flag of a setting."""
    each = SETTINGS[name]
    words = each.flag if isinstance(each.flag, str) else f"{each.help[0].upper()}{each.help[1:]}."
    return typer.Option(*each.names, metavar=each.takes, help=words, show_default=each.usual or False)


def _latest_or(what: str) -> Any:
    return typer.Argument(
        metavar="[RUN]", help=f"{what}; the latest run if left out.", autocompletion=complete_run, show_default=False
    )


RunName = Annotated[str | None, _latest_or("Name of the run, or the beginning of it")]
RunOrFolder = Annotated[str | None, _latest_or("Name of a run, its folder, or a run.json from anywhere")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Plain = Annotated[bool, typer.Option("--plain", help="One fact per line, nothing redrawn.")]
Bell = Annotated[bool, typer.Option("--bell", help="Beep once when the run ends or a question waits.")]
Region = Annotated[str | None, setting("region")]
Profile = Annotated[str | None, setting("profile")]


class WhoseThings(StrEnum):
    """Whose things in the account a command may touch, by the tag `cloudtrain:owner`."""

    MINE = "mine"
    ANY = "any"


Owner = Annotated[WhoseThings, typer.Option("--owner", help="Whose: only yours, or also what others launched.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file", metavar="FILE", help="File of NAME=VALUE lines with those secrets that this shell lacks."
    ),
]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Print the plan and leave; nothing is started.")]
Keep = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long the launched machine stays up once the results are here: 30m."),
]


def look(json: bool, plain: bool, bell: bool = False) -> Look:
    """How to print, by flags, environment and settings files. A screen reader gets no bell."""
    from cloudtrain.config import settings

    plain = plain or any(settings.known("plain"))
    return Look(json=json, plain=plain, bell=bell and not plain)
