"""What a command costs before it does anything: python3 scripts/bench_startup.py [--rounds 15] [--write]

Times bare Python and three commands of cloudtrain in rotation, in one run, so that what else the machine does meets
all of them alike; prints medians and their ratios to bare Python. `--write` puts the table into docs/benchmarks.md.
The exit code is 1 if a goal is missed.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _benchmarks import circumstances, table, write_section
from _terminal import ROOT, Stop, entry, environment

# Name -> arguments of Python, and the most it may take as a multiple of the first.
MEASURED = {
    "python -c pass": (["-c", "pass"], None),
    "cloudtrain --version": (["-m", "cloudtrain", "--version"], None),
    "cloudtrain --help": (["-m", "cloudtrain", "--help"], 5.0),
    "cloudtrain ls": (["-m", "cloudtrain", "ls"], 14.0),
}
RUNS = 20

# Makes a registry of finished runs, by the same calls as real ones.
REGISTRY = f"""
from pathlib import Path
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, make_plan
from cloudtrain.core.spec import JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.store import Store
store = Store()
for number in range({RUNS}):
    spec = RunSpec(name=f"bench-{{number}}", target=Target.LOCAL, train=TrainSpec(), job=JobSpec(source="job"),
                   runs_dir=str(Path("runs").absolute()))
    offer = Offer(where="this computer", candidates=(Candidate(type="cpu"),))
    store.move(store.add(make_plan(spec, offer, CodeSummary(files=1, bytes=1))), RunState.FAILED)
"""


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
    bare = medians["python -c pass"]
    rows, missed = [], False
    for name, (_, goal) in MEASURED.items():
        ratio = medians[name] / bare
        missed = missed or (goal is not None and ratio > goal)
        verdict = "" if goal is None else f"<= {goal:g}: {'met' if ratio <= goal else 'missed'}"
        rows.append([f"`{name}`", f"{medians[name] * 1000:.0f} ms", f"{ratio:.1f}", verdict])
    found = table(["command", "median", "x bare Python", "goal"], rows)
    print(found)
    if options.write:
        said = f"\nMedian of {options.rounds} rounds in rotation; the registry holds {RUNS} runs."
        write_section("startup", f"{circumstances(**versions())} {said}\n\n{found}")
    return int(missed)


def measure(rounds: int, home: str) -> dict[str, float]:
    """Seconds of each command, the median of `rounds`."""
    env = {**environment(), "CLOUDTRAIN_HOME": home, "PYTHONPATH": str(ROOT)}
    # What an installed program has: compiled modules. The first call of each, which compiles them, does not count.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    _timed(["-c", REGISTRY], home, env)
    times: dict[str, list[float]] = {name: [] for name in MEASURED}
    for turn in range(rounds + 1):
        for name, (command, _) in MEASURED.items():
            seconds = _timed(command, home, env)
            if turn:
                times[name].append(seconds)
    return {name: statistics.median(all_of) for name, all_of in times.items()}


def _timed(command: list[str], folder: str, env: Mapping[str, str]) -> float:
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
