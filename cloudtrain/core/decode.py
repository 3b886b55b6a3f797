"""The one door for what others wrote: a host's answers and frames, a job's events, rows and notes that hold them.

`json_object` bounds size, depth and numbers, in time linear in the text. The readers below take one value each and
give it with its type, or raise `Odd`. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cloudtrain.core.text import LAST_SECOND

T = TypeVar("T")

MOST_BYTES = 64 * 2**20
MOST_DEPTH = 32
_MOST_WHOLE = 2**63 - 1
_MOST_NUMBER = 1e100  # sums and quotients of such numbers are numbers still


class Odd(ValueError):
    """It is not what it should be; the message says what it should be, and does not repeat what was said."""


def json_object(data: bytes | str, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object that `data` is.

    A number that is none (NaN, infinity) or that nothing here can hold is None; half a surrogate pair becomes
    U+FFFD.

    Args:
        most: bytes, or characters.

    Raises:
        Odd: it is longer, nested deeper than `MOST_DEPTH`, no JSON or no object.
    """
    if len(data) > most:
        raise Odd(f"not an answer of at most {most} bytes")
    try:
        value = _DECODER.decode(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Odd("not JSON") from error
    return dict(fields(_sound(value, 0)))


def _int(digits: str) -> int | None:
    value = int(digits) if len(digits) <= 20 else None
    return value if value is not None and abs(value) <= _MOST_WHOLE else None


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) <= _MOST_NUMBER else None


_DECODER = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=lambda _: None)


def _sound(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, (dict, list)) and depth >= MOST_DEPTH:
        raise Odd(f"nested deeper than {MOST_DEPTH} levels")
    if isinstance(value, dict):
        return {_sound(key, depth): _sound(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sound(inner, depth + 1) for inner in value]
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise Odd("not a text")
    return value


def truth(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Odd("neither true nor false")
    return value


def integer(value: Any) -> int:
    """A whole number of at most 63 bits; a float is none."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MOST_WHOLE:
        raise Odd("not a whole number")
    return value


def count(value: Any) -> int:
    """A whole number from 0."""
    if integer(value) < 0:
        raise Odd("below zero")
    return int(value)


def number(value: Any) -> float:
    """A finite number of a size that can be reckoned with; whole ones stay what they are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Odd("not a number")
    if not abs(value) <= _MOST_NUMBER:  # nor is NaN
        raise Odd("not a number that can be reckoned with")
    return value


def moment(value: Any) -> float:
    """Unix seconds that can be shown: of the years 1970 to 9999."""
    if not 0 <= number(value) <= LAST_SECOND:
        raise Odd("not a moment")
    return float(value)


def fields(value: Any) -> Mapping[str, Any]:
    """An object, by the names of its fields."""
    if not isinstance(value, dict):
        raise Odd("not an object")
    return value


def each(read: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    """A reader of lists of what `read` reads."""

    def read_all(value: Any) -> list[T]:
        if not isinstance(value, list):
            raise Odd("not a list")
        return [read(inner) for inner in value]

    return read_all


def optional(read: Callable[[Any], T], value: Any) -> T | None:
    """What `read` makes of `value`; None for None, which is also a field that is not there."""
    return None if value is None else read(value)


def known(values: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """`values` without the fields that are not what their reader in `readers` takes; null, and fields without a reader,
    stay as they are."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        with suppress(Odd):
            kept[name] = optional(readers[name], value) if name in readers else value
    return kept


def checked(values: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]]) -> None:
    """Look at the same fields as `known`.

    Raises:
        Odd: naming the first that is not what it should be.
    """
    for name, read in readers.items():
        try:
            optional(read, values.get(name))
        except Odd as error:
            raise Odd(f"{name} is {error}") from error


def fitting(value: T) -> T:
    """`value`, a dataclass, if each field, also of those within, is what it is declared to be.

    Raises:
        Odd: naming the first that is not.
    """
    kind: type = type(value)
    for name, fits in _declared(kind):
        if not fits(getattr(value, name)):
            raise Odd(f"{kind.__name__}.{name} is not what it should be")
    return value


@cache
def _declared(kind: type) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    return tuple((name, _test(hint)) for name, hint in get_type_hints(kind).items() if not name.startswith("_"))


def _test(hint: Any) -> Callable[[Any], bool]:
    """Whether a value is what an annotation of our dataclasses says."""
    if hint is Any:
        return lambda _: True
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        tests = [_test(one) for one in inner]
        return lambda value: any(fits(value) for fits in tests)
    if get_origin(hint) is tuple:
        fits_one = _test(inner[0])
        return lambda value: isinstance(value, tuple) and all(fits_one(one) for one in value)
    if isinstance(hint, type) and is_dataclass(hint):
        tests_of = _declared(hint)
        return lambda value: isinstance(value, hint) and all(fits(getattr(value, name)) for name, fits in tests_of)
    if hint in (float, int):
        read = number if hint is float else integer
        return lambda value: _reads(read, value)
    kind = get_origin(hint) or hint
    return lambda value: isinstance(value, kind)


def _reads(read: Callable[[Any], Any], value: Any) -> bool:
    try:
        read(value)
    except Odd:
        return False
    return True
