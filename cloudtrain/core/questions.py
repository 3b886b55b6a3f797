"""A question that comes up far below the console. Who puts it, and whether it may be put, the command line says."""

from __future__ import annotations

from collections.abc import Callable


def nobody(question: str) -> str | None:
    """Puts no question: what holds outside of a command."""
    return None


ask: Callable[[str], str | None] = nobody
"""Puts a question and gives the line that was typed; None: nobody is there, or wants no question."""
