"""`cloudtrain ls --refresh` and `--watch`: the table as the machines say it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from cloudtrain.cli import signals
from cloudtrain.console import colour
from cloudtrain.console.lines import print_lines
from cloudtrain.console.pages import listing
from cloudtrain.console.pages.filters import Chosen
from cloudtrain.console.reporters.base import may_redraw
from cloudtrain.console.reporters.live import LiveLines
from cloudtrain.core.text import fitted
from cloudtrain.lifecycle.asking import Asking
from cloudtrain.store import Store

EVERY_S = 5.0
PRINT_EVERY_S = 10.0
_TURN_S = 1.0


def refresh(choose: Callable[[Store], Chosen]) -> Asking:
    """Ask the machines of the runs that `choose` takes; what was heard."""
    store = Store()
    asking = Asking(store)
    asking.begin(choose(store).runs)
    while asking.collect(_TURN_S):
        pass
    return asking


def watch(choose: Callable[[Store], Chosen], *, plain: bool) -> None:
    """Show the runs that `choose` takes, and ask their machines again and again, until somebody leaves."""
    try:
        with signals.raised():
            if plain or not may_redraw(sys.stdout):
                _print(choose)
            else:
                _redraw(choose)
    except (KeyboardInterrupt, signals.Leave):
        return  # it has only looked


def _redraw(choose: Callable[[Store], Chosen]) -> None:
    store = Store()
    asking, asked_at = Asking(store), float("-inf")
    with LiveLines() as screen:
        while True:
            began, chosen = time.monotonic(), choose(store)
            if began - asked_at >= EVERY_S:
                asking.begin(chosen.runs)
                asked_at = began
            screen.show(_lines(chosen, store, asking, screen.width, in_colour=colour.of_list(sys.stdout)))
            asking.collect(_TURN_S)
            time.sleep(max(0.0, began + _TURN_S - time.monotonic()))


def _print(choose: Callable[[Store], Chosen]) -> None:
    """The table again whenever it has changed."""
    store = Store()
    asking, printed = Asking(store), list[str]()
    while True:
        began = time.monotonic()
        asking.begin(choose(store).runs)
        while asking.collect(_TURN_S) and time.monotonic() < began + PRINT_EVERY_S:
            pass
        lines = _lines(choose(store), store, asking, None, in_colour=False)
        if lines != printed:
            print_lines(*([""] if printed else []), *lines)
        printed = lines
        time.sleep(max(0.0, began + PRINT_EVERY_S - time.monotonic()))


def _lines(chosen: Chosen, store: Store, asking: Asking, width: int | None, *, in_colour: bool) -> list[str]:
    runs = asking.as_heard(chosen.runs)
    table = listing.table(runs, width=width, colour=in_colour, silent=asking.silent) if runs else []
    damaged = [error.message for error in chosen.damaged]
    # Of all that runs, whatever of it is shown.
    living = asking.as_heard(store.runs(lambda error: None, latest=0))
    spending = listing.spending(living, asking.silent, time.time())
    return [*table, *fitted([*damaged, spending], width)]
