"""Which test a worker of pytest-xdist runs when, so that some wait while others compute, and none is left for last.

The tests of whole runs take seconds each and mostly wait: for machines, for graces, for links that are cut. In the
order of their names they come last, one beside the other, while the cores idle. Under `--dist worksteal` every worker
begins with an equal and connected part of the list; here each part gets its share of both kinds, and ends with short
ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

# Folder below tests/ -> about how many seconds one of its tests waits.
WAITS = {
    "region/whole_path": 7,
    "region/faults": 8,
    "region/crash": 8,
    "host/transport": 3,
    "region/ec2": 3,
    "host/onhost": 2,
    "programs": 2,
}
WAITS_END = 0.8  # share of a worker's part in which its waiting tests are spread


def dealt(modules: Sequence[str], workers: int) -> list[int]:
    """The order for tests of these `modules` (one entry a test: its file below tests/), as their numbers."""

    def waits(block: list[int]) -> float:
        """Seconds that tests of one module are expected to wait."""
        return len(block) * WAITS.get(PurePosixPath(modules[block[0]]).parent.as_posix(), 0)

    blocks = by_module(modules, range(len(modules)))
    parts: list[list[list[int]]] = [[] for _ in range(workers)]
    for block in sorted(filter(waits, blocks), key=waits, reverse=True):
        min(parts, key=lambda part: sum(map(waits, part))).append(block)
    short = iter([test for block in blocks if not waits(block) for test in block])
    order: list[int] = []
    for number, waiting in enumerate(parts, start=1):
        end = len(modules) * number // workers
        room = max(0, end - len(order) - sum(map(len, waiting)))
        order += mixed(waiting, by_module(modules, itertools.islice(short, room)))
    return [*order, *short]


def by_module(modules: Sequence[str], tests: Iterable[int]) -> list[list[int]]:
    """Neighbours of one module, which share its fixtures, together."""
    return [list(block) for _, block in itertools.groupby(tests, key=modules.__getitem__)]


def mixed(waiting: list[list[int]], short: list[list[int]]) -> list[int]:
    """Both, each in its order, spread evenly: a block of `waiting` where it begins, one of `short` where it ends."""
    waited, passed = ([0, *itertools.accumulate(map(len, blocks))] for blocks in (waiting, short))
    placed = [(WAITS_END * begin / waited[-1], block) for begin, block in zip(waited, waiting, strict=False)]
    placed += [(end / passed[-1], block) for end, block in zip(passed[1:], short, strict=True)]
    return [test for _, block in sorted(placed) for test in block]
