"""Training speed: .venv/bin/python scripts/bench_training.py [--rounds 5] [--device cuda] [--write]

Times the plain loop of a course, the job's `seed` recipe and its `best` recipe in rotation: each in a process of its
own, for a few seconds, one after another, so that what else the machine does meets all alike. Ratios are only taken
within a round. Where more processes want the cores than there are, all loops wait passively for their threads: left to
itself torch would spin, and the plain loop be slower by whatever the neighbours do. Each figure is kept as it comes
(build/training/): Ctrl-C stops, and the next start of the same day, on the same code, goes on with the round that was
under way.

`--write` puts the tables into docs/benchmarks.md. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _accuracy import bare
from _benchmarks import circumstances, table, write_section
from _terminal import ROOT, Stop, entry, environment, say

FOLDER = ROOT / "build" / "training"
LOOPS = ("naive", "seed", "best")
MODELS = (3, 1, 2)
GOALS_CPU = {1: 2.6, 2: 2.6, 3: 2.3}  # naive epoch / epoch of `best`, median of the rounds
GOALS_CUDA = {3: 20.0}
GOAL_EVAL_S = 1.0
SECONDS = 4.0
LIMIT_S = 600.0  # for one measurement: on a crowded machine the plain loop may take seconds a step

Row = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Measure what is still to be measured, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each model (default 5)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each measurement (default {SECONDS:g})")
    parser.add_argument("--models", type=int, nargs="+", choices=MODELS, default=MODELS, help="default: all three")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where to train (default cpu)")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("torchvision") is None:
        raise Stop(
            "torchvision, of which the plain loop is made, is missing in this Python",
            hint="use .venv/bin/python, which scripts/test.py makes",
        )
    sys.path.insert(0, str(ROOT))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{time.strftime('%Y-%m-%d', time.gmtime())}-{options.device}-{code()}.jsonl"
    if options.fresh:
        path.unlink(missing_ok=True)
    rows = measure(path, max(1, options.rounds), options.seconds, options.models, options.device)
    body, missed = report(rows, options.device, options.seconds)
    print(body)
    if options.write:
        write_section("training" if options.device == "cpu" else f"training-{options.device}", body)
    return int(missed)


def code() -> str:
    """8 hex digits over the job's code, without comments: figures of other code are not mixed with these."""
    texts = [bare(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "job").glob("*.py"))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]


def measure(path: Path, rounds: int, seconds: float, models: list[int], device: str) -> list[Row]:
    """Every loop of every model, round after round; what `path` holds of whole rounds is not measured again."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    rows = whole_rounds(rows)
    total = rounds * len(models)
    for turn in range(rounds):
        for model in models:
            if any((row["round"], row["model"]) == (turn, model) for row in rows):
                continue
            done = len({(row["round"], row["model"]) for row in rows})
            for loop in LOOPS:
                row = {"round": turn, "model": model, "loop": loop, **one(loop, model, seconds, device)}
                rows.append(row)
                with path.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps(row) + "\n")
                say(
                    f"  round {done + 1} of {total}, Model {model}, {loop:5}: {row['epoch_s']:7.1f} s an epoch, "
                    f"evaluation {row['eval_s']:.2f} s"
                )
    return [row for row in rows if row["round"] < rounds and row["model"] in models]


def whole_rounds(rows: list[Row]) -> list[Row]:
    """The rows of rounds in which every loop was measured; an interrupted round is measured anew, as a whole."""
    latest = {(row["round"], row["model"], row["loop"]): row for row in rows}
    return [row for (turn, model, _), row in latest.items() if all((turn, model, loop) in latest for loop in LOOPS)]


def one(loop: str, model: int, seconds: float, device: str) -> Row:
    """One measurement, in a process of its own.

    Raises:
        Stop: it failed or took too long.
    """
    from bench_accuracy import data_folder

    program = Path(__file__).with_name("_training_loops.py")
    argv = [sys.executable, str(program), loop, str(model), str(seconds), str(data_folder()), device]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    crowded = load > (os.cpu_count() or 1)
    env = {**environment(), **({"OMP_WAIT_POLICY": "PASSIVE"} if crowded else {})}
    try:
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Stop(
            f"{loop}, Model {model}: no result within {LIMIT_S:.0f} s", hint="try again when the machine is less busy"
        ) from None
    if done.returncode:
        raise Stop(f"{loop}, Model {model} failed", hint="run it by hand", detail=done.stderr.splitlines()[-5:])
    found: Row = json.loads(done.stdout)
    return {**found, "load": round(load, 1), "crowded": crowded}


def report(rows: list[Row], device: str, seconds: float) -> tuple[str, bool]:
    """The section's text, and whether a goal is missed."""
    goals: dict[int, float] = GOALS_CPU if device == "cpu" else GOALS_CUDA if device == "cuda" else {}
    summary, every, missed = [], [], False
    for model in sorted({row["model"] for row in rows}):
        by_loop = {loop: [row for row in rows if (row["model"], row["loop"]) == (model, loop)] for loop in LOOPS}
        plain = [row["epoch_s"] for row in by_loop["naive"]]
        ratios = {
            loop: [before / row["epoch_s"] for before, row in zip(plain, by_loop[loop], strict=True)] for loop in LOOPS
        }
        found, evaluation = statistics.median(ratios["best"]), min(row["eval_s"] for row in by_loop["best"])
        wanted = goals.get(model)
        missed |= wanted is not None and found < wanted
        missed |= device == "cpu" and evaluation > GOAL_EVAL_S
        verdict = "" if wanted is None else f" (>= {wanted:g}: {'met' if found >= wanted else 'missed'})"
        fastest = [f"{min(row['epoch_s'] for row in by_loop[loop]):.1f}" for loop in LOOPS]
        seed, plain_eval = statistics.median(ratios["seed"]), min(row["eval_s"] for row in by_loop["naive"])
        evaluations = [f"{plain_eval:.2f}", f"{evaluation:.2f}"]
        summary.append([f"Model {model}", *fastest, f"{seed:.2f}", f"**{found:.2f}**{verdict}", *evaluations])
        for loop in LOOPS:
            epochs = " ".join(f"{row['epoch_s']:.1f}" for row in by_loop[loop])
            against = "" if loop == "naive" else " ".join(f"{ratio:.2f}" for ratio in ratios[loop])
            evals = " ".join(f"{row['eval_s']:.2f}" for row in by_loop[loop])
            every.append([f"Model {model}, {loop}", epochs, against, evals])
    head = ["", "naive, s", "`seed`, s", "`best`, s", "naive / `seed`", "naive / `best`", "eval naive, s", "eval, s"]
    versions = {name: version for row in rows for name, version in row["versions"].items()}
    loads = [row["load"] for row in rows]
    said = f"{circumstances(**versions)}\n"
    said += f"{rows[0]['threads']} threads, device {device}; {seconds:g} s a measurement. "
    said += f"Load {min(loads):.1f} to {max(loads):.1f}. "
    if any(row["crowded"] for row in rows):
        said += "The cores were shared with other work: passive waiting for every loop, and figures that say little. "
    said += "Seconds are the best of the rounds, ratios the median of those of each round."
    rounds = table(["each round", "s an epoch", "naive / this", "evaluation, s"], every)
    return f"{said}\n\n{table(head, summary)}\n\n{rounds}", missed


if __name__ == "__main__":
    entry(main)
