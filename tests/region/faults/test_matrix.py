"""Every row of the fault matrix on a real command line; what is declared is what is held against the outcome."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.region.faults.matrix import Case, judge, mend
from tests.region.faults.rows import CASES
from tests.region.faults.scene import Scene


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_row(case: Case, scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(case)
    try:
        case.play(scene)
        judge(case, scene)
        mend(case, scene)
    finally:
        print(scene.screen)
