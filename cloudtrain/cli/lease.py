"""`cloudtrain extend`: more time for a run."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudtrain.cli.options import Json, Plain, Yes, complete_run, look
from cloudtrain.config.table import duration
from cloudtrain.console.answer import Answer
from cloudtrain.core import text
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Noted
from cloudtrain.store import Store


def extend(
    run: Annotated[str, typer.Argument(help="Name of the run, or the beginning of it.", autocompletion=complete_run)],
    by: Annotated[str, typer.Argument(metavar="TIME", help="How much longer: 30m, 1h30m.")],
    yes: Yes = False,
    json: Json = False,
    plain: Plain = False,
) -> Answer | None:
    """Move the end of a run while it trains: on its machine, for its job, and in the most it can cost."""
    from cloudtrain.cli import following
    from cloudtrain.lifecycle import machine_end

    try:
        seconds = duration(by)
    except ValueError as error:
        raise UsageError(str(error), hint=f"cloudtrain extend {run} 30m", consequence="nothing was changed") from error
    store = Store()
    row = store.find(run)
    with following.console(look(json, plain), row.name, lines=False) as reporter:
        context = following.context(store, reporter)
        told = machine_end.extension(row, context, seconds)
        most = text.money(told.at_most_usd) if told.at_most_usd is not None else None
        rehearsed = row.plan.spec.rehearsal
        if most is not None and not rehearsed and not yes:
            before = text.money(row.plan.at_most_usd or 0.0)
            question = f"{row.name} can then cost at most {most} ({before} as planned). Extend?"
            if not reporter.ask(question, default=True, otherwise=f"add --yes to accept at most {most}"):
                reporter.emit(Noted("nothing was changed"))
                return None
        told = machine_end.extend(row, context, seconds)
        cost = "" if most is None else f"; it can cost at most {most}" + (" for the real one" if rehearsed else "")
        reporter.emit(Noted(f"{row.name} now ends by {text.date_and_time(told.after)}{cost}"))
    values = {"ended_by": text.iso(told.before), "ends_by": text.iso(told.after), "at_most_usd": told.at_most_usd}
    return Answer(lambda: values, run=row.name)
