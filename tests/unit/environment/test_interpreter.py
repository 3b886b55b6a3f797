"""What a host says of its Python: it becomes options of this computer's uv only where it is what it should be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudtrain.environment.interpreter import examine
from tests.fakes import Canned

GOOD: dict[str, Any] = {
    "python": "/usr/bin/python3",
    "version": "3.12",
    "platform": "x86_64-manylinux_2_34",
    "has": {"torch": "2.9.1+cu128"},
    "lacks": ["tqdm>=4"],
    "bin": None,
    "sites": ["/usr/lib/python3/dist-packages"],
}


def examined(**odd: Any) -> Any:
    return examine(Canned(b"Welcome!\n" + json.dumps({**GOOD, **odd}).encode() + b"\n"), "python3", ["tqdm>=4", "rich"])


def test_what_an_honest_host_says() -> None:
    found = examined()
    assert (found.version, found.has, found.lacks) == ("3.12", {"torch": "2.9.1+cu128"}, ("tqdm>=4",))


@pytest.mark.parametrize(
    "odd",
    [
        {"version": "3.12\n--index-url http://x"},
        {"version": "-r"},
        {"platform": "linux --no-build"},
        {"has": {"torch": "2.9\n-e /home/me/x"}},
        {"has": {"torch\n-r x": "2"}},
        {"has": ["torch"]},
        {"sites": [1]},
        {"version": None},
    ],
)
def test_what_is_none_of_it_is_no_answer(odd: dict[str, Any]) -> None:
    assert examined(**odd) is None


def test_it_lacks_only_what_was_asked_for() -> None:
    assert examined(lacks=["-e /home/me/x", "rich", "evil"]).lacks == ("rich",)
    assert examine(Canned(b"what?"), "python3") is None
