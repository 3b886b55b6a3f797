"""Runs under faults and kill -9, for as long as you like: python -m tests.region.soak [--minutes 30] [--seed N]

Each run is launched in an emulated region while faults are in force; its commands are killed at random moments and at
the crash points of `cloudtrain/core/crash.py`, sometimes two commands act at once, sometimes the whole state folder is
deleted; then the commands that anybody would type next take it to its end. After each run must hold: no instance is
left unexplained, no byte of the log and no result is lost, nothing was launched or started twice, no screen showed a
traceback, each exit code is documented.

Prints a line a minute and the totals. The exit code is 1 if anything did not hold; the folder of such a run is kept,
with a transcript, and `--seed N --run NUMBER` repeats its choices. `--write` puts the totals into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.region.soak.judge import COUNTED, Breach
from tests.region.soak.trial import ROOT, Account, Tally, Trial

sys.path.insert(0, str(ROOT / "scripts"))

from _benchmarks import PAGE, circumstances, table, write_section
from _terminal import elapsed, say

# A region remembers every call: it is renewed before that makes it slow.
RUNS_A_REGION = 12
TICK_S = 60.0


@dataclass
class Totals:
    """Everything that was done and found so far; shared by the workers."""

    tally: Tally = field(default_factory=Tally)
    runs: int = 0
    found: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, tally: Tally, breaches: list[Breach], where: str) -> None:
        """One more run."""
        with self.lock:
            self.runs += 1
            for name in ("commands", "rivals", "forgotten", "parked"):
                setattr(self.tally, name, getattr(self.tally, name) + getattr(tally, name))
            for name in ("kills", "faults", "ends"):
                getattr(self.tally, name).update(getattr(tally, name))
            for breach in breaches:
                self.found[breach.kind] += breach.count
            if breaches:
                self.broken.append(where)

    def line(self) -> str:
        """How it stands, in one line."""
        with self.lock:
            done = self.tally
            found = ", ".join(f"{kind} {self.found[kind]}" for kind in COUNTED[:3])
            other = sum(self.found[kind] for kind in COUNTED[3:])
            return (
                f"{self.runs} runs, {done.commands} commands, {done.kills.total()} kills, "
                f"{done.faults.total()} faults; {found}, anything else {other}"
            )


def main(arguments: list[str]) -> int:
    """Soak, report, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="no run begins after so long (default 30)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same choices")
    parser.add_argument("--parallel", type=int, default=2, help="runs at the same time, each in a region of its own")
    parser.add_argument("--runs", type=int, default=0, help="end after so many runs")
    parser.add_argument("--run", type=int, default=0, help="play this run alone, and keep its folder")
    parser.add_argument("--folder", type=Path, help="where it works (default: a temporary folder)")
    parser.add_argument("--write", nargs="?", const=PAGE, type=Path, help="put the totals into this page")
    options = parser.parse_args(arguments)
    if sys.platform == "win32":
        parser.error("an emulated machine needs a POSIX shell: run it on Linux, on macOS or in WSL")
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="ct-soak-"))).absolute()
    say(f"soak with seed {options.seed}, in {folder}")
    totals, began = Totals(), time.monotonic()
    numbers = (
        iter([options.run]) if options.run else iter(range(1, options.runs + 1) if options.runs else itertools.count(1))
    )
    soak = _Soak(options.seed, folder, numbers, began + options.minutes * 60, totals, keep=bool(options.run))
    workers = [
        threading.Thread(target=soak.work, args=(worker,), name=f"soak {worker}")
        for worker in range(1 if options.run else max(1, options.parallel))
    ]
    for worker in workers:
        worker.start()
    try:
        ticked = began
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.5)
            if time.monotonic() - ticked > TICK_S:
                ticked = time.monotonic()
                say(f"  {elapsed(ticked - began)}: {totals.line()}")
    except KeyboardInterrupt:
        say("ending the runs under way ...")
        soak.over = True
        for worker in workers:
            worker.join()
    body = report(totals, options.seed, time.monotonic() - began, len(workers))
    say(body)
    for failure in soak.failures:
        say(f"error: {failure}")
    for where in totals.broken:
        say(f"broken: {where}")
    if options.write:
        write_section("soak", body, options.write)
    if not (totals.broken or soak.failures or options.run or options.folder):
        shutil.rmtree(folder, ignore_errors=True)
    return int(bool(totals.broken or soak.failures))


class _Soak:
    """The workers: each takes the next number until the time is over."""

    def __init__(
        self, seed: int, folder: Path, numbers: Iterator[int], until: float, totals: Totals, *, keep: bool
    ) -> None:
        self.over = False
        self.failures: list[str] = []
        self._seed, self._folder, self._until, self._totals, self._keep = seed, folder, until, totals, keep
        self._numbers = numbers
        self._taking = threading.Lock()
        self._typical: dict[str, float] = {}

    def work(self, worker: int) -> None:
        """Play runs, in one region after the other."""
        from cloudtrain.emulator import service

        try:
            for turn in itertools.count():
                region = self._folder / f"region-{worker}-{turn}"
                number = self._take()
                if number is None:
                    return
                options = ("--pending", "0.1", "--boot", "0.1", "--idle", "900")
                endpoint = service.ensure(region, options=options)
                told = service.living(region)
                assert told is not None
                account = Account(endpoint.environment, functools.partial(service.ask, told))
                try:
                    for _ in range(RUNS_A_REGION):
                        if number is None:
                            return
                        self._play(number, account)
                        number = self._take()
                finally:
                    service.stop(region)
                    shutil.rmtree(region, ignore_errors=True)
                if number is not None:
                    self._put_back(number)
        except Exception as error:
            self.failures.append(f"worker {worker}: {type(error).__name__}: {error}")

    def _play(self, number: int, account: Account) -> None:
        place = self._folder / f"run-{number}"
        trial = Trial(self._seed, number, place, account, self._typical)
        breaches = trial.play()
        where = f"run {number}, {place}; again: python -m tests.region.soak --seed {self._seed} --run {number}"
        self._totals.add(trial.tally, breaches, where)
        for breach in breaches:
            say(f"  run {number} breaks: {breach.kind}: {breach.told}")
        if not breaches and not self._keep:
            shutil.rmtree(place, ignore_errors=True)

    def _take(self) -> int | None:
        with self._taking:
            return None if self.over or time.monotonic() > self._until else next(self._numbers, None)

    def _put_back(self, number: int) -> None:
        with self._taking:
            self._numbers = itertools.chain([number], self._numbers)


def report(totals: Totals, seed: int, seconds: float, parallel: int) -> str:
    """The totals, as a section of the page."""
    import importlib.metadata

    done = totals.tally
    said = circumstances(boto3=importlib.metadata.version("boto3"), moto=importlib.metadata.version("moto"))
    said += f"\n{elapsed(seconds)}, {parallel} at a time, seed {seed}."
    said += f" Load {os.getloadavg()[0]:.0f} at the end." if hasattr(os, "getloadavg") else ""
    rows = [
        ["runs", str(totals.runs)],
        ["commands", str(done.commands)],
        ["kill -9 of a command", f"{done.kills.total()}: {_counted(done.kills)}"],
        ["faults put in force", f"{done.faults.total()}: {_counted(done.faults)}"],
        ["two commands at once", str(done.rivals)],
        ["state folder deleted", str(done.forgotten)],
        ["left alone until its machine had parked", str(done.parked)],
        ["how the runs ended", _counted(done.ends)],
        *([f"**{kind}**", f"**{totals.found[kind]}**"] for kind in COUNTED),
    ]
    return f"{said}\n\n{table(['', ''], rows)}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
