"""Secrets of runs. Their values are in the memory of this process alone, and hidden in all that it shows and writes.

A value comes from this shell, else from what was given for this command (`--env-file`, an answer), and goes to the
job's environment. A command that reads of a run learns what this shell has of its secrets, so as to hide it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudtrain.core.errors import UsageError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
"""What can name an environment variable."""

SHORTEST = 6
"""Characters. A shorter value is not hidden: too much else on a screen is the same."""

_given: dict[str, str] = {}
# What is hidden, longest first: each line of each value that was ever looked up.
_hidden: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a log, in bytes, the value of the secret `name` stands."""

    name: str
    at: int
    bytes: int


def give(values: Mapping[str, str]) -> None:
    """Values for this command, where this shell has none of that name."""
    _given.update(values)


def missing(names: Iterable[str]) -> list[str]:
    """Those of `names` that have no value here. The values of the others are hidden from now on."""
    values = {name: os.environ.get(name) or _given.get(name) for name in names}
    lines = {line for value in values.values() for line in (value or "").splitlines() if len(line.strip()) >= SHORTEST}
    if not lines.issubset(_hidden):
        _hidden[:] = sorted(lines.union(_hidden), key=len, reverse=True)
    return [name for name, value in values.items() if not value]


def values_of(names: Sequence[str], *, consequence: str) -> dict[str, str]:
    """The values of `names`.

    Args:
        consequence: what it means that one is missing.

    Raises:
        UsageError: this command knows none for one of them (code `secret_missing`).
    """
    if lacking := missing(names):
        raise UsageError(
            f"the secret {lacking[0]} is not set",
            hint=f"export {lacking[0]}=... in this shell and run the command again; run and rerun take --env-file, too",
            consequence=consequence,
            code="secret_missing",
        )
    return {name: os.environ.get(name) or _given[name] for name in names}


def hide(text: str) -> str:
    """`text` with each value that this process knows as asterisks."""
    for value in _hidden:
        if value in text:
            text = text.replace(value, "*" * len(value))
    return text


def hidden(value: Any) -> Any:
    """The same of every text in a JSON-ready value."""
    if not _hidden:
        return value
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {hidden(key): hidden(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(inner) for inner in value]
    return value


def _begun(text: str, value: str) -> int:
    """How many characters at the end of `text` may be the beginning of `value`, whose rest is still to come."""
    return next((size for size in range(min(len(value) - 1, len(text)), 0, -1) if text.endswith(value[:size])), 0)


class HiddenBytes:
    """A stream of bytes with the values hidden, each as asterisks of its length; what may be the beginning of one is
    held back until more comes."""

    def __init__(self) -> None:
        self.held = b""

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """What may be shown now."""
        if not _hidden:
            return data
        # A character a byte: what is no UTF-8 passes through as it is.
        text = (self.held + data).decode("latin-1")
        values = [os.fsencode(line).decode("latin-1") for line in _hidden]
        for value in values:
            text = text.replace(value, "*" * len(value))
        keep = 0 if final else max(_begun(text, value) for value in values)
        self.held = text[len(text) - keep :].encode("latin-1")
        return text[: len(text) - keep].encode("latin-1")


def places(found: Sequence[Place]) -> str:
    """Of which secrets a log holds the values, in words; "": of none."""
    names = sorted({place.name for place in found if NAME.fullmatch(place.name)})
    return f"the value of {' and '.join(names)}" if names else ""


def blanked(data: bytes, offset: int, places: Iterable[Place]) -> bytes:
    """Bytes of a log, from its byte `offset` on, with asterisks where a host has found the value of a secret."""
    made = bytearray(data)
    for place in places:
        begin, end = max(0, place.at - offset), min(len(made), place.at + place.bytes - offset)
        if begin < end:
            made[begin:end] = b"*" * (end - begin)
    return bytes(made)
