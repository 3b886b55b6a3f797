"""Which reporter a command gets on this terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudtrain.console.reporters.base import Reporter, may_redraw
from cloudtrain.core import questions


@dataclass(frozen=True, slots=True)
class Look:
    """How output should look, and sound: what the flags and the environment ask for."""

    json: bool = False
    plain: bool = False
    bell: bool = False


def reporter(
    look: Look, *, run: str = "", billing: Callable[[str], Mapping[str, Any]] | None = None, lines: bool = True
) -> Reporter:
    """The reporter for this command on this terminal.

    Args:
        run: name of the run that the command is about, where it is known.
        billing: says of a run by its name, or of all runs here (""), whether money is being spent.
        lines: as JSON each event is a line; else only the result is, and events are shown on stderr.
    """
    made = _made(look, run, billing, lines)
    questions.ask = made.line
    return made


def _made(look: Look, run: str, billing: Callable[[str], Mapping[str, Any]] | None, lines: bool) -> Reporter:
    if look.json:
        from cloudtrain.console.reporters.jsonl import JsonReporter

        return JsonReporter(run, billing, None if lines else reporter(Look(plain=True)))
    if look.plain or not may_redraw(sys.stderr):
        from cloudtrain.console.colour import forced
        from cloudtrain.console.reporters.plain import PlainReporter

        return PlainReporter(colour=forced() and not look.plain, tenths=look.plain)
    from cloudtrain.console.reporters.live import LiveReporter

    return LiveReporter()
