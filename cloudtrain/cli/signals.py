"""Signals that ask a command to leave: they become exceptions in its main thread, and are not lost on the way."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN_AFTER_S = 0.02
# The terminal was closed. Windows has no such signal.
HANGUP = int(getattr(signal, "SIGHUP", 0))


class Leave(BaseException):
    """The terminal was closed, or somebody asked this process to end: stop watching. Like KeyboardInterrupt.

    Attributes:
        asked: somebody has asked for it; a closed terminal has not.
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number
        self.asked = number != HANGUP


def send(number: int) -> None:
    """Send this process a signal, so that a wait of the main thread is broken off."""
    if os.name == "nt":
        _thread.interrupt_main(signal.Signals(number))
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


@contextmanager
def raised() -> Iterator[None]:
    """For this long SIGTERM, SIGHUP and Ctrl-Break raise `Leave` in the main thread.

    A signal may strike where Python drops exceptions: in a callback of a weak reference, in a `__del__`. It is then
    sent again, until it strikes where somebody notices. So is Ctrl-C. A command that was told to outlive its terminal
    (`nohup`) does.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise Leave(number)

    def dropped(what: Any) -> None:
        if not isinstance(what.exc_value, Leave | KeyboardInterrupt):
            dropped_before(what)
            return
        number = what.exc_value.number if isinstance(what.exc_value, Leave) else signal.SIGINT
        # From another thread: here it would strike in this same callback.
        timer = threading.Timer(_AGAIN_AFTER_S, send, (number,))
        timer.daemon = True
        timer.start()

    dropped_before, sys.unraisablehook = sys.unraisablehook, dropped
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGBREAK")]
    wanted = [number for number in numbers if number is not None and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in wanted}
    try:
        yield
    finally:
        sys.unraisablehook = dropped_before
        for number, handling in before.items():
            signal.signal(number, handling)
