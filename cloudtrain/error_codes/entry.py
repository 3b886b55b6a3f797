"""One code of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A stable code.

    Attributes:
        code: as in `error.code` of `--json`.
        exits: exit codes of the command that it comes with; several where the same thing is met in different places.
        cause: what has happened, one line.
        means: what that means for money and data where the error does not say it itself.
        next: what to type or do next, likewise.
    """

    code: str
    exits: tuple[int, ...]
    cause: str
    means: str
    next: str


@dataclass(frozen=True, slots=True)
class Group:
    """Codes that belong together, in the order of the documentation."""

    title: str
    about: str
    entries: tuple[ErrorCode, ...]


def group(title: str, about: str, *rows: tuple[str, tuple[int, ...], str, str, str]) -> Group:
    """A group of `rows`: code, exit codes, cause, what it means for money and data, what to do next."""
    return Group(title, about, tuple(ErrorCode(*row) for row in rows))
