"""`cloudtrain run`."""

from __future__ import annotations

from typing import Any

import typer

from cloudtrain.cli.run_options import Flags, flagged
from cloudtrain.config.table import SETTINGS


@flagged
def run(context: typer.Context, **given: Any) -> None:
    """Train: plan, ask, start, follow, pull the results, end what was started.

    Without a command it trains the package that comes along; arguments after -- go to that. With a command your own
    program runs, in your project's copy on the machine, and every file that it writes there comes back.
    """
    from cloudtrain.cli import beginning

    settings = {name: given.pop(name) for name, each in SETTINGS.items() if each.flag}
    raise typer.Exit(beginning.run(Flags(**given), settings, tuple(context.args)))
