"""`cloudtrain logs`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cloudtrain.billing import expiry
from cloudtrain.cli.options import Bell, Json, Plain, RunName, look
from cloudtrain.config.table import duration
from cloudtrain.console.pages import listing
from cloudtrain.core.errors import ExitCode, UsageError
from cloudtrain.core.events import Noted
from cloudtrain.store import Store


def logs(
    run: RunName = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Follow an active run to its end, or do not.")
    ] = True,
    lines: Annotated[
        int | None, typer.Option("-n", min=0, help="Begin with the last N lines; all of them if left out.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was written within this time: 10m, 2h.")
    ] = None,
    times: Annotated[bool, typer.Option("-t", "--times", help="Begin each line with the time it was written.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The log's own bytes, escapes included, even on a terminal.")
    ] = False,
    epochs: Annotated[
        bool, typer.Option("--epochs", help="The table of epochs and the live view, instead of the log.")
    ] = False,
    json: Json = False,
    plain: Plain = False,
    bell: Bell = False,
) -> int:
    """Show a run's console log; follow it while the run is active, then pull its results."""
    from cloudtrain.cli import following
    from cloudtrain.lifecycle import watch

    store = Store()
    row = store.find(run)
    if raw and (epochs or json):
        raise UsageError("--raw is for the log itself", hint="leave out --epochs and --json", code="usage")
    if times and (epochs or json):
        raise UsageError("-t is for the log itself", hint="leave out --epochs; JSON lines have times", code="usage")
    try:
        began = time.time() - duration(since) if since is not None else None
    except ValueError as error:
        raise UsageError(f"--since: {error}", hint="--since 10m", code="bad_setting") from error
    with following.console(look(json, plain, bell), row.name, log=not epochs, raw=raw, stamped=times) as reporter:
        timed = times or began is not None
        if not follow or lines is not None or timed:
            # What follows would come anyway, but after the last lines that are here, not as the last lines.
            following.bring_log(row, following.context(store, reporter), reporter, times=timed)
        if epochs:
            following.show_epochs(row, reporter, last=lines)
        else:
            following.show_log(row, reporter, last=lines, since=began)
        if expiry.away(row):
            reporter.emit(Noted(f"{row.name} is {listing.status(row)}: {listing.fetch(row)}"))
        elif expiry.overdue_s(row, time.time()) is not None:
            reporter.emit(Noted(f"its machine {expiry.overdue_words(row, time.time())}"))
        if not follow:
            reporter.about(row, lambda: row)
            for event in watch.set_up(row, store):
                reporter.emit(event)
        if not follow or row.state.final:
            reporter.leave(following.context(store, reporter).result(row), int(ExitCode.DONE))
            return int(ExitCode.DONE)
        story = following.context(store, reporter)
        return following.to_the_end(row, story, reporter, join=True, only_shows=True)
