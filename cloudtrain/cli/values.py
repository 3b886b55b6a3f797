"""What is typed for an option or argument, read as its type.

Typer reads it by pydantic, whose import takes a third of `cloudtrain ls` and whose words are a library's
("Input should be a valid integer"). A type that is not known here is left to typer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer import core

from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import meant


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

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words.

        Raises:
            UsageError: they cannot be used; in our words, whatever typer would say.
        """
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except typer.TyperException as error:
            raise _in_our_words(error, ctx) or error from None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows its name in the first line of its help."""
        arguments = [each for each in self.params if each.param_type_name == "argument"]  # type: ignore[attr-defined]
        return [self.options_metavar, *map(_named, arguments)]  # type: ignore[attr-defined]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Its arguments and options."""
        _help().write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Its examples."""
        if self.epilog:  # type: ignore[attr-defined]
            _help().write_examples(self.epilog, formatter)  # type: ignore[attr-defined]


class ReadingCommand(_Reading, core.TyperCommand):
    """One command."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Options that begin with what is typed; none once the words of another program have begun: then the shell
        completes names of files."""
        return [] if ctx.args else super().shell_complete(ctx, incomplete)


class ReadingGroup(_Reading, core.TyperGroup):
    """A group of commands."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows its name in the first line of its help."""
        return [*super().collect_usage_pieces(ctx), "COMMAND"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Its options, and its commands with all of their words."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of its commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, str(command.help).split("\n\n")[0]) for name, command in self.commands.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant.

        Raises:
            UsageError: there is none of this name.
        """
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            hint = meant(name, self.list_commands(ctx), f"{path_of(ctx)} --help", f"{path_of(ctx)} ")
            raise UsageError(f"there is no command {name!r}", hint=hint)
        return super().resolve_command(ctx, args)


def path_of(ctx: Any) -> str:
    """How its command is typed: "cloudtrain config show"."""
    return "cloudtrain" if ctx.parent is None else f"{path_of(ctx.parent)} {ctx.info_name}"


def _named(param: Any) -> str:
    name: str = _help().named(param)
    return name


def _in_our_words(error: Any, ctx: Any) -> UsageError | None:
    """The error for a command line that typer refuses; None: what it says is help, or is said well enough."""
    usual = f"{path_of(ctx)} --help"
    if hasattr(error, "possibilities"):
        typed = error.option_name
        known = [name for each in ctx.command.get_params(ctx) for name in (*each.opts, *each.secondary_opts)]
        long = [name for name in known if name.startswith("--")]
        return UsageError(f"there is no option {typed}", hint=meant(typed, long, usual))
    if hasattr(error, "option_name"):
        alone = "not take" in error.message
        return UsageError(f"{error.option_name} {'takes no' if alone else 'needs a'} value", hint=usual)
    if hasattr(error, "param_type"):
        return UsageError(f"{_named(error.param)} is missing", hint=usual)
    return None


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
            said, *hint = error.args
            raise UsageError(f"{_named(param)}: {said}", hint=hint[0] if hint else f"{path_of(ctx)} --help") from error


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
        raise ValueError(f"there is no {value!r}", meant(str(value), kind, f"one of {', '.join(kind)}")) from None


def _help() -> Any:
    """The words of help: loaded for those who ask for it."""
    from cloudtrain.cli import help

    return help
