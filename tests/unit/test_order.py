"""The order of the tests themselves: each once, each worker's part with a share of those that wait."""

from __future__ import annotations

import itertools

import pytest

from tests.order import dealt

MODULES = [
    *["region/faults/test_matrix.py"] * 70,
    *["host/job/test_train.py"] * 90,
    *["region/ec2/test_launch.py"] * 30,
    *["unit/core/test_plan.py"] * 600,
    *["region/whole_path/test_clean.py"] * 12,
    *["region/whole_path/test_lease.py"] * 16,
    *["region/whole_path/test_story.py"] * 25,
]
SHORT = ("host/job/", "unit/core/test_plan")


@pytest.mark.parametrize("workers", [2, 3, 4, 6, 8])
def test_each_worker_gets_a_share_of_both_kinds(workers: int) -> None:
    order = dealt(MODULES, workers)
    assert sorted(order) == list(range(len(MODULES)))
    ends = [len(MODULES) * number // workers for number in range(workers + 1)]
    for begin, end in itertools.pairwise(ends[:5]):
        part = [MODULES[test] for test in order[begin:end]]
        assert not part[0].startswith(SHORT), "what waits comes first"
        assert part[-1].startswith(SHORT), "what is short comes last"


def test_tests_that_share_a_module_s_fixtures_stay_together() -> None:
    order = [MODULES[test] for test in dealt(MODULES, 4)]
    runs = [module for module, _ in itertools.groupby(order)]
    assert all(runs.count(module) == 1 for module in runs if module.startswith(("region/whole_path", "region/faults")))


def test_few_tests_of_one_kind() -> None:
    assert dealt([], 4) == []
    assert dealt(["unit/core/test_plan.py"], 4) == [0]
    assert sorted(dealt(["region/whole_path/test_clean.py"] * 3, 4)) == [0, 1, 2]
