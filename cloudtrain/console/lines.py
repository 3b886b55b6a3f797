"""How stdout and stderr are written to: lines or one JSON object for what was asked for, words beside it on stderr."""

from __future__ import annotations

import errno
import json  # here, since most commands write none
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

from cloudtrain.core import secrets

SCHEMA_VERSION = 1
T = TypeVar("T")


class Unwritten(OSError):
    """Standard output takes nothing: it is closed, or its disk is full. Ends a command, and no run."""


@contextmanager
def writing() -> Iterator[None]:
    """For whoever writes to stdout.

    Raises:
        BrokenPipeError: its reader has left.
        Unwritten: it takes nothing.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(error.errno, error.strerror) from error


def nobody_reads() -> bool:
    """Whether stdout or stderr has lost its reader: the terminal is closed, or the other end of a pipe. What would be
    written there goes nowhere from now on."""
    lost = [stream for stream in (sys.stdout, sys.stderr) if _is_lost(stream)]
    for stream in lost:
        let_go(stream)
    return bool(lost)


def _is_lost(stream: TextIO) -> bool:
    try:
        stream.flush()
        watched = select.poll()
        watched.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))
    except OSError as error:
        return error.errno in (errno.EIO, errno.EPIPE)
    except (AttributeError, ValueError):  # Windows has no poll
        return False


def let_go(stream: TextIO) -> None:
    """What could not be written there goes nowhere: the interpreter would fail on it once more as it leaves."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def last_words(say: Callable[[], T]) -> T:
    """`say`, once more if nobody reads any more: a command whose terminal is closed ends as it would with one."""
    try:
        return say()
    except OSError:
        if not nobody_reads():
            raise
        return say()


def print_lines(*lines: str) -> None:
    """What the command was asked for, a line each, on stdout."""
    _put(*map(secrets.hide, lines))


def _put(*lines: str) -> None:
    with writing():
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def tell(text: str, end: str = "\n") -> None:
    """A word to whoever reads the screen, on stderr; at once, also without a line's end."""
    sys.stderr.write(f"{secrets.hide(text)}{end}")
    sys.stderr.flush()


def write_result(run: str = "", exit_code: int = 0, /, **values: Any) -> None:
    """The last object that a command writes, for commands with one object the only one.

    Args:
        run: name of the run that it is about; empty: it is about none.
        exit_code: that of the command.
        values: what the command has found, and `error` where it failed.
    """
    head = {"ts": now(), "type": "result", "run": run or None, "schema_version": SCHEMA_VERSION}
    write_json({**head, "ok": exit_code == 0, "exit": exit_code, "error": None, **values})


def write_json(value: Any) -> None:
    """One JSON value, one line, on stdout. Non-ASCII is escaped: every encoding can carry it."""
    _put(json.dumps(finite(secrets.hidden(value)), allow_nan=False))


def finite(value: Any) -> Any:
    """`value` with null for numbers that JSON has no word for: a loss may have become NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def now() -> str:
    """This moment as lines of JSON have it: ISO 8601 UTC, to the millisecond."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
