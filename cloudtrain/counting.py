"""Numbers of things, for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files", "0 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
