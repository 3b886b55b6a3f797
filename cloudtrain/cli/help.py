"""What `--help` prints: options under headings, with what each takes and what holds without it; then examples."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

_TAKES = {int: "N", float: "NUMBER", Path: "PATH"}


def write_parameters(params: Iterable[Any], formatter: Any) -> None:
    """The parameters of a command: its arguments, and its options by their headings, which come as they are met."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    for each in params:
        if not each.hidden:
            argument = each.param_type_name == "argument"
            heading = "Arguments" if argument else each.rich_help_panel or "Options"
            sections.setdefault(heading, []).append((named(each) if argument else _option(each), _words(each)))
    for heading, rows in sections.items():
        if not rows:
            continue
        with formatter.section(heading):
            formatter.write_dl(rows, col_max=28)


def write_examples(lines: str, formatter: Any) -> None:
    """Command lines, each as it is typed."""
    with formatter.section("Examples"):
        for line in lines.splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def named(param: Any) -> str:
    """What a parameter is called: "--epochs", "[RUN]"."""
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    name = param.name.upper()
    return str(param.metavar or (name if param.required else f"[{name}]"))


def _option(param: Any) -> str:
    names = ", ".join(sorted(param.opts, key=len))
    if param.secondary_opts:
        return f"{names} / {', '.join(param.secondary_opts)}"
    return names if param.is_flag else f"{names} {_takes(param)}"


def _takes(param: Any) -> str:
    """What is typed after an option."""
    kind = param.type_descriptor.annotation
    if param.metavar:
        return str(param.metavar)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    return _TAKES.get(kind, named(param).lstrip("-").upper())


def _words(param: Any) -> str:
    """What it does, and what holds where it is not typed."""
    holds, shown = param.default, param.show_default
    if isinstance(shown, str):
        holds = shown
    elif not shown or holds in (None, False) or callable(holds) or param.param_type_name == "argument":
        holds = ""
    elif holds is True:
        holds = param.opts[0] if param.secondary_opts else ""
    notes = f" [default: {holds}]" if holds else " [needed]" if param.required else ""
    return f"{param.help or ''}{notes}"
