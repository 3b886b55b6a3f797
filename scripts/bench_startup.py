"""What a command costs before it does anything: python3 scripts/bench_startup.py [--rounds 15] [--write]

Times bare Python and three commands of cloudtrain in rotation, in one run, so that what else the machine does meets
all of them alike; prints medians and their ratios to bare Python. `--write` puts the table into docs/benchmarks.md. The
exit code is 1 if a goal is missed.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _benchmarks import circumstances, table, write_section
from _terminal import ROOT, Stop, entry, environment

BARE = "python -c pass"
RUNS, SOME, MANY = 20, 50, 5000


class Row(NamedTuple):
    """What is measured.

    Attributes:
        command: arguments of Python.
        goal: the most it may take, as a multiple of the row called `of`; None: there is none.
        runs: how many the registry holds.
    """

    command: tuple[str, ...]
    goal: float | None = None
    of: str = BARE
    runs: int = RUNS


LS = ("-m", "cloudtrain", "ls")
MEASURED = {
    BARE: Row(("-c", "pass")),
    "cloudtrain --version": Row(("-m", "cloudtrain", "--version")),
    "cloudtrain --help": Row(("-m", "cloudtrain", "--help"), 5.0),
    "cloudtrain ls": Row(LS, 14.0),
    f"cloudtrain ls of {SOME} runs": Row(LS, runs=SOME),
    f"cloudtrain ls of {MANY:,} runs": Row(LS, 1.3, of=f"cloudtrain ls of {SOME} runs", runs=MANY),
}

# Makes a registry of finished runs: the first by the same calls as real ones, the others after it.
REGISTRY = """
import sqlite3, sys
from pathlib import Path
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, make_plan
from cloudtrain.core.spec import JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.store import Store
store = Store()
spec = RunSpec(name="bench-0", target=Target.LOCAL, train=TrainSpec(), job=JobSpec(source="job"),
               runs_dir=str(Path("runs").absolute()))
offer = Offer(where="this computer", candidates=(Candidate(type="cpu"),))
store.move(store.add(make_plan(spec, offer, CodeSummary(files=1, bytes=1))), RunState.FAILED)
with sqlite3.connect(store.path) as db:
    names = [row[1] for row in db.execute("PRAGMA table_info(runs)")]
    made = {"name": "'bench-' || :number", "plan": "replace(plan, 'bench-0', 'bench-' || :number)"}
    made |= {"journal": "json_set(journal, '$.code', json_object('filler', hex(zeroblob(1500))))"}
    columns = ", ".join(made.get(name, name) for name in names)
    copy = f"INSERT INTO runs SELECT {columns} FROM runs WHERE name = 'bench-0'"
    db.executemany(copy, [{"number": number} for number in range(1, int(sys.argv[1]))])
"""


def _as_code(name: str) -> str:
    """A row's name with its command as code: "`cloudtrain ls` of 50 runs"."""
    command, of, runs = name.partition(" of ")
    return f"`{command}`{of}{runs}"


def main(arguments: list[str]) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each command")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if not _bootstrap.venv_python().exists():
        raise Stop("there is no .venv to measure in", hint="python3 scripts/quickstart.py makes it")
    with tempfile.TemporaryDirectory() as home:
        medians = measure(max(1, options.rounds), home)
    rows, missed = [], False
    for name, row in MEASURED.items():
        ratio, bare = medians[name] / medians[row.of], medians[name] / medians[BARE]
        missed = missed or (row.goal is not None and ratio > row.goal)
        beside = "" if row.of == BARE else f" x {_as_code(row.of)}, is {ratio:.2f}"
        verdict = "" if row.goal is None else f"<= {row.goal:g}{beside}: {'met' if ratio <= row.goal else 'missed'}"
        rows.append([_as_code(name), f"{medians[name] * 1000:.0f} ms", f"{bare:.1f}", verdict])
    found = table(["command", "median", "x bare Python", "goal"], rows)
    print(found)
    if options.write:
        said = f"\nMedian of {options.rounds} rounds in rotation; the registry holds {RUNS} runs, or what the row says."
        write_section("startup", f"{circumstances(**versions())} {said}\n\n{found}")
    return int(missed)


def measure(rounds: int, home: str) -> dict[str, float]:
    """Seconds of each command, the median of `rounds`."""
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    # What an installed program has: compiled modules. The first call of each, which compiles them, does not count.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    homes = {runs: {**env, "CLOUDTRAIN_HOME": str(Path(home) / str(runs))} for runs in (RUNS, SOME, MANY)}
    for runs, its in homes.items():
        _timed(["-c", REGISTRY, str(runs)], home, its)
    times: dict[str, list[float]] = {name: [] for name in MEASURED}
    for turn in range(rounds + 1):
        for name, row in MEASURED.items():
            seconds = _timed(row.command, home, homes[row.runs])
            if turn:
                times[name].append(seconds)
    return {name: statistics.median(all_of) for name, all_of in times.items()}


def _timed(command: Sequence[str], folder: str, env: Mapping[str, str]) -> float:
    python = str(_bootstrap.venv_python())
    began = time.perf_counter()
    done = subprocess.run([python, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    took = time.perf_counter() - began
    if done.returncode:
        raise Stop(f"{' '.join(command[:3])} failed", hint="run it by hand", detail=done.stderr.splitlines()[-5:])
    return took


def versions() -> dict[str, str]:
    """Of the libraries that a command loads first."""
    ask = "import importlib.metadata as m; print(*(m.version(n) for n in ('typer', 'rich')))"
    found = subprocess.run([_bootstrap.venv_python(), "-c", ask], capture_output=True, text=True, timeout=60)
    return dict(zip(("typer", "rich"), found.stdout.split(), strict=False))


if __name__ == "__main__":
    entry(main)
