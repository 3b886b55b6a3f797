"""`--dry-run`: from nothing to an instance launched, trained on and ended, in a region that is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.emulator import faults, processes, service
from tests import policy
from tests.region.whole_path.place import Place
from tests.region.whole_path.test_story import log_of, sums_hold

INVENTORY = "inventory: 0 instances, 0 volumes, 0 security groups"
NOTHING = "nothing is billed"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A user's empty home; every region that a test has started there is stopped."""
    cwd = tmp_path / "work"
    cwd.mkdir()
    # A rehearsal must not depend on the user's own settings, however broken.
    own = {"AWS_PROFILE": "that-does-not-exist", "AWS_CONFIG_FILE": str(tmp_path / "nowhere")}
    made = Place("rehearsal", ["--instance", "g4dn.xlarge", "--dry-run"], tmp_path / "home", cwd, own)
    try:
        yield made
    finally:
        pids = [pid for folder in regions(made) if (pid := pid_of(folder))]
        for folder in regions(made):
            service.stop(folder)
        made.cleanup()
        assert not any(processes.alive(pid) for pid in pids)


def regions(place: Place) -> list[Path]:
    return [file.parent for file in place.home.rglob("region.lock")]


def pid_of(folder: Path) -> int | None:
    told = service.living(folder)
    return int(told["pid"]) if told else None


def test_from_nothing_to_an_inventory_of_zero(place: Place) -> None:
    done = place.cli(*place.toy("first-otter"))
    told = done.stderr.decode()
    plan, steps = told.split("step instance", 1)
    assert "Rehearsal: the region is emulated on this computer" in plan and NOTHING in plan
    assert "us-east-1, emulated on this computer" in plan and "account" not in plan
    assert "0.536" in plan and "At most  $1.08 for the real one; this one costs nothing" in plan
    assert NOTHING in steps.splitlines()[0]
    assert "terminated" in steps and INVENTORY in steps
    assert f"cost     {NOTHING}: a rehearsal. The same time on EC2: about $0.0" in steps
    sums_hold(place.folder("first-otter"))
    assert (place.folder("first-otter") / "console.log").read_bytes() == log_of(2, 20)
    listed = place.cli("ls").stdout.decode()
    assert "g4dn.xlarge (rehearsal)" in listed and "not billed" in listed
    shown = place.cli("show").stdout.decode()
    assert "(rehearsal)" in shown and NOTHING in shown
    assert place.shown("first-otter")["rehearsal"] is True and place.shown("first-otter")["cost"] is None
    # What the region itself has to say.
    [folder] = regions(place)
    assert not any(service.inventory(folder).values())
    calls = service.calls(folder)
    assert policy.refused(calls) == set()
    ends = {"ec2:DeleteSecurityGroup", "ec2:ModifyInstanceAttribute", "ec2:TerminateInstances"}
    assert ends <= policy.refused(calls, user="AIDASOMEBODYELSE") <= {*ends, "ec2:AuthorizeSecurityGroupIngress"}
    assert sum(call["effect"] for call in calls if call["action"] == "RunInstances") == 1
    # It serves the next rehearsal, and ends when told.
    pid = pid_of(folder)
    place.cli(*place.toy("second-otter"))
    assert pid is not None and pid_of(folder) == pid
    assert service.stop(folder) and not processes.alive(pid)


def test_killed_in_mid_rehearsal_and_come_back(place: Place) -> None:
    argv = place.toy("left-otter", "--lines", "40", "--pause", "0.05", "--epochs", "3")
    with place.started(*argv) as command:
        log = place.folder("left-otter") / "console.log"
        place.wait_for(lambda: log.exists() and log.stat().st_size > 500)
        command.send_signal(signal.SIGKILL)
        command.wait(30)
    assert place.processes("left-otter"), "the training went down with the command"
    done = place.cli("logs")
    assert done.stdout == log_of(3, 40)
    told = done.stderr.decode()
    assert INVENTORY in told and f"{NOTHING}: a rehearsal" in told
    sums_hold(place.folder("left-otter"))
    [folder] = regions(place)
    assert not any(service.inventory(folder).values())


def test_a_fault_of_capacity_shows_the_next_zone(place: Place) -> None:
    told = place.cli(*place.toy("full-otter", flags=("--fault", "capacity:us-east-1a"))).stderr.decode()
    assert "no g4dn.xlarge in us-east-1a (InsufficientInstanceCapacity), trying the next place" in told
    assert "g4dn.xlarge, us-east-1b" in told and INVENTORY in told


def test_a_fault_that_ends_a_rehearsal_costs_nothing_either(place: Place) -> None:
    done = place.cli(*place.toy("poor-otter", flags=("--fault", "capacity:*", "--json")), code=5)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["error"]["code"] == "no_capacity" and last["billing"]["running"] is False
    assert any(INVENTORY in json.loads(line).get("message", "") for line in done.stdout.splitlines())


def test_an_unknown_fault_lists_those_there_are(place: Place) -> None:
    told = place.cli(*place.toy("odd-otter", flags=("--fault", "earthquake")), code=2).stderr.decode()
    assert "there is no fault 'earthquake'" in told and all(name in told for name in faults.TABLE)
    assert not regions(place), "a region was started for nothing"


def test_the_region_ends_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "region"
    service.ensure(folder, options=["--idle", "5"])
    pid = pid_of(folder)
    assert pid is not None
    deadline = time.monotonic() + 60
    while processes.alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes.alive(pid)
    service.stop(folder)


@pytest.mark.parametrize(
    ("flags", "recipe"),
    [((), "fast"), (("--epochs", "2"), None), (("--recipe", "seed"), "seed"), (("--job", "toy"), None)],
)
def test_a_rehearsal_trains_by_the_short_recipe(
    flags: tuple[str, ...], recipe: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtrain.cli import request
    from cloudtrain.config import settings
    from cloudtrain.store import Store

    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()
    given = dict(zip((flag.removeprefix("--") for flag in flags[::2]), flags[1::2], strict=True))
    if "epochs" in given:
        given["epochs"] = int(given["epochs"])  # type: ignore[assignment]
    for dry_run, expected in ((True, recipe), (False, given.get("recipe"))):
        spec = request.build(
            settings.load({**given, "instance": "g4dn.xlarge"}),
            Store(),
            name=None,
            local=False,
            host=None,
            host_key=None,
            instance_id=None,
            dry_run=dry_run,
            faults=(),
            words=(),
        )
        assert spec.train.recipe == expected


def test_the_users_own_account_is_never_touched(place: Place) -> None:
    """Even with keys and an endpoint of a real account in the environment, everything goes to the region here."""
    place.environment |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "AKIAREAL", "AWS_REGION": "xx"}
    told = place.cli(*place.toy("safe-otter", flags=("--plan",))).stderr.decode()
    assert NOTHING in told and "AKIAREAL" not in told
    [folder] = regions(place)
    assert service.calls(folder)
    assert os.environ.get("AWS_ENDPOINT_URL") != "http://127.0.0.1:9"
