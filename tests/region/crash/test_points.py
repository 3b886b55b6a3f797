"""A command that is killed at any of the crash points: the next one goes on, `clean` ends or explains what is left."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloudtrain.core import crash
from cloudtrain.core.errors import UsageError
from cloudtrain.emulator.region import Region
from tests.region.crash.conftest import Killable, launched
from tests.region.crash.points import CASES, TAKEOVER, Case
from tests.region.whole_path.place import ROOT, left
from tests.region.whole_path.test_story import log_of, sums_hold

# A dozen commands each: seconds on a computer of one's own, minutes on one that is busy with other things.
pytestmark = pytest.mark.timeout(900)

CALL_UNDER_WAY = "slow-api:1500ms@RunInstances:1"


def ended_well(place: Killable, name: str) -> None:
    """The run's story is told to its end, and all that it made is here."""
    folder = place.folder(name)
    assert (folder / "console.log").read_bytes() == log_of(2, 20)
    receipt = json.loads((folder / "run.json").read_text())
    assert receipt["status"] == "succeeded"
    assert receipt["log"]["sha256"] == hashlib.sha256(log_of(2, 20)).hexdigest()
    assert (folder / "weights" / "best with space é.bin").read_bytes() == b"\0" * 300_000
    sums_hold(folder)
    assert not place.processes(name)


def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def crashed(place: Killable, region: Region, case: Case, argv: list[str]) -> None:
    if case.point == "K3":
        # The request has left and its answer is on the way when the command dies.
        region.inject(CALL_UNDER_WAY)
    place.killed(case.name, *argv)


def next_command(place: Killable, case: Case, name: str) -> list[str]:
    if case.command[0] == "run":
        return place.toy(name)
    return [name if word == "RUN" else word for word in case.command]


# Each command is killed at the next point, so that every one has to go on from what the one before it left. K4 is not
# on the way of a command that finds the instance of an earlier one.
CHAINS = (("K0", "K1", "K2", "K3", "K5", "K6", "K7", "K8"), ("K1:2", "K4", "K5:2", "K6:2"))


@pytest.mark.parametrize("chain", CHAINS, ids=["launch-to-end", "second-passages"])
def test_a_run_whose_every_command_is_killed_ends_well(here: Killable, region: Region, chain: tuple[str, ...]) -> None:
    name = f"chain-{CHAINS.index(chain)}"
    command = here.toy(name)
    for case in [by_name(word) for word in chain]:
        crashed(here, region, case, command)
        if case.point not in ("K3", "K8"):  # what these have asked for may happen at any time
            standing = left(region)
            assert len(standing.get("instances", [])) == case.machine, (case.name, standing)
            assert len(standing.get("security_groups", [])) == case.group, (case.name, standing)
        assert launched(region, name) <= 1
        command = next_command(here, case, name)
    here.cli(*command, code=case.exit_code)
    ended_well(here, name)
    assert launched(region, name) == 1
    assert left(region) == {}
    assert not (here.home / "state" / "keys" / name).exists()
    row = here.shown(name)
    assert (row["state"], row["instance"]["life"]) == ("succeeded", "terminated")


# One of each kind that `clean` can tell apart, and every point.
LEFT = tuple(case for case in CASES if case.name not in ("K1", "K5:2"))


def test_clean_ends_or_explains_what_is_left_with_and_without_the_registry(here: Killable, region: Region) -> None:
    names = {case.name: f"left-{case.name.lower().replace(':', '-')}" for case in LEFT}
    # The machine of K8 has been told to end: it is a debt, and not standing for long.
    machines = {names[case.name] for case in LEFT if case.machine and case.point != "K8"}

    def kill(case: Case) -> None:
        crashed(here, region, case, here.toy(names[case.name]))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill, [case for case in LEFT if case.point != "K8"]))
    # Last, since the commands of the others would pay the debt by the way.
    kill(by_name("K8"))
    here.wait_for(lambda: {row["tags"]["cloudtrain:run"] for row in left(region)["instances"]} == machines)
    kept_home = here.home.with_name("kept")
    shutil.copytree(here.home, kept_home)

    # Nothing is known here any more: everything that may hold something stays, with the reason and its end.
    shutil.rmtree(here.home)
    told = here.cli("ls", "--remote").stdout.decode()
    for name in machines:
        (line,) = [line for line in told.splitlines() if line.startswith(f"orphan  {name} ")]
        assert ", ends in " in line
    told = here.cli("clean", "--yes").stdout.decode()
    assert {row["tags"]["cloudtrain:run"] for row in left(region)["instances"]} == machines
    assert {row["tags"]["cloudtrain:run"] for row in left(region)["security_groups"]} == machines
    assert told.count("keep: it may be training; not known here: cloudtrain adopt i-") == len(machines)
    assert told.count(" ends in ") == len(machines)
    groups = [case for case in LEFT if case.group and not case.machine]
    assert groups and all(case.judged == "no instance uses it" for case in groups)
    assert told.count("safe to end: no instance uses it") >= len(groups)
    trained = names["K6"]
    (machine,) = [r["id"] for r in left(region)["instances"] if r["tags"]["cloudtrain:run"] == trained]
    shutil.rmtree(here.folder(trained))
    here.cli("adopt", machine)
    here.cli("logs", trained)
    ended_well(here, trained)

    # With the registry `clean` knows what each of them is.
    shutil.rmtree(here.home)
    shutil.copytree(kept_home, here.home)
    told = here.cli("clean", "--all-regions", "--yes").stdout.decode()
    rows = dict(itertools.pairwise(told.splitlines()))
    for case in LEFT:
        listed = [below for line, below in rows.items() if f" {names[case.name]} " in line and " ends in " in line]
        assert len(listed) == (case.machine and case.name not in ("K6", "K8")), (case.name, told)
        for below in listed:
            assert case.judged in below and below.startswith("  keep" if case.kept else "  safe to end"), told
    (kept,) = [case for case in LEFT if case.kept and case.name != "K6"]
    (alive,) = left(region)["instances"]
    assert alive["tags"]["cloudtrain:run"] == names[kept.name]
    assert f"kept    instance {alive['id']} of {names[kept.name]} in us-east-1: " in told
    here.cli("pull", names[kept.name])
    ended_well(here, names[kept.name])
    assert left(region) == {}
    assert all(launched(region, name) <= 1 for name in names.values())


def test_every_point_is_on_the_way_of_a_launch() -> None:
    placed: list[str] = []
    for path in sorted((ROOT / "cloudtrain").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash.point":
                (name,) = node.args
                assert isinstance(name, ast.Constant) and name.value in crash.POINTS, f"{path}: {ast.unparse(node)}"
                placed.append(str(name.value))
    wanted = [
        f"{name}:{nth}" if nth > 1 else name
        for name, told in crash.POINTS.items()
        for nth in range(1, max(1, len(told.passages)) + 1)
    ]
    assert sorted(placed) == sorted(name.partition(":")[0] for name in wanted)
    assert [case.name for case in (*CASES, *TAKEOVER)] == wanted
    assert sorted(name for chain in CHAINS for name in chain) == sorted(case.name for case in CASES)


def test_a_point_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("K99", "K1:x", "k1"):
        monkeypatch.setenv(crash.VARIABLE, wrong)
        with pytest.raises(UsageError, match="names no crash point"):
            crash.point("K0")
    monkeypatch.setenv(crash.VARIABLE, "K1")
    crash.point("K0")
    monkeypatch.delenv(crash.VARIABLE)
    crash.point("K1")
