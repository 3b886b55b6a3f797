"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudtrain.console.base import Look


def complete_run(incomplete: str) -> list[str]:
    """Names of runs that begin with what is typed."""
    from cloudtrain.errors import CloudtrainError
    from cloudtrain.store import Store

    try:
        return [name for name in Store().names() if name.startswith(incomplete)]
    except CloudtrainError:
        return []


RunName = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Name of the run or the beginning of it; the latest run if left out.",
        autocompletion=complete_run,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else there.")]
Plain = Annotated[bool, typer.Option("--plain", help="One fact a line, nothing redrawn.")]
Region = Annotated[str | None, typer.Option(help="AWS Region.")]
Profile = Annotated[str | None, typer.Option(help="AWS profile.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def look(json: bool, plain: bool) -> Look:
    """How to print, by flags and environment."""
    import os

    return Look(json=json, plain=plain or os.environ.get("CLOUDTRAIN_PLAIN", "") not in ("", "0"))
