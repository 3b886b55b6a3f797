"""What a launch costs beside EC2 itself: .venv/bin/python scripts/bench_launch.py [--rounds N] [--write]

The whole command, as a user types it, against an emulated region whose instances run and boot at once: the time and
the API calls between the plan's consent and the first line of the training program, and where they go. The emulated
region and the instance share this computer with the command, so the time is an upper bound.

`--write` puts the tables into docs/benchmarks.md. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _benchmarks import circumstances, table, write_section
from _terminal import ROOT, Stop, entry, say

GOAL_S = 4.0
GOAL_CALLS = 20
LIMIT_S = 180.0
# A program of one line: what it costs to import torch is not the launcher's.
JOB = 'print("EPOCH: 0", flush=True)\n'
STEPS = {
    "instance": "security group, launch, until EC2 says `running`",
    "ssh": "first login by the pinned key, the host key replaced, second login",
    "environment": "what the machine has",
    "sync": "scan, push of supervisor and code, check of every file",
    "start": "the supervisor starts the program and lets go of it",
}


@dataclass(frozen=True)
class Launch:
    """One measured launch.

    Attributes:
        seconds: from the plan to the first line of the program.
        steps: seconds by step.
        calls: names of the API calls in that time, in order.
        whole_s: of the whole command, from the start of Python until it left.
        whole_calls: names of all its API calls.
    """

    seconds: float
    steps: dict[str, float]
    calls: list[str]
    whole_s: float
    whole_calls: list[str]


def main(arguments: list[str]) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="launches, after one that does not count")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    rounds = max(1, options.rounds)
    with tempfile.TemporaryDirectory(prefix="ct") as folder, region_in(Path(folder)) as region:
        launches = []
        for turn in range(rounds + 1):
            one = measure(region, Path(folder), f"bench-{turn}")
            say(f"  {'warm-up' if not turn else f'round {turn}'}: {one.seconds:.2f} s, {len(one.calls)} calls")
            launches += [one] if turn else []
    body, missed = report(launches)
    say(body)
    if options.write:
        write_section("launch", body)
    return int(missed)


@contextmanager
def region_in(folder: Path) -> Iterator[Any]:
    """A region whose instances run and boot without delay."""
    try:
        from cloudtrain.emulator.aws.core import Timing
        from cloudtrain.emulator.region import Region
    except ImportError as error:
        raise Stop(
            f"{error.name} is missing in this Python", hint="use .venv/bin/python, which scripts/quickstart.py makes"
        ) from error
    with Region(folder / "region", timing=Timing(pending_s=0, boot_s=0)) as region:
        yield region


def measure(region: Any, folder: Path, name: str) -> Launch:
    """Run the command once, and time what it tells as it tells it."""
    job = folder / "toil"
    job.mkdir(exist_ok=True)
    (job / "train.py").write_text(JOB, encoding="utf-8")
    argv = [sys.executable, "-m", "cloudtrain", "run", "--instance", "g4dn.xlarge", "--job", str(job)]
    argv += ["--name", name, "--yes", "--json"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CLOUDTRAIN_"))}
    env = {**kept, **region.environment(), "CLOUDTRAIN_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    known = len(region.calls())
    began = time.perf_counter()
    consent = first_line = 0.0
    window: list[float] = []
    steps: dict[str, float] = {}
    output = subprocess.PIPE
    with subprocess.Popen(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as command:
        watchdog = threading.Timer(LIMIT_S, command.kill)
        watchdog.start()
        assert command.stdout is not None and command.stderr is not None
        for line in command.stdout:
            now, told = time.perf_counter(), json.loads(line)
            if told["type"] == "plan":
                consent, window = now, [_unix(told["ts"])]
            elif told["type"] == "step" and told["status"] == "done" and not first_line:
                steps[told["step"]] = told["seconds"]
            elif told["type"] == "log" and not first_line:
                first_line = now
                window.append(_unix(told["ts"]))
        said = command.stderr.read().decode(errors="replace")
        code = command.wait()
        watchdog.cancel()
    if code or not first_line:
        raise Stop(f"the launch ended with exit code {code}", hint="run it by hand", detail=said.splitlines()[-8:])
    calls = region.calls()[known:]
    if any(region.inventory().values()):
        raise Stop("the launch left something behind", hint=str(region.inventory()))
    between = [call["action"] for call in calls if window[0] <= call["at"] <= window[1]]
    every = [call["action"] for call in calls]
    return Launch(first_line - consent, steps, between, time.perf_counter() - began, every)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def report(launches: list[Launch]) -> tuple[str, bool]:
    """The section's text, and whether a goal is missed."""
    seconds = statistics.median(one.seconds for one in launches)
    most_calls = max(len(one.calls) for one in launches)
    said = circumstances(boto3=importlib.metadata.version("boto3"), moto=importlib.metadata.version("moto"))
    load = f"Load {os.getloadavg()[0]:.1f} at the end. " if hasattr(os, "getloadavg") else ""
    said += f"\n{load}Median of {len(launches)} launches, {min(one.seconds for one in launches):.2f} to "
    said += f"{max(one.seconds for one in launches):.2f} s; region and instance share the computer with the command."
    goals = [
        ["consent to first training line", f"<= {GOAL_S:g} s", f"{seconds:.2f} s", _met(seconds <= GOAL_S)],
        ["API calls in between, the most", f"<= {GOAL_CALLS}", str(most_calls), _met(most_calls <= GOAL_CALLS)],
    ]
    parts = {step: statistics.median(one.steps.get(step, 0.0) for one in launches) for step in STEPS}
    rest = statistics.median(one.seconds - sum(one.steps.get(step, 0.0) for step in STEPS) for one in launches)
    where = [[step, f"{parts[step]:.2f}", STEPS[step]] for step in STEPS]
    where.append(
        ["between and after", f"{rest:.2f}", "registry, receipts, imports, the program's start, its line back"]
    )
    typical = sorted(launches, key=lambda one: one.seconds)[len(launches) // 2]
    whole = statistics.median(one.whole_s for one in launches)
    calls = (
        f"The calls in between: {', '.join(typical.calls)}.\n\n"
        f"The whole command, from the start of Python to the end of the instance: {whole:.1f} s and "
        f"{len(typical.whole_calls)} calls, all of them: {_counted(typical.whole_calls)}."
    )
    head = table(["goal", "", "found", ""], goals)
    steps = table(["step", "seconds", "what it is"], where)
    return "\n\n".join([said, head, steps, calls]), any(row[-1] == "missed" for row in goals)


def _met(holds: bool) -> str:
    return "met" if holds else "missed"


def _counted(names: list[str]) -> str:
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{name} x {count}" if count > 1 else name for name, count in counts.items())


if __name__ == "__main__":
    entry(main)
