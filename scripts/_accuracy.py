"""What the accuracy benchmark runs and what it wants: series, seeds, goals, the digest of the training code, the table.

Standard library only, so that the plan and the table need no torch.
"""

from __future__ import annotations

import ast
import hashlib
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _benchmarks import table
from _terminal import ROOT

SEEDS = (21, 22, 23, 24, 25)  # no recipe was ever tuned or tried with them
# Model 2's recipe was chosen anew after these had shown that the one before falls short (docs/experiments.md).
LATER_SEEDS = (31, 32, 33, 34, 35)
LINES = ROOT / "docs" / "accuracy.jsonl"

# The modules that decide which numbers a run on a CPU ends with, and the classes in them that run on a GPU alone.
NUMERICS = ("augment", "fused", "models", "optim", "step")
ON_A_GPU = ("Eager", "Graphs")


@dataclass(frozen=True)
class Series:
    """One recipe of one model, run once for each of `seeds`. Goals: percent of the 10,000 test images, last epoch."""

    model: int
    recipe: str
    mean: float | None
    worst: float | None
    seeds: tuple[int, ...] = SEEDS

    @property
    def name(self) -> str:
        return f"Model {self.model}, `{self.recipe}`"


SERIES = (
    Series(3, "fast", 99.40, None),
    Series(3, "best", 99.52, 99.43),
    Series(2, "best", 99.38, 99.26, LATER_SEEDS),
    Series(1, "best", 99.57, 99.50),
    Series(1, "fast", None, None),
)


def plan() -> Iterator[tuple[Series, int]]:
    """Every run, in an order that makes half a table of use: the short series, then seed by seed, then the rest."""
    first, *middle, last = SERIES
    yield from ((first, seed) for seed in first.seeds)
    for seeds in zip(*(series.seeds for series in middle), strict=True):
        yield from zip(middle, seeds, strict=True)
    yield from ((last, seed) for seed in last.seeds)


def code_digest(folder: Path, series: Series) -> str:
    """16 hex digits over what decides a run's numbers: the definitions in `NUMERICS`, and the recipe.

    A definition may move from one of these modules to another.
    """
    sys.path.insert(0, str(ROOT))
    from job.recipes import RECIPES  # standard library only

    sources = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in NUMERICS]
    parts = sorted(part for source in sources for part in definitions(source))
    parts.append(json.dumps(asdict(RECIPES[series.recipe][series.model]), sort_keys=True))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def definitions(source: str) -> list[str]:
    """What stands at the margin of Python code, without imports and all that `bare` leaves out."""
    return [
        ast.unparse(part)
        for part in ast.parse(bare(source)).body
        if not isinstance(part, (ast.Import, ast.ImportFrom, ast.Pass)) and getattr(part, "name", "") not in ON_A_GPU
    ]


def bare(source: str) -> str:
    """Python code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def read(path: Path = LINES) -> list[dict[str, Any]]:
    """The finished runs noted in `path`, none if there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def finished(lines: Iterable[dict[str, Any]], series: Series, digest: str) -> dict[int, dict[str, Any]]:
    """The runs of `series` by seed, those of this very code and recipe alone."""
    return {
        line["seed"]: line
        for line in lines
        if (line["model"], line["recipe"], line["code"]) == (series.model, series.recipe, digest)
        and line["seed"] in series.seeds
    }


def report(lines: list[dict[str, Any]], folder: Path) -> str:
    """The table: last epochs of each series against its goals."""
    rows = []
    for series in SERIES:
        runs = finished(lines, series, code_digest(folder, series))
        if not runs:
            rows.append([series.name, "0", "", "", "", "", "not run yet"])
            continue
        last = [runs[seed]["last"] for seed in sorted(runs)]
        mean, worst = statistics.mean(last), min(last)
        title, each = f"{series.name}, {runs[min(runs)]['epochs']} epochs", " ".join(f"{value:.2f}" for value in last)
        found = [f"**{mean:.3f}**{goal(mean, series.mean)}", f"{worst:.2f}{goal(worst, series.worst)}", each]
        best = f"{statistics.mean(runs[seed]['best'] for seed in sorted(runs)):.3f}"
        done = "complete" if set(series.seeds) <= runs.keys() else listed(runs)
        rows.append([title, str(len(runs)), *found, best, done])
    return table(["", "runs", "mean, last epoch", "worst", "each", "mean, best epoch", ""], rows)


def listed(seeds: Iterable[int]) -> str:
    return f"seeds {', '.join(map(str, sorted(seeds)))}"


def goal(value: float, wanted: float | None) -> str:
    if wanted is None:
        return ""
    return f" (>= {wanted:.2f}: {'met' if round(value, 4) >= wanted else 'missed'})"
