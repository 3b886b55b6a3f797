"""A wish to stop, noted when the signal comes and obeyed where the loop can."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):
    """The run was asked to end and has reached a place where it can."""


class Stop:
    """`signal` is the number of the signal that came, None so far."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for Ctrl-C."""
        return 130 if self.signal == signal.SIGINT else 143

    def check(self) -> None:
        if self.asked:
            raise Stopped

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM (Windows: Ctrl-Break) and Ctrl-C instead of dying of them; a second Ctrl-C is not waited out."""

        def note(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.signal == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = number

        numbers = [signal.SIGTERM, signal.SIGINT]
        if hasattr(signal, "SIGBREAK"):
            numbers.append(signal.SIGBREAK)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)
