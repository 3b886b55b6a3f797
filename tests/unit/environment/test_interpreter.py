"""What a host says of its Python: it becomes options of this computer's uv only where it is what it should be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from cloudtrain.environment.interpreter import examine
from cloudtrain.transport.base import Completed, Stream, Transport

GOOD: dict[str, Any] = {
    "python": "/usr/bin/python3",
    "version": "3.12",
    "platform": "x86_64-manylinux_2_34",
    "has": {"torch": "2.9.1+cu128"},
    "lacks": ["tqdm>=4"],
    "bin": None,
    "sites": ["/usr/lib/python3/dist-packages"],
}


class Says(Transport):
    """A host that says what it was told to."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        timeout: float = 60.0,
        awaits: bytes = b"",
    ) -> Completed:
        return Completed(0, self.said, b"")

    def stream(self, argv: Sequence[str]) -> Stream:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


def examined(**odd: Any) -> Any:
    return examine(Says(b"Welcome!\n" + json.dumps({**GOOD, **odd}).encode() + b"\n"), "python3", ["tqdm>=4", "rich"])


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
    assert examine(Says(b"what?"), "python3") is None
