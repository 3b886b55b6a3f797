"""What is typed for an option or argument, read as its type.

Typer reads it by pydantic, whose import takes a third of `cloudtrain ls` and whose words are a library's
("Input should be a valid integer"). A type that is not known here is left to typer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer import core


class _Reading:
    """A command of typer whose parameters are read here."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, those that typer adds too."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            annotation = param.type_descriptor.annotation
            read = _reader(_LIST_OF.get(annotation, annotation), param.type_descriptor.parameter_info)
            if read is not None:
                ours = _Typed(read, annotation in _LIST_OF)
                param.get_runtime_param = lambda ours=ours: ours
        return params


class ReadingCommand(_Reading, core.TyperCommand):
    """One command."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Options that begin with what is typed; none once the words of another program have begun: then the shell
        completes names of files."""
        return [] if ctx.args else super().shell_complete(ctx, incomplete)


class ReadingGroup(_Reading, core.TyperGroup):
    """A group of commands."""


_LIST_OF = {list[str]: str, list[int]: int}


@dataclass(frozen=True)
class _Typed:
    """In the place of typer's own."""

    read: Callable[[Any], Any]
    many: bool

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as its type."""
        try:
            if self.many:
                return [self.read(one) for one in value or ()]
            return None if value is None else self.read(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from error


def _reader(kind: Any, info: Any) -> Callable[[Any], Any] | None:
    if kind in (str, bool):  # flags come as what they are
        return kind  # type: ignore[no-any-return]
    if kind is Path and not (info.exists or info.resolve_path):
        return Path
    if kind in (int, float):
        return lambda value: _number(kind, value, info.min, info.max)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return lambda value: _choice(kind, value)
    return None


def _number(kind: type, value: Any, least: float | None, most: float | None) -> Any:
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a {'whole number' if kind is int else 'number'}") from None
    if least is not None and number < least:
        raise ValueError(f"{value} is below {least:g}")
    if most is not None and number > most:
        raise ValueError(f"{value} is above {most:g}")
    return number


def _choice(kind: type[StrEnum], value: Any) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        near = difflib.get_close_matches(str(value), list(kind), n=1, cutoff=0.5)
        instead = f"did you mean {near[0]}?" if near else f"choose from {', '.join(kind)}"
        raise ValueError(f"there is no {value!r}; {instead}") from None
