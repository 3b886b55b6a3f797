"""`cloudtrain help` and `version`."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudtrain.cli.commands import listed
from cloudtrain.console.answer import Answer
from cloudtrain.core.version import __version__


def _complete(incomplete: str) -> list[str]:
    return [name for name, _ in listed() if name.startswith(incomplete)]


def help(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="Its name; all commands if left out.", autocompletion=_complete),
    ] = None,
) -> None:
    """Print the help of a command: what it does, its options, examples. The same as COMMAND --help."""
    root = context.find_root()
    with root.command.make_context(root.info_name, [*(command or ()), "--help"]) as asked:
        root.command.invoke(asked)


def version() -> Answer:
    """Print the version of cloudtrain. The same as --version."""
    return Answer(dict, lambda _: [f"cloudtrain {__version__}"])
