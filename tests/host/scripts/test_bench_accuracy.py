"""The accuracy benchmark: its plan, which runs count, and its table; the report of the speed benchmark."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    scripts, before = str(ROOT / "scripts"), set(sys.modules)
    monkeypatch.syspath_prepend(scripts)
    yield importlib.import_module("_accuracy")
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(scripts):
            del sys.modules[name]


@pytest.fixture
def speed(accuracy: ModuleType) -> ModuleType:
    return importlib.import_module("bench_training")


def test_plan_has_every_series_with_every_seed_once(accuracy: ModuleType) -> None:
    plan = [(series.model, series.recipe, seed) for series, seed in accuracy.plan()]
    assert len(plan) == len(set(plan)) == 25
    assert {seed for *of, seed in plan if of != [2, "best"]} == {21, 22, 23, 24, 25}
    assert {seed for *of, seed in plan if of == [2, "best"]} == {31, 32, 33, 34, 35}
    assert all(entry[:2] == (3, "fast") for entry in plan[:5])
    assert plan[5:8] == [(3, "best", 21), (2, "best", 31), (1, "best", 21)]


def test_comments_and_docstrings_change_no_digest_and_code_does(accuracy: ModuleType, tmp_path: Path) -> None:
    code = tmp_path / "job"
    shutil.copytree(ROOT / "job", code, ignore=shutil.ignore_patterns("__pycache__"))
    series = accuracy.SERIES[0]
    before = accuracy.code_digest(code, series)
    assert before == accuracy.code_digest(ROOT / "job", series)
    path = code / "optim.py"
    text = path.read_text(encoding="utf-8")
    path.write_text("# a comment\n" + text.replace('"""', '"""Other words. ', 1), encoding="utf-8")
    assert accuracy.code_digest(code, series) == before
    path.write_text(text.replace("EMA_EVERY = 8", "EMA_EVERY = 9"), encoding="utf-8")
    assert accuracy.code_digest(code, series) != before
    assert len({accuracy.code_digest(ROOT / "job", each) for each in accuracy.SERIES}) == len(accuracy.SERIES)


def test_a_definition_that_moves_and_one_for_gpus_change_no_digest(accuracy: ModuleType, tmp_path: Path) -> None:
    code = tmp_path / "job"
    shutil.copytree(ROOT / "job", code, ignore=shutil.ignore_patterns("__pycache__"))
    series = accuracy.SERIES[0]
    before = accuracy.code_digest(code, series)
    optim, step, constant = code / "optim.py", code / "step.py", "EMA_EVERY = 8"
    text = optim.read_text(encoding="utf-8")
    assert f"\n{constant}" in text
    optim.write_text(text.replace(f"\n{constant}", "\n"), encoding="utf-8")
    assert accuracy.code_digest(code, series) != before
    with step.open("a", encoding="utf-8") as file:
        file.write(f"\n{constant}\n\nclass Graphs:\n    capture = False\n")
    assert accuracy.code_digest(code, series) == before


def a_run(accuracy: ModuleType, series: Any, seed: int, last: float, **others: Any) -> dict[str, Any]:
    code = accuracy.code_digest(ROOT / "job", series)
    line = {"model": series.model, "recipe": series.recipe, "seed": seed, "epochs": 5, "last": last, "best": last}
    return {**line, "code": code, **others}


def test_table_counts_runs_of_this_code_and_judges_mean_and_worst(accuracy: ModuleType) -> None:
    fast, best, *_ = accuracy.SERIES
    reached = {21: 99.4, 22: 99.5, 23: 99.3, 24: 99.4, 25: 99.4}
    lines = [a_run(accuracy, fast, seed, last) for seed, last in reached.items()]
    lines += [a_run(accuracy, best, 21, 99.6), a_run(accuracy, best, 22, 99.42)]
    lines += [a_run(accuracy, best, 23, 90.0, code="of other code")]
    text = accuracy.report(lines, ROOT / "job")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert rows[0][:5] == [
        "Model 3, `fast`, 5 epochs", "5", "**99.400** (>= 99.40: met)", "99.30", "99.40 99.50 99.30 99.40 99.40"
    ]  # fmt: skip
    assert rows[0][6] == "complete"
    assert rows[1][1:4] == ["2", "**99.510** (>= 99.52: missed)", "99.42 (>= 99.43: missed)"]
    assert rows[1][6] == "seeds 21, 22" and rows[2][6] == "not run yet"


def test_speed_report_takes_ratios_within_rounds(speed: ModuleType) -> None:
    seconds = {"naive": (50.0, 100.0, 60.0), "seed": (25.0, 40.0, 30.0), "best": (20.0, 25.0, 30.0)}
    rows = [
        {"round": turn, "model": 3, "loop": loop, "epoch_s": seconds[loop][turn], "eval_s": 0.5, "steps": 9}
        | {"threads": 2, "load": 1.0, "crowded": False, "versions": {"torch": "2.13"}}
        for turn in range(3)
        for loop in speed.LOOPS
    ]
    text, missed = speed.report(rows, "cpu", 4.0)
    assert "**2.50** (>= 2.3: met)" in text and not missed  # the median of 2.5, 4.0 and 2.0
    assert "| Model 3, best | 20.0 25.0 30.0 | 2.50 4.00 2.00 |" in text
    slow = [{**row, "eval_s": 1.5} if row["loop"] == "best" else row for row in rows]
    assert speed.report(slow, "cpu", 4.0)[1]


def test_an_interrupted_round_is_measured_anew(speed: ModuleType) -> None:
    rows = [{"round": 0, "model": 1, "loop": loop} for loop in speed.LOOPS]
    rows.append({"round": 1, "model": 1, "loop": "naive"})
    assert speed.whole_rounds(rows) == rows[:3]


@pytest.mark.slow
def test_schemas_for_torchvision_make_the_plain_loop_run(mnist: Path, tmp_path: Path) -> None:
    """One real measurement of the plain loop and one of ours, as short as they come: the former scores 256 pictures,
    which are read one by one."""
    few = shutil.copytree(mnist, tmp_path / "few", ignore=shutil.ignore_patterns(".*"))
    for kind, header, of_one in (("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)):
        path = few / f"t10k-{kind}-ubyte"
        whole = path.read_bytes()
        path.write_bytes(whole[:4] + (256).to_bytes(4, "big") + whole[8 : header + 256 * of_one])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = ROOT / "scripts" / "_training_loops.py"
    for loop, data in (("naive", few), ("best", mnist)):
        argv = [sys.executable, str(program), loop, "2", "0.01", str(data), "cpu"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=140)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["steps"] >= 1 and found["epoch_s"] > 0 and found["eval_s"] > 0
