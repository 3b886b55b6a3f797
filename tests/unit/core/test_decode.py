"""The one door for what others wrote: what comes through, and as what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest

from cloudtrain.core import decode, told
from cloudtrain.core.decode import Given, Odd


@pytest.mark.parametrize(
    "said",
    [
        b"", b"[1]", b"1", b'"a"', b"null", b"{", b"\xff\xfe{}", b'{"a": ' + b"[" * 100_000, b"{" * 100_000,
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", b'{"a": "' + b"x" * 200 + b'"}',
    ],
)  # fmt: skip
def test_what_is_no_object_of_bounded_size_and_depth(said: bytes) -> None:
    with pytest.raises(Odd):
        decode.json_object(said, most=200 if len(said) < 1000 else 10**6)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (b"NaN", None), (b"-Infinity", None), (b"1e999", None), (b"1" + b"0" * 5000, None),
        (b"18446744073709551616", None),
        (b"9223372036854775807", 2**63 - 1), (b"1.5", 1.5), (b'"\\ud800x"', "\ufffdx"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
    ],
)  # fmt: skip
def test_numbers_and_texts_that_nothing_can_hold(said: bytes, value: Any) -> None:
    assert decode.json_object(b'{"a": [' + said + b"]}") == {"a": [value]}


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (decode.text, ["", "a"], [None, 1, ["a"]]),
        (decode.truth, [True, False], [None, 0, "yes"]),
        (decode.integer, [-1, 0, 2**63 - 1], [None, True, 1.0, 2**63, "1"]),
        (decode.count, [0, 5], [-1, 1.5]),
        (decode.number, [0, 1.5, -1e99], [None, True, "1", float("nan"), float("inf"), 1e101, 10**400]),
        (decode.moment, [0.0, 1.8e9], [-1, 1e12]),
        (decode.fields, [{}], [None, [], "a"]),
        (decode.each(decode.text), [[], ["a"]], [None, {}, ["a", 1]]),
    ],
)
def test_a_reader_gives_its_type_or_raises_one_error(read: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert read(value) == value
    for value in bad:
        with pytest.raises(Odd):
            read(value)


def test_a_field_of_an_event_that_is_none_is_left_out() -> None:
    line = b'{"kind": "epoch", "epoch": 1, "epochs": "2\\u001b[2J", "test_acc": [], "seconds": NaN, "mine": ["kept"]}'
    assert told.event(line) == {"kind": "epoch", "epoch": 1, "seconds": None, "mine": ["kept"]}


def test_lines_that_are_no_events_are_counted_and_the_others_read() -> None:
    odd: list[int] = []
    lines = b'{"kind": ["epoch"], "epoch": 1}\n\nprogress 5 %\n{"kind": "epoch"}\n{"kind": "warning", "message": "m"}\n'
    assert list(told.events(lines, lambda: odd.append(1))) == [{"kind": "warning", "message": "m"}]
    assert len(odd) == 3


def test_a_line_that_is_too_long_is_passed_over_without_being_held(tmp_path: Any) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind": "' + b"x" * (3 * told.MOST_LINE) + b'"}\n{"kind": "a"}\n')
    assert list(told.read_events(path)) == [{"kind": "a"}]


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    at: decode.Moment


@dataclass(frozen=True, kw_only=True)
class Outer(Given):
    name: str
    share: float = 1.0
    size: decode.Count | None = None
    colour: Colour | None = None
    inner: tuple[Inner, ...] = ()
    pair: tuple[str, int] | None = None
    names: Mapping[str, str] | None = None


WHOLE = {"name": "a", "share": 2, "size": 0, "colour": "red", "inner": [{"at": 1.0}], "pair": ["a", 1], "names": {}}


def test_a_dataclass_is_made_of_the_object_that_it_says() -> None:
    made = decode.made(Outer, {**WHOLE, "of a later version": 1})
    inner = (Inner(at=1.0),)
    assert made == Outer(name="a", share=2, size=0, colour=Colour.RED, inner=inner, pair=("a", 1), names={})
    assert decode.made(Outer, made.to_dict()) == made and made.given == set(WHOLE)


@pytest.mark.parametrize(
    "odd",
    [
        {"name": None}, {"name": 1}, {"share": None}, {"share": True}, {"share": float("nan")}, {"size": -1},
        {"size": 1.5}, {"colour": "blue"}, {"colour": []}, {"inner": {}}, {"inner": [{}]}, {"inner": [{"at": -1}]},
        {"pair": ["a"]}, {"pair": [1, "a"]}, {"pair": "a1"}, {"names": {"a": 1}}, {"names": []},
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_named_or_left_out(odd: dict[str, Any]) -> None:
    ((name, _),) = odd.items()
    with pytest.raises(Odd, match=rf"\.{name} is "):
        decode.made(Outer, {**WHOLE, **odd})
    if name != "name":
        left = decode.made(Outer, {**WHOLE, **odd}, leave_out=True)
        assert left == decode.made(Outer, {key: value for key, value in WHOLE.items() if key != name})
    with pytest.raises(Odd, match="Outer"):
        decode.made(Outer, {"share": 1.0})


def test_what_was_given_counts_also_where_it_is_a_default() -> None:
    cleared = Outer(name="a", size=1) | Outer(name="b", size=None)
    assert cleared.to_dict() == {"name": "b", "size": None} and cleared == Outer(name="b")
    assert decode.brief(Outer(name="b", size=None, share=0.5)) == {"name": "b", "share": 0.5}
