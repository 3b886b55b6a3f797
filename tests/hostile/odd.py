"""What is odd: values that no program here writes, at any place of what one does write."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

MARKUP = "<b onerror=x>"
ESCAPES = (MARKUP, "\x1b[2J\x1b]0;x\x07", "\x9b2J", "\ud800", "\u202e", "\0", "a\nb", "é", "x" * 30_000, "")
ODD_NUMBERS = (float("nan"), float("inf"), 1e308, 5e-324, -1e99, 10**400, -(10**30), 2**63, 0, -1, True)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ESCAPES + ODD_NUMBERS)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
odd = st.sampled_from(ESCAPES) | st.sampled_from(ODD_NUMBERS) | anything | st.just(DEEP)


@dataclass(frozen=True)
class Parser:
    """What is attacked.

    Attributes:
        tried: takes one input; fails for whatever is neither taken nor refused with a documented error.
        inputs: what is made for it.
        costs: so many times as long as an answer of a host takes, so many times fewer are tried.
    """

    tried: Callable[[Any], None]
    inputs: st.SearchStrategy[Any]
    costs: int = 1


@st.composite
def spoilt(draw: st.DrawFn, whole: Any) -> Any:
    """`whole` with anything at some of its places, as often at one that holds others as within it; or anything else."""
    value = json.loads(json.dumps(draw(whole)))
    for _ in range(draw(st.integers(1, 3))):
        container = value
        while container:
            key = draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
            if not isinstance(container[key], (dict, list)) or draw(st.booleans()):
                container[key] = copy.deepcopy(draw(odd))
                break
            container = container[key]
    return draw(odd) if draw(st.integers(0, 19)) == 0 else value


def no_escapes(text: str) -> None:
    """Nothing in `text` is obeyed by a terminal."""
    bad = [c for c in text if (ord(c) < 32 and c not in "\n\t") or "\x7f" <= c <= "\x9f" or c == "\u202e"]
    assert not bad, bad
