"""The job's flags for single hyper-parameters, made from the fields of `recipes.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

from job.recipes import Affine, Recipe


def overridable() -> list[Field[Any]]:
    """The fields that have a flag, those of the recipe first."""
    return [item for item in (*fields(Recipe), *fields(Affine)) if item.metadata]


def add_flags(parser: argparse._ArgumentGroup) -> None:
    """One flag a field; left out it is None, so that the recipe decides."""
    for item in overridable():
        facts, known = item.metadata, {"dest": item.name, "default": None, "help": item.metadata["help"]}
        if isinstance(item.default, bool):
            parser.add_argument(facts["flag"], action=argparse.BooleanOptionalAction, **known)
        elif "choices" in facts:
            parser.add_argument(facts["flag"], choices=facts["choices"], **known)
        else:
            metavar = facts["flag"].rpartition("-")[2].upper()
            parser.add_argument(facts["flag"], type=_reader(item), metavar=metavar, **known)


def _reader(item: Field[Any]) -> Callable[[str], Any]:
    facts = item.metadata

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        low, high, below = facts["low"], facts["high"], facts.get("below", False)
        within = low <= value < float("inf") and (high is None or value < high or (value == high and not below))
        if not within:  # nan is not either
            span = f"at least {low:g}" if high is None else f"from {low:g} to {'below ' if below else ''}{high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not allowed, it must be {span}")
        return value

    def pair(text: str) -> tuple[float, float]:
        parts = text.split(",")
        if len(parts) != 2:
            raise argparse.ArgumentTypeError(f"{text!r} is not two numbers with a comma between")
        return number(parts[0]), number(parts[1])

    def number_or_none(text: str) -> float:
        return 0.0 if text == "none" else number(text)

    return pair if isinstance(item.default, tuple) else number_or_none if item.default is None else number


def given_by(parsed: argparse.Namespace) -> dict[str, Any]:
    """The hyper-parameters that were asked for: field and value."""
    asked = {item.name: getattr(parsed, item.name) for item in overridable()}
    return {name: value for name, value in asked.items() if value is not None}
