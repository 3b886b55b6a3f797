"""A question that comes up far below the console. Who puts it, and whether it may be put, the command line says."""

from __future__ import annotations

from typing import Protocol


class Ask(Protocol):
    """Puts a question and gives the line that was typed, which is not shown if it is `hidden`; None: nobody is there,
    or wants no question."""

    def __call__(self, question: str, *, hidden: bool = False) -> str | None:
        """Put it."""


def nobody(question: str, *, hidden: bool = False) -> str | None:
    """Puts no question: what holds outside of a command."""
    return None


ask: Ask = nobody
