"""docs/faults.md is what the declarations say, and they speak of all rows and of tests that there are."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from tests.region.faults.rows import CASES

ROOT = Path(__file__).resolve().parents[2]
ROWS = range(1, 52)
# Each crash point has its own tests and its own table.
CRASHES = 41


def test_the_page_is_what_the_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("faults_doc", ROOT / "scripts" / "faults_doc.py")
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.DOC.read_text(encoding="utf-8") == generator.doc(), "run: python scripts/faults_doc.py"


def test_every_row_is_played() -> None:
    assert {case.row for case in CASES} | {CRASHES} == set(ROWS)
    assert len({case.id for case in CASES}) == len(CASES)


def test_what_is_said_to_be_tested_elsewhere_is() -> None:
    for name in {name for case in CASES for name in case.also}:
        path, _, test = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in tests or (not test and tests), name


def test_a_row_that_leaves_something_says_what_ends_it() -> None:
    for case in CASES:
        assert bool(case.alive) == bool(case.mend) == bool(case.then), case.id
        assert case.fault and case.how and case.money
