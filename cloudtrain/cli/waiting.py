"""`cloudtrain wait`: until runs have ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cloudtrain.cli import signals
from cloudtrain.cli.options import Bell, Json, Plain, complete_run, look
from cloudtrain.config.table import duration
from cloudtrain.core.errors import ExitCode, UsageError
from cloudtrain.core.events import Noted
from cloudtrain.store import Store


def wait(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Names, or their beginnings.", autocompletion=complete_run)
    ],
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave after this time, with exit code 8: 90s, 30m.")
    ] = None,
    json: Json = False,
    plain: Plain = False,
    bell: Bell = False,
) -> int:
    """Wait until runs have ended, pull their results, end their machines; exit with the first non-zero exit code."""
    from cloudtrain.cli import following, leaving

    store = Store()
    rows = [store.find(name) for name in runs]
    try:
        limit = duration(timeout) if timeout is not None else None
    except ValueError as error:
        raise UsageError(str(error), hint="--timeout 30m", consequence="nothing was changed") from error
    code = int(ExitCode.DONE)
    with following.console(look(json, plain, bell), "") as reporter, _leaving_after(limit):
        context = following.context(store, reporter)
        for number, row in enumerate(rows, 1):
            ended = following.to_the_end(store.get(row.name), context, reporter, join=True)
            if ended == ExitCode.STILL_RUNNING:
                for other in rows[number:]:
                    now = store.get(other.name)
                    reporter.emit(Noted(f"not waited for: {leaving.stands(now, context)}"))
                    reporter.leave(context.result(now), int(context.result(now).exit_code))
                return ended
            code = code or ended
    return code


@contextmanager
def _leaving_after(limit_s: float | None) -> Iterator[None]:
    """What follows is left as if somebody had asked this process to end, once so many seconds are over."""

    timer = threading.Timer(limit_s, signals.send, (signal.SIGTERM,)) if limit_s is not None else None
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        yield
    finally:
        if timer is not None:
            timer.cancel()
