"""Which test a worker of pytest-xdist runs when, so that some wait while others compute, and none is left for last.

The tests of whole runs take seconds each and mostly wait: for machines, for graces, for links that are cut. In the
order of their names they come last, one beside the other, while the cores idle. Under `--dist worksteal` every worker
begins with an equal and connected part of the list; here each part gets its share of both kinds, and ends with short
ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# Folder below tests/ -> about how many seconds one of its tests waits.
WAITS = {"whole_path": 7, "faults": 8, "crash": 8, "transport": 3, "provider/ec2": 3, "onhost": 2}
WAITS_END = 0.8  # share of a worker's part in which its waiting tests are spread


@dataclass
class Part:
    """What one worker begins with: tests that wait, in blocks of one module each."""

    waiting: list[list[int]] = field(default_factory=list)
    seconds: float = 0


def dealt(modules: Sequence[str], workers: int) -> list[int]:
    """The order for tests of these `modules` (one entry a test: its file below tests/), as their numbers."""
    blocks = by_module(modules, range(len(modules)))
    parts = [Part() for _ in range(workers)]
    for block in sorted(blocks, key=lambda block: -wait(modules, block)):
        if seconds := wait(modules, block):
            part = min(parts, key=lambda part: part.seconds)
            part.waiting.append(block)
            part.seconds += seconds
    short = iter([test for block in blocks if not wait(modules, block) for test in block])
    order: list[int] = []
    for number, part in enumerate(parts, start=1):
        end = len(modules) * number // workers
        room = max(0, end - len(order) - sum(map(len, part.waiting)))
        order += mixed(part.waiting, by_module(modules, itertools.islice(short, room)))
    return [*order, *short]


def by_module(modules: Sequence[str], tests: Iterable[int]) -> list[list[int]]:
    """Neighbours of one module, which share its fixtures, together."""
    return [list(block) for _, block in itertools.groupby(tests, key=modules.__getitem__)]


def wait(modules: Sequence[str], block: list[int]) -> float:
    """Seconds that a block of tests of one module is expected to wait."""
    folder = PurePosixPath(modules[block[0]]).parent.as_posix()
    return len(block) * WAITS.get(folder, 0)


def mixed(waiting: list[list[int]], short: list[list[int]]) -> list[int]:
    """Both, each in its order, spread evenly: a block of `waiting` where it begins, one of `short` where it ends."""
    waited, passed = ([0, *itertools.accumulate(map(len, blocks))] for blocks in (waiting, short))
    placed = [(WAITS_END * begin / waited[-1], block) for begin, block in zip(waited, waiting, strict=False)]
    placed += [(end / passed[-1], block) for end, block in zip(passed[1:], short, strict=True)]
    return [test for _, block in sorted(placed) for test in block]
