"""What must hold when a run of the soak is over, whatever was done to it."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# What is counted, and must be 0.
LEAKED = "instances leaked"
BYTES = "log bytes lost"
RESULTS = "results lost"
LAUNCHES = "launches too many"
STARTS = "trainings started twice"
TRACEBACKS = "tracebacks"
CODES = "undocumented exit codes"
HUNG = "commands that hung"
STUCK = "runs that did not end"
FALSE = "false sentences about money"
COSTS = "costs that are not what EC2 had up"
COUNTED = (LEAKED, BYTES, RESULTS, LAUNCHES, STARTS, TRACEBACKS, CODES, HUNG, STUCK, FALSE, COSTS)

# A machine may be so many seconds late in ending itself: `provider/ec2/end/cleaning.py` has the same figure.
OVERDUE_S = 600.0
_TRACES = re.compile(rb"Traceback \(most recent call last\)|something unexpected happened")


@dataclass(frozen=True)
class Breach:
    """One thing that does not hold: what it counts as, how much of it, and what was seen."""

    kind: str
    count: int
    told: str


@dataclass
class Evidence:
    """What is known of a run when its story is over.

    Attributes:
        log, files: what the job writes if it comes to its end.
        finished: the job itself came to its end. `starts`: how often it was started.
        destroyed: what took the machine away from outside, or None.
        row: state, `ending` and pulled files of the registry; None: it knows no such run.
        folder: of the run's results here.
        calls: every API call of the account that named the run.
    """

    name: str
    log: bytes
    files: Mapping[str, bytes]
    folder: Path
    finished: bool = False
    starts: int = 0
    destroyed: str | None = None
    row: Mapping[str, Any] | None = None
    calls: Sequence[Mapping[str, Any]] = ()
    extra_launches: int = 0
    breaches: list[Breach] = field(default_factory=list)


def judge(seen: Evidence) -> list[Breach]:
    """Everything that does not hold."""
    return [*seen.breaches, *_log(seen), *_results(seen), *_launches(seen), *_starts(seen)]


def screen(
    argv: Sequence[str], code: int, said: bytes, *, killed: bool, documented: frozenset[int]
) -> Iterator[Breach]:
    """What one command may not do: show a traceback, or end with a code that is not documented."""
    if _TRACES.search(said):
        yield Breach(TRACEBACKS, 1, f"{' '.join(argv)}: {said[-300:].decode(errors='replace')}")
    if code not in documented and not (killed and code < 0):
        yield Breach(CODES, 1, f"{' '.join(argv)} ended with {code}")


def unseen(instances: Sequence[Mapping[str, Any]], now: float) -> Iterator[Breach]:
    """Living instances that nobody would find or that would not end by themselves."""
    for one in instances:
        marks = one["tags"]
        told = marks.get("cloudtrain:expires-at", "")
        try:
            ends = datetime.strptime(told, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            ends = 0.0
        if not marks.get("cloudtrain:managed") or not marks.get("cloudtrain:token") or ends + OVERDUE_S < now:
            yield Breach(LEAKED, 1, f"{one['id']} is {one['state']} and has no mark or no end: {marks}")
    for name, count in Counter(one["tags"].get("cloudtrain:run") for one in instances).items():
        if count > 1:
            yield Breach(LAUNCHES, count - 1, f"{count} instances of {name} at once")


def explained(instances: Sequence[Mapping[str, Any]], told: str) -> Iterator[Breach]:
    """What `clean --yes` left must be on its screen with the reason, and with its end or as parked."""
    lines = told.splitlines()
    for one in instances:
        found = [(line, below) for line, below in itertools.pairwise(lines) if f" {one['id']} " in line]
        if not any(
            below.startswith("  keep: ") and (" ends in " in line or " over for " in line or " parked " in line)
            for line, below in found
        ):
            yield Breach(LEAKED, 1, f"{one['id']} is left and `clean` does not say why and until when:\n{told}")


# What is billed by the hour, and what a screen may not say while there is such a machine.
_UP = ("pending", "running")
_FREE = re.compile(
    r"nothing (?:of it )?is billed|not billed any more|nothing was created|no longer billed|nothing to end"
    r"|ended, nothing|\bi-[0-9a-f]+ (?:is )?terminated"
)
LEAST_S = 60.0


def untrue(said: str, argv: Sequence[str], up: Sequence[str]) -> Iterator[Breach]:
    """Sentences that are false while the instances `up` of the run are up."""
    for found in _FREE.finditer(said) if up else ():
        named = re.search(r"\bi-[0-9a-f]+", found[0])
        if named is None or named[0] in up:
            around = said[max(0, found.start() - 200) : found.end() + 100]
            yield Breach(FALSE, 1, f"{' '.join(argv)} says {found[0]!r} while {', '.join(up)} is up: {around}")


def up_s(history: Sequence[tuple[str, float]], now: float) -> float:
    """Seconds for which EC2 bills an instance: each stretch from `pending` on, for a minute at least."""
    total, since = 0.0, None
    for state, at in [*history, ("now", now)]:
        if since is not None and state not in _UP:
            total, since = total + max(LEAST_S, at - since), None
        elif since is None and state in _UP:
            since = at
    return total


def cost_off(told_usd: float | None, price: float, seconds: float) -> Iterator[Breach]:
    """A cost that is more than a cent and 2 % off."""
    usd = price * seconds / 3600
    if told_usd is not None and abs(told_usd - usd) > max(0.01, 0.02 * usd):
        yield Breach(COSTS, 1, f"${told_usd:.4f} is told where {seconds:.0f} s cost ${usd:.4f}")


def _log(seen: Evidence) -> Iterator[Breach]:
    path = seen.folder / "console.log"
    here = path.read_bytes() if path.exists() else b""
    record = (seen.row or {}).get("ending") or {}
    if record.get("log_sha256") and hashlib.sha256(here).hexdigest() != record["log_sha256"]:
        lost = max(1, int(record.get("log_bytes") or 0) - len(here))
        yield Breach(BYTES, lost, f"{len(here)} bytes here, the host had {record.get('log_bytes')}")
    for file in (path, *sorted(seen.folder.glob("console.*.log"))):
        # Beside the log are those of the machines before, where a spot run has gone on.
        part = file.read_bytes() if file.exists() else b""
        if not seen.log.startswith(part) and not (file == path and record.get("log_sha256")):
            yield Breach(BYTES, 1, f"the {len(part)} bytes of {file.name} are not the beginning of what the job writes")
    if seen.finished and record.get("state") == "exited" and here != seen.log:
        yield Breach(BYTES, max(1, len(seen.log) - len(here)), f"{len(here)} bytes here, the job wrote {len(seen.log)}")


def _results(seen: Evidence) -> Iterator[Breach]:
    if not seen.finished or seen.destroyed:
        return
    for name, data in seen.files.items():
        path = seen.folder / name
        if not path.exists() or path.read_bytes() != data:
            what = "is not here" if not path.exists() else "is not what the job wrote"
            yield Breach(RESULTS, 1, f"the job had finished, and {name} {what}; row: {seen.row}")
            return


def _launches(seen: Evidence) -> Iterator[Breach]:
    """One effect a token, and one a launch attempt, less the places whose instance died before it ran."""
    made = [call["parameters"] for call in seen.calls if call["action"] == "RunInstances" and call["effect"]]
    for token, count in Counter(str(told.get("ClientToken")) for told in made).items():
        if count > 1:
            yield Breach(LAUNCHES, count - 1, f"{count} launches with the token {token}")
    attempts = Counter(_tag(told, "cloudtrain:token") for told in made)
    for seed, count in attempts.items():
        if count > 1 + seen.extra_launches:
            yield Breach(LAUNCHES, count - 1, f"attempt {seed} launched {count} instances")


def _tag(told: Mapping[str, Any], key: str) -> str:
    """A tag of a launch request: its parameters come flat, `TagSpecification.1.Tag.2.Key`."""
    places = [name for name, value in told.items() if value == key and name.endswith(".Key")]
    return str(told.get(f"{places[0].removesuffix('.Key')}.Value")) if places else "no token"


def _starts(seen: Evidence) -> Iterator[Breach]:
    machines = 1 + len(list(seen.folder.glob("console.*.log")))
    if seen.starts > machines:
        yield Breach(STARTS, seen.starts - machines, f"the job was started {seen.starts} times on {machines} machines")
