"""The one door for what others wrote: a host's answers and frames, a job's events, rows and notes that hold them.

`json_object` bounds size, depth and numbers, in time linear in the text. The readers below take one value each and
give it with its type, or raise `Odd`. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from dataclasses import fields as declared
from enum import Enum
from functools import cache, partial
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

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
        raise Odd(f"longer than {most} bytes")
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
        raise Odd("not text")
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
        raise Odd("not a usable number")
    return value


def moment(value: Any) -> float:
    """Unix seconds that can be shown: of the years 1970 to 9999."""
    if not 0 <= number(value) <= LAST_SECOND:
        raise Odd("not a time")
    return float(value)


Moment = Annotated[float, moment]
"""Unix seconds."""
Count = Annotated[int, count]


def fields(value: Any) -> Mapping[str, Any]:
    """An object, by the names of its fields."""
    if not isinstance(value, dict):
        raise Odd("not an object")
    return value


def there(values: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """`values`, if none of these fields is lacking or null."""
    for name in names:
        if values.get(name) is None:
            raise Odd(f"without {name}")
    return values


def each(read: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    """A reader of lists of what `read` reads."""

    def read_all(value: Any) -> list[T]:
        if not isinstance(value, (list, tuple)):
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


_PLAIN: Mapping[Any, Callable[[Any], Any]] = {str: text, bool: truth, int: integer, float: number}


def made(kind: type[T], value: Any, *, leave_out: bool = False) -> T:
    """The dataclass `kind` that the object `value` is, each field read as it is declared; other keys are passed over.

    Args:
        leave_out: a field that is not what it is declared to be has its default.

    Raises:
        Odd: naming the first that is not.
    """
    told, given = fields(value), {}
    for name, read in _readers(cast("Any", kind)):
        try:
            if name in told:
                given[name] = read(told[name])
        except Odd as error:
            if not leave_out:
                raise Odd(f"{kind.__name__}.{name} is {error}") from error
    try:
        return kind(**given)
    except TypeError as error:
        raise Odd(f"not a {kind.__name__}: {error}") from error


@cache
def _readers(kind: type) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((one.name, _reader(hints[one.name])) for one in declared(kind) if one.init)


def _reader(hint: Any) -> Callable[[Any], Any]:
    """What reads a value of an annotation of our dataclasses."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin is Annotated:
        return cast("Callable[[Any], Any]", inner[1])
    if origin in (Union, UnionType):
        one, none = inner
        assert none is type(None)
        return partial(optional, _reader(one))
    if origin is tuple:
        return _tuple(inner)
    if origin is not None:
        assert origin is Mapping
        return _mapping(_reader(inner[1]))
    if is_dataclass(hint):
        return partial(made, cast("type[Any]", hint))
    return _PLAIN.get(hint) or partial(_member, hint)


def _tuple(inner: tuple[Any, ...]) -> Callable[[Any], Any]:
    if inner[1:] == (...,):
        read_all = each(_reader(inner[0]))
        return lambda value: tuple(read_all(value))
    parts, readers = each(lambda part: part), tuple(map(_reader, inner))

    def read(value: Any) -> Any:
        if len(found := parts(value)) != len(readers):
            raise Odd(f"not {len(readers)} values")
        return tuple(one(part) for one, part in zip(readers, found, strict=True))

    return read


def _mapping(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {name: read(inner) for name, inner in fields(value).items()}


def _member(kind: type[Enum], value: Any) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        raise Odd(f"not a {kind.__name__}") from error


def brief(value: Any) -> dict[str, Any]:
    """The JSON-ready form of a dataclass, without the fields that are as they are by default."""
    whole = asdict(value)
    return {one.name: whole[one.name] for one in declared(value) if whole[one.name] != one.default}


def as_far(kind: type[T], text: Any) -> T:
    """What a JSON text holds, as far as it is that."""
    try:
        return made(kind, json_object(text), leave_out=True)
    except (ValueError, TypeError):
        return kind()


class Given:
    """Base of frozen dataclasses that know which of their fields they were given, be it as None (by `replace`: all):
    the others have defaults, and do not count where the value is written down."""

    given: frozenset[str]

    def __new__(cls, **given: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "given", frozenset(given))
        return made

    def __or__(self, other: Self) -> Self:
        """What either was given; of both `other` counts."""
        return type(self)(**{name: getattr(one, name) for one in (self, other) for name in one.given})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form of what was given."""
        whole = asdict(self)  # type: ignore[call-overload]
        return {name: value for name, value in whole.items() if name in self.given}
