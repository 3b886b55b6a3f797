"""Accuracy over five fresh seeds: .venv/bin/python scripts/bench_accuracy.py [--workers 2] [--write]

Trains every model by its recipes with seeds that were never used for tuning, on the CPU, one thread a run, and prints
the accuracy of the LAST epochs against the goals. Takes hours and can be stopped at any time (Ctrl-C): the next start
goes on from the checkpoints. Finished runs are lines of docs/accuracy.jsonl; they count as long as the code that
decides their numbers stays what it was.

`--write` puts the table into docs/benchmarks.md, `--table` only prints it. The exit code is 1 if a goal is missed or a
run is still to do.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _accuracy import LINES, SEEDS, SERIES, Series, code_digest, finished, listed, plan, read, report
from _benchmarks import circumstances, write_section
from _terminal import ROOT, Stop, elapsed, entry, say

FOLDER = ROOT / "build" / "accuracy"
LOOK_S = 1.0  # between two looks at a run
STOP_S = 60.0  # for a run to save its checkpoint


@dataclass
class Run:
    """One run under way."""

    series: Series
    seed: int
    digest: str
    out: Path
    process: subprocess.Popen[bytes]
    told: int = 0  # epochs that were told of

    @property
    def name(self) -> str:
        return f"{self.series.name.replace('`', '')}, seed {self.seed}"


def main(arguments: list[str]) -> int:
    """Run what is still to be run, print the table, write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each (default 2)")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    code = ROOT / "job"
    if not options.table:
        sweep(max(1, options.workers), code)
    lines = read()
    found = report(lines, code)
    print(found)
    if options.write:
        versions = {"torch": importlib.metadata.version("torch"), "numpy": importlib.metadata.version("numpy")}
        others = ", ".join(f"for {each.name} {listed(each.seeds)}" for each in SERIES if each.seeds != SEEDS)
        said = f"{listed(SEEDS).capitalize()}, {others}; one thread a run."
        write_section("accuracy", f"{circumstances(**versions)} {said}\n\n{found}")
    return int("missed" in found or found.count("complete") < 4)


def sweep(workers: int, code: Path) -> None:
    """Run everything of the plan that is not done, `workers` at a time.

    Raises:
        Stop: a run failed, or another sweep is under way.
    """
    from job import data, files

    folder = data_folder()
    say(f"  data         {folder}")
    data.prepare(folder, note=say)
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = read()
    todo: deque[tuple[Series, int, str]] = deque()
    for series, seed in plan():
        digest = code_digest(code, series)
        if seed not in finished(lines, series, digest):
            todo.append((series, seed, digest))
    say(f"  to do        {len(todo)} runs, {workers} at a time; Ctrl-C stops, the next start goes on")
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    running: list[Run] = []
    try:
        with files.locked(FOLDER / "lock", 0) as mine:
            if not mine:
                raise Stop("another run of this benchmark is under way", hint="wait for it, or end it")
            while (todo or running) and not stop.is_set():
                while todo and len(running) < workers:
                    running.append(start(*todo.popleft(), code=code, data=folder))
                stop.wait(LOOK_S)
                for run in list(running):
                    look(run)
                    if run.process.poll() is not None and not stop.is_set():
                        running.remove(run)
                        note(run)
    finally:
        for run in running:
            run.process.terminate()
        for run in running:
            try:
                run.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.wait()
        for number, action in before.items():
            signal.signal(number, action)
    if stop.is_set():
        raise Stop("stopped; checkpoints are kept", hint="the same command goes on from them")


def data_folder() -> Path:
    from job.data import default_folder

    here = ROOT / "data" / "mnist"
    return here if here.is_dir() else Path(os.environ.get("CLOUDTRAIN_DATA") or default_folder())


def start(series: Series, seed: int, digest: str, *, code: Path, data: Path) -> Run:
    """Begin a run, or go on with one, on a copy of the code as it is now: who edits it meanwhile changes no run."""
    name = f"model{series.model}-{series.recipe}-{seed}-{digest}"
    out, copy = FOLDER / name, FOLDER / f"code-{digest}"
    if not copy.is_dir():
        aside = copy.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(code, aside / "job", ignore=shutil.ignore_patterns("__pycache__"))
        aside.replace(copy)
    argv = [sys.executable, "-m", "job.train", "--model", str(series.model), "--recipe", series.recipe]
    argv += ["--seed", str(seed), "--device", "cpu", "--data", str(data), "--out", str(out)]
    checkpoint = out / "checkpoints" / "last.pt"
    if checkpoint.exists():
        argv += ["--resume", str(checkpoint)]
    dropped = ("PYTHONPATH", "PYTHONHOME", "CLOUDTRAIN_RESUME", "CLOUDTRAIN_OUT", "CLOUDTRAIN_EVENTS")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env |= {"OMP_NUM_THREADS": "1", "CLOUDTRAIN_EVENTS": str(FOLDER / f"{name}.events.jsonl")}
    with (FOLDER / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=copy, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    run = Run(series, seed, digest, out, process, told=len(epochs(out)))
    say(f"  {time.strftime('%H:%M')}  {run.name}: {f'goes on after epoch {run.told}' if run.told else 'begins'}")
    return run


def epochs(out: Path) -> list[dict[str, Any]]:
    """The epochs that a run has finished."""
    return read(out / "metrics.jsonl")


def look(run: Run) -> None:
    """Tell of epochs that are new."""
    rows = epochs(run.out)
    for row in rows[run.told :]:
        say(
            f"  {time.strftime('%H:%M')}  {run.name}: epoch {row['epoch']}, "
            f"test {row['test_acc']:.2f} %, {elapsed(row['seconds'])}"
        )
    run.told = max(run.told, len(rows))


def note(run: Run) -> None:
    """Keep the result of a run that has ended.

    Raises:
        Stop: it failed.
    """
    log = FOLDER / f"{run.out.name}.log"
    if run.process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        raise Stop(f"{run.name} ended with {run.process.returncode}", hint="start again, it goes on", detail=tail)
    document = json.loads((run.out / "metrics.json").read_text(encoding="utf-8"))
    line = {
        "model": run.series.model,
        "recipe": run.series.recipe,
        "seed": run.seed,
        "epochs": document["epochs"],
        "last": document["final"]["test_acc"],
        "best": document["best"]["test_acc"],
        "best_epoch": document["best"]["epoch"],
        "scored": document["scored_weights"],
        "seconds": round(document["seconds"]),
        "threads": document["threads"],
        "code": run.digest,
        "torch": document["torch"],
        "python": document["python"],
        "processor": document["device_name"],
        "system": platform.system(),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    with LINES.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line) + "\n")
    say(f"  {time.strftime('%H:%M')}  {run.name}: last {line['last']:.2f} %, best {line['best']:.2f} %")


if __name__ == "__main__":
    entry(main)
