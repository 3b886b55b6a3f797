"""One run of the soak: started, disturbed, killed and gone on with, then taken to its end and judged."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.region.soak import job
from tests.region.soak.job import files_of, log_of
from tests.region.soak.judge import (
    HUNG,
    LEAKED,
    STUCK,
    Breach,
    Evidence,
    cost_off,
    explained,
    judge,
    screen,
    unseen,
    untrue,
    up_s,
)
from tests.region.soak.troubles import POINTS, TROUBLES

ROOT = Path(__file__).resolve().parents[3]

# No command of a run of seconds may take longer, whatever is done to it.
LIMIT_S = 240.0
MOST_COMMANDS = 5
# From the first command's end on: what is left of the training, the grace, and the stop.
AWAY_S = 20.0


FINAL = ("succeeded", "failed", "stopped", "interrupted", "lost")


@dataclass
class Account:
    """The emulated account of one worker: what it can be asked and told.

    Attributes:
        environment: points the command line at it.
        ask: reads a page of the region, or posts to it.
    """

    environment: dict[str, str]
    ask: Callable[..., Any]

    def faults(self, texts: Sequence[str]) -> None:
        """Put these in force and no others."""
        self.ask("faults", {"faults": list(texts)})

    def instances(self) -> list[dict[str, Any]]:
        """Those that live."""
        return list(self.ask("inventory")["instances"])

    def left(self) -> dict[str, Any]:
        """Everything that exists, by kind."""
        return {kind: rows for kind, rows in self.ask("inventory").items() if rows}


@dataclass
class Tally:
    """What was done, for the totals."""

    commands: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    rivals: int = 0
    forgotten: int = 0
    parked: int = 0


class Trial:
    """One run; the same seed and number make the same choices, as far as the clock lets them.

    Args:
        folder: its own, empty: state, results and transcript go there.
        typical: seconds that commands take here, by verb; kept up to date.
    """

    def __init__(self, seed: int, number: int, folder: Path, account: Account, typical: dict[str, float]) -> None:
        from cloudtrain.core.errors import ExitCode

        self.tally = Tally()
        self._typical = typical
        self._documented = frozenset(int(code) for code in ExitCode) - {int(ExitCode.UNEXPECTED)}
        self._random = random.Random(f"{seed}/{number}")
        self._folder = folder
        self._account = account
        self._name = f"soak-{number}"
        self._home, self._cwd, self._ledger = folder / "home", folder / "cwd", folder / "ledger"
        self._cwd.mkdir(parents=True)
        # A machine that never answers must not cost the soak ten minutes.
        (self._cwd / "cloudtrain.toml").write_text('boot_limit = "40s"\n')
        self._rounds, self._lines = self._random.randint(1, 4), self._random.randint(5, 60)
        self._seen = Evidence(
            self._name,
            log_of(self._name, self._rounds, self._lines),
            files_of(self._name, self._rounds),
            self._cwd / "runs" / self._name,
        )
        self._spot = self._random.random() < 0.12
        # Somebody starts it, leaves, and looks when its machine has stopped by itself.
        self._leaves = not self._spot and self._random.random() < 0.2
        self._began = time.monotonic()

    def play(self) -> list[Breach]:
        """From the first command to the verdict: what does not hold."""
        self._trouble()
        self._command(self._first(), rival=self._random.random() < 0.2)
        if self._leaves:
            self._away()
        for _ in range(self._random.randint(0, MOST_COMMANDS - 1)):
            self._look()
            if self._random.random() < 0.06:
                self._forget()
            if self._random.random() < 0.4:
                self._trouble()
            argv = self._next()
            if argv is None:
                break
            self._command(argv, rival=self._random.random() < 0.1)
        self._account.faults([])
        self._tell("faults dropped")
        self._settle()
        self._clean()
        return self._verdict()

    # What is done to it

    def _trouble(self) -> None:
        """Other faults than so far: none to three."""
        count = self._random.choices((0, 1, 2, 3), (3, 5, 3, 1))[0]
        fitting = [one for one in TROUBLES if self._spot or not one.spot]
        chosen = self._random.choices(fitting, [one.weight for one in fitting], k=count)
        texts = list(dict.fromkeys(one.text for one in chosen))
        self._account.faults(texts)
        self._tell(f"faults: {', '.join(texts) or 'none'}")
        for one in chosen:
            self.tally.faults[one.text.partition(":")[0].partition("@")[0]] += 1
            self._seen.extra_launches += one.launches
            if one.destroys:
                self._seen.destroyed = one.text

    def _forget(self) -> None:
        """The whole state folder is gone, as after a reinstallation."""
        shutil.rmtree(self._home, ignore_errors=True)
        self.tally.forgotten += 1
        self._tell("state folder deleted")

    def _away(self) -> None:
        """Nobody does anything until the machine has parked, or is seen not to."""
        limit = time.monotonic() + AWAY_S
        while time.monotonic() < limit and (states := {one["state"] for one in self._account.instances()}):
            if states == {"stopped"}:
                self.tally.parked += 1
                self._tell("parked")
                return
            time.sleep(0.2)

    def _kill(self, verb: str) -> str | float | None:
        """None: let it live; a number: seconds after its start; else a crash point."""
        match self._random.choices(("none", "moment", "point"), (3, 3, 5))[0]:
            case "moment":
                # In parts of what such a command takes on this computer as busy as it is now.
                return self._random.uniform(0.05, 1.2) * self._typical.get(verb, 4.0)
            case "point":
                row = self._row()
                return self._random.choice(POINTS.get(row["state"] if row else None, ("K8",)))
        return None

    # Commands

    def _first(self) -> list[str]:
        source = self._folder / "toil"
        if not source.exists():
            source.mkdir()
            shutil.copyfile(job.__file__, source / "train.py")
        pause = self._random.choice((0.0, 0.005, 0.02, 0.05))
        argv = [
            "run",
            "--instance",
            "g4dn.xlarge",
            "--job",
            str(source),
            "--name",
            self._name,
            "--yes",
            "--max-time",
            "1h",
        ]
        argv += ["--spot"] if self._spot else []
        argv += ["-d", "--grace", "1s"] if self._leaves else ["-d"] if self._random.random() < 0.25 else []
        argv += ["--if-i-vanish", "terminate"] if self._random.random() < 0.1 else []
        argv += ["--json"] if self._random.random() < 0.2 else []
        argv += ["--", "--ledger", str(self._ledger), "--mark", self._name, "--rounds", str(self._rounds)]
        argv += ["--lines", str(self._lines), "--pause", str(pause)]
        return [*argv, "--code", "1"] if self._random.random() < 0.1 else argv

    def _next(self) -> list[str] | None:
        """What somebody would type now; None: nothing more."""
        name, row = self._name, self._row()
        if row is None:
            lost = [one["id"] for one in self._account.instances()]
            if lost:
                return self._random.choice([["ls", "--remote"], ["adopt", lost[0]], ["adopt", lost[0]]])
            return self._first() if not self._seen.folder.exists() else ["clean", "--yes"]
        if row["state"] in FINAL:
            return self._random.choice([["clean", "--yes"], ["pull", name], ["instances", "--gpu", "T4"], None])
        choices = {
            ("logs", name): 8,
            ("pull", name): 4,
            ("stop", name, "--yes"): 2,
            ("clean", "--yes"): 2,
            ("extend", name, "10m", "--yes"): 1,
            ("verify", name): 1,
        }
        if self._random.random() < 0.1:
            return self._first()
        return list(self._random.choices(list(choices), list(choices.values()))[0])

    def _command(self, argv: Sequence[str], *, rival: bool = False, calm: bool = False) -> tuple[int, str]:
        """Run a command, killed or not, perhaps beside another one; exit code and screen."""
        kill = None if calm else self._kill(argv[0])
        process, screenfile = self._start(argv, kill)
        other = None
        if rival:
            self.tally.rivals += 1
            time.sleep(self._random.uniform(0.5, 3.0))
            other = self._start(self._next() or ["ls"], None)
        result = self._ended(argv, process, screenfile, kill)
        if other is not None:
            self._ended(["(beside it)"], *other, None)
        return result

    def _start(self, argv: Sequence[str], kill: str | float | None) -> tuple[subprocess.Popen[bytes], Path]:
        self.tally.commands += 1
        path = self._folder / f"screen-{self.tally.commands}.txt"
        own = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CLOUDTRAIN_"))}
        environment = {
            **own,
            **self._account.environment,
            "CLOUDTRAIN_HOME": str(self._home),
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            **({"CLOUDTRAIN_CRASH_AT": kill} if isinstance(kill, str) else {}),
        }
        # Into a file and not a pipe: it must outlive the command, and nobody needs to read beside it.
        with path.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "cloudtrain", *argv],
                cwd=self._cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._tell(f"{path.name}: {' '.join(argv)}{f'  [kill: {kill}]' if kill else ''}")
        return process, path

    def _ended(
        self, argv: Sequence[str], process: subprocess.Popen[bytes], path: Path, kill: str | float | None
    ) -> tuple[int, str]:
        began, at_moment = time.monotonic(), isinstance(kill, float)
        try:
            code = process.wait(kill if isinstance(kill, float) else LIMIT_S)
        except subprocess.TimeoutExpired:
            if not at_moment:
                self._breach(HUNG, f"{' '.join(argv)} took more than {LIMIT_S:.0f} s")
            process.kill()
            code = process.wait(30)
            if at_moment:
                self.tally.kills["a random moment"] += 1
        if isinstance(kill, str) and code < 0:
            self.tally.kills[kill] += 1
        seconds = time.monotonic() - began
        if code >= 0:
            self._typical[argv[0]] = 0.7 * self._typical.get(argv[0], seconds) + 0.3 * seconds
        said = path.read_bytes()
        killed = kill is not None or bool(self._seen.breaches)
        self._seen.breaches += screen(argv, code, said, killed=killed, documented=self._documented)
        if not killed:
            self._seen.breaches += untrue(said.decode(errors="replace"), argv, self._up())
        self._tell(f"  {path.name} ended with {code} after {seconds:.1f} s")
        return code, said.decode(errors="replace")

    # To the end

    def _settle(self) -> None:
        """Nobody disturbs any more: the natural commands take the run to its end."""
        for attempt in range(4):
            row = self._row()
            if row is None:
                lost = [one["id"] for one in self._account.instances()]
                if not lost:
                    return
                if self._command(["adopt", lost[0]], calm=True)[0] != 0 and attempt:
                    return
            elif row["state"] in FINAL:
                return
            else:
                last = ["stop", self._name, "--yes"]
                self._command((["logs", self._name], ["pull", self._name], last, last)[attempt], calm=True)
        if (row := self._row()) is not None and row["state"] not in FINAL:
            self._breach(STUCK, f"the run is still {row['state']}")

    def _clean(self) -> None:
        """What is left goes, or is explained; a launch that was under way when its command died may yet show up."""
        time.sleep(1.0 if self.tally.kills["K3"] else 0.0)
        code, told = self._command(["clean", "--yes"], calm=True)
        self._look()
        standing = self._account.instances()
        self._seen.breaches += explained(standing, told)
        row = self._row()
        if row is not None and standing and row["state"] in FINAL:
            # A run that is over, whose machine is kept: what it holds must be there to be had.
            self._command(["pull", self._name], calm=True)
        if self._account.left():
            code, told = self._command(["clean", "--all", "--yes"], calm=True)
        if left := self._account.left():
            self._breach(LEAKED, f"after `clean --all --yes` (exit {code}): {left}\n{told}")

    def _verdict(self) -> list[Breach]:
        words = self._ledger.read_text().split() if self._ledger.exists() else []
        self._seen.starts, self._seen.finished = words.count("start"), "done" in words
        self._seen.row = self._row()
        calls = self._account.ask("calls")
        self._seen.calls = [call for call in calls if f"'{self._name}'" in str(call["parameters"])]
        how = self._seen.row["state"] if self._seen.row else "never begun, or forgotten"
        self.tally.ends[how] += 1
        self._seen.breaches += self._cost()
        found = judge(self._seen)
        self._tell(f"{how} after {time.monotonic() - self._began:.1f} s; job: {words}")
        for breach in found:
            self._tell(f"BROKEN {breach.kind}: {breach.told}")
        if found:
            (self._folder / "calls.json").write_text(json.dumps(self._seen.calls, indent=1, default=str))
        return found

    # What is known

    def _run(self) -> Any:
        """The run as the registry has it, read beside the commands; None: it knows none."""
        from cloudtrain.core.errors import CloudtrainError
        from cloudtrain.store import Store

        path = self._home / "state" / "registry.sqlite"
        try:
            return Store(path).get(self._name) if path.exists() else None
        except CloudtrainError:
            return None

    def _row(self) -> dict[str, Any] | None:
        from cloudtrain.core.decode import brief

        run = self._run()
        if run is None:
            return None
        told = {"ending": run.ending and brief(run.ending), "error": run.error and brief(run.error)}
        return {"state": run.state.value, "life": run.life.value, **told}

    def _look(self) -> None:
        self._seen.breaches += unseen(self._account.instances(), time.time())

    def _up(self) -> list[str]:
        """Ids of this run's instances that are billed by the hour now."""
        mine = [one for one in self._account.instances() if one["tags"].get("cloudtrain:run") == self._name]
        return [one["id"] for one in mine if one["state"] in ("pending", "running")]

    def _cost(self) -> list[Breach]:
        """What is told of the run's cost at its end, against what EC2 had up; a registry that was lost knows less, and
        spot machines have a price each."""
        from cloudtrain.billing.cost import cost

        run = self._run()
        if run is None or run.instance is None or self.tally.forgotten or self._spot:
            return []
        told = [one for one in self._account.ask("histories") if one["tags"].get("cloudtrain:run") == self._name]
        now = time.time()
        seconds = sum(up_s(one["states"], now) for one in told)
        return list(cost_off(cost(run, now), run.instance.price_per_hour or 0.0, seconds))

    def _breach(self, kind: str, told: str) -> None:
        self._seen.breaches.append(Breach(kind, 1, told))

    def _tell(self, line: str) -> None:
        with (self._folder / "transcript.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.monotonic() - self._began:7.2f}  {line}\n")
