"""`ls` asks the machines and the account, and changes nothing there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from tests import commands
from tests.region.whole_path.place import Place, left


@pytest.fixture
def here(in_account: Place) -> Place:
    return in_account


def refreshed(place: Place) -> tuple[dict[str, Any], list[Any]]:
    told = json.loads(place.cli("ls", "--refresh", "--json").stdout)
    return told["runs"][0], told["unanswered"]


def test_a_run_that_was_left_is_listed_as_its_machine_says(here: Place, region: Region) -> None:
    here.cli(*here.toy("left-run", "--pause", "0.2", "--epochs", "5000", flags=("-d",)))
    [machine] = region.machines()
    before = here.shown("left-run")
    assert before["epoch"] is None and before["as_of"] is not None
    run, unanswered = refreshed(here)
    assert run["epoch"] >= 1 and run["as_of"] >= before["as_of"] and unanswered == []
    assert not (here.folder("left-run") / "events.jsonl").exists()

    said = here.home / "said"
    with said.open("wb") as out:
        watched = commands.start("ls", "--watch", cwd=here.cwd, env=here.env(), stdout=out, stderr=subprocess.DEVNULL)
        here.wait_for(lambda: b"so far" in said.read_bytes(), 20)
        watched.send_signal(signal.SIGINT)
        assert watched.wait(10) == 0, "somebody leaves, nothing has failed"
    _, row, last = said.read_bytes().splitlines()
    assert b"training" in row and re.match(rb"1 machine runs: \$0\.5\d an hour, \$0\.\d+ so far", last), last

    narrowed = here.cli("ls", "--remote", "--model", "1").stdout.decode()
    assert narrowed.startswith("no runs match") and machine in narrowed, "what is billed is never left out"
    assert here.cli("ls", "--remote", "-q", "--status", "living").stdout == b"left-run\n"

    Clients(None, region.name, region.endpoint_url, region.access_key).ec2.stop_instances(InstanceIds=[machine])
    here.wait_for(lambda: region.machines()[machine].state == "stopped")
    run, unanswered = refreshed(here)
    assert run["instance"]["life"] == "parked" and run["status"].startswith("parked") and unanswered == []
    assert not region.calls("TerminateInstances") and not region.calls("StartInstances")
    assert len(left(region)["instances"]) == 1 and run["state"] == "running"
