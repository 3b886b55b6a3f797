"""`cloudtrain stop`: one run or all of them, with a pull or without, the machine given back or kept for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudtrain.cli.options import Json, Keep, Plain, RunName, Yes, look
from cloudtrain.console.answer import Answer
from cloudtrain.core.errors import UsageError
from cloudtrain.store import Store


def stop(
    run: RunName = None,
    all_: Annotated[bool, typer.Option("--all", help="Every active run of this computer, one after another.")] = False,
    pull: Annotated[
        bool,
        typer.Option(
            "--pull/--no-pull", help="Fetch the results first, or do not: what is not here goes with the machine."
        ),
    ] = True,
    keep: Keep = None,
    yes: Yes = False,
    json: Json = False,
    plain: Plain = False,
) -> Answer | int:
    """End a run: it saves, its results are pulled, its machine is given back."""
    from cloudtrain.cli import ending, following, request

    keep_s = request.keeping(keep) or 0.0
    _check(run, all_=all_, pull=pull, keep=bool(keep_s))
    store = Store()
    if all_:
        with following.console(look(json, plain), "") as reporter:
            return ending.stop_all(store, reporter, pull=pull, yes=yes)
    row = store.find(run)
    with following.console(look(json, plain), row.name) as reporter:
        return ending.stop_one(row, store, reporter, keep_s=keep_s, pull=pull, yes=yes)


def _check(run: str | None, *, all_: bool, pull: bool, keep: bool) -> None:
    """Flags that do not go together."""
    refused = {
        "--all ends every run, so it takes no name": all_ and run is not None,
        "--keep is for one run": all_ and keep,
        "--keep and --no-pull exclude each other: a machine is kept once its results are here": keep and not pull,
    }
    for message, holds in refused.items():
        if holds:
            raise UsageError(
                message, hint="cloudtrain stop --help", consequence="nothing was changed", code="bad_setting"
            )
