"""What is left in the account is found and ended whatever this computer still knows, and debts are paid by the way."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import time
from pathlib import Path

import pytest

from cloudtrain.emulator import service
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.store import Store
from tests import commands
from tests.region.whole_path.place import JOBS, Place, left
from tests.region.whole_path.test_story import log_of, sums_hold


@pytest.fixture
def here(in_account: Place) -> Place:
    return in_account


def train(place: Place, name: str, *args: str) -> None:
    """A run that trains on without anybody watching."""
    place.cli(*place.toy(name, *(args or ("--pause", "0.3", "--epochs", "5000")), flags=("-d",)))


def machine(region: Region) -> str:
    (only,) = region.machines()
    return only


def test_losing_the_whole_state_folder_in_mid_training_loses_no_machine(here: Place, region: Region) -> None:
    train(here, "lost-run")
    shutil.rmtree(here.home)
    told = here.cli("ls", "--remote").stdout.decode()
    assert "no run is known on this computer" in told
    assert re.search(rf"orphan +lost-run +{machine(region)} g4dn.xlarge running", told), told
    assert f"cloudtrain adopt {machine(region)}" in told and "cloudtrain clean" in told
    # Alone it changes nothing, and what may be training is not safe to end.
    for argv in (("clean",), ("clean", "--yes"), ("clean", "--all")):
        told = here.cli(*argv).stdout.decode()
        assert machine(region) in told and "may be training" in told, told
        assert len(left(region)["instances"]) == 1 and not region.calls("TerminateInstances")
    assert "cloudtrain clean --all --yes" in here.cli("clean").stdout.decode().splitlines()[-1]
    told = here.cli("clean", "--all", "--yes").stdout.decode()
    assert "lost with it: what lost-run has trained" in told
    assert "left: 0 instances, 0 volumes, 0 security groups" in told
    assert left(region) == {}
    assert "0 instances, 0 volumes, 0 security groups" in here.cli("clean").stdout.decode()
    assert not here.processes("lost-run")


def test_adopted_a_run_is_followed_pulled_and_ended_as_ever(here: Place, region: Region) -> None:
    """One of a command: what its machine was told to run is known again, too."""
    shutil.copytree(JOBS / "toy", here.cwd / "toy")
    command = ("python", "-m", "toy.train", "--pause", "0.02", "--lines", "30", "--epochs", "12")
    here.cli("run", *here.flags, "--name", "back-run", "--yes", "-d", *command)
    shutil.rmtree(here.home)
    shutil.rmtree(here.cwd / "runs")
    told = here.cli("adopt", machine(region)).stderr.decode()
    assert "cloudtrain logs back-run" in told and "Instance Connect" in told
    row = json.loads(here.cli("show", "back-run", "--json").stdout)
    assert (row["state"], row["instance"]["id"]) == ("running", machine(region))
    job = Store(here.home / "state" / "registry.sqlite").get("back-run").plan.spec.job
    assert (job.command, Path(job.source).name) == (command, "cwd")
    assert "known here" in here.cli("adopt", machine(region), code=2).stderr.decode()
    assert here.cli("logs", "back-run").stdout == log_of(12, 30)
    sums_hold(here.folder("back-run"))
    assert left(region) == {} and here.shown("back-run")["state"] == "succeeded"


def test_a_parked_run_is_adopted_and_pulled_where_its_key_is_still_here(here: Place, region: Region) -> None:
    train(here, "cold-run")
    clients = Clients(None, region.name, region.endpoint_url, region.access_key)
    clients.ec2.stop_instances(InstanceIds=[machine(region)])
    here.wait_for(lambda: region.machines()[machine(region)].state == "stopped")
    for file in (here.home / "state").glob("registry.sqlite*"):
        file.unlink()
    told = here.cli("ls", "--remote").stdout.decode()
    assert "parked" in told and re.search(r"\$\d+\.\d+/day for \d+ GB of disk", told), told
    assert not any(row["safe"] for row in json.loads(here.cli("clean", "--json").stdout)["leftovers"])
    told = here.cli("adopt", machine(region)).stderr.decode()
    assert "cloudtrain pull cold-run" in told
    assert here.shown("cold-run")["instance"]["life"] == "parked"
    # It was powered off in mid-training: what it had is fetched, and the machine ends.
    here.cli("pull", "cold-run", code=None)
    sums_hold(here.folder("cold-run"))
    assert b"epoch 1 line 0" in (here.folder("cold-run") / "console.log").read_bytes()
    assert left(region) == {}


def test_what_cannot_be_adopted_is_told_and_a_torn_registry_hides_nothing(here: Place, region: Region) -> None:
    train(here, "shut-run")
    shutil.rmtree(here.home)
    region.inject("error:AccessDeniedException@SendSSHPublicKey")
    told = here.cli("adopt", machine(region), code=6).stderr.decode()
    assert "nobody here can log in" in told and "Traceback" not in told
    (command,) = re.findall(r"cloudtrain (clean --all --yes i-[0-9a-f]+)", told)
    assert here.cli("ls", "-q").stdout == b""
    (here.home / "state" / "registry.sqlite").write_bytes(b"not a registry" * 100)
    done = here.cli("clean")
    assert machine(region) in done.stdout.decode() and b"going on without it" in done.stderr
    here.cli(*command.split())
    assert left(region) == {}


def test_a_failed_end_is_remembered_shown_and_paid_by_the_next_command(here: Place, region: Region) -> None:
    region.inject("error:UnauthorizedOperation@TerminateInstances")
    told = here.cli(*here.toy("debt-run"), code=None).stderr.decode()
    assert "could not be terminated" in told and "results are safe" in told
    sums_hold(here.folder("debt-run"))
    table = here.cli("ls").stdout.decode()
    assert "instance may still run" in table and "cloudtrain stop debt-run" in table
    # It fails still: said, in time, and the command does its own work all the same.
    done = here.cli("instances", "--gpu", "T4")
    assert "could not be confirmed" in done.stderr.decode() and b"g4dn.xlarge" in done.stdout
    assert len(left(region)["instances"]) == 1
    region.faults.replace([])
    told = here.cli("doctor", code=None).stderr.decode()
    assert f"{machine(region)} of debt-run: ended" in told
    assert left(region) == {} and "may still run" not in here.cli("ls").stdout.decode()
    before = len(region.calls("TerminateInstances"))
    here.cli("instances", "--gpu", "T4")
    assert len(region.calls("TerminateInstances")) == before


def test_a_network_that_is_gone_holds_no_command_up_and_stop_pays_its_debt(here: Place, region: Region) -> None:
    region.inject("error:UnauthorizedOperation@TerminateInstances")
    here.cli(*here.toy("dark-run"), code=None)
    region.faults.replace(["slow-api:25s@TerminateInstances"])
    began = time.monotonic()
    done = here.cli("instances", "--gpu", "T4")
    assert time.monotonic() - began < 24 and "could not be confirmed within 10 s" in done.stderr.decode()
    region.faults.replace([])
    here.cli("stop", "dark-run", "--yes", code=None)
    assert left(region) == {} and here.shown("dark-run")["instance"]["life"] == "terminated"


def test_a_launch_that_was_cut_short_is_safe_to_end(here: Place, region: Region) -> None:
    region.inject("slow-boot:60s")
    with here.started(*here.toy("cut-run")) as command:
        here.wait_for(lambda: bool(region.machines()))
        here.wait_for(lambda: here.shown("cut-run")["state"] == "booting")
        assert b"another command is acting" in here.cli("clean", "--yes").stdout
        assert not region.calls("TerminateInstances")
        command.kill()
        command.wait(30)
    told = here.cli("clean").stdout.decode()
    assert "safe to end: its run never began to train" in told
    assert told.splitlines()[-1].startswith("cloudtrain clean --yes ends")
    told = here.cli("clean", "--yes").stdout.decode()
    assert left(region) == {}, told
    row = here.shown("cut-run")
    assert (row["state"], row["instance"]["life"]) == ("stopped", "terminated")


def test_a_known_runs_region_unasked_every_one_on_request_and_which_refuses(here: Place, region: Region) -> None:
    here.environment = {**here.environment, "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    train(here, "far-run")
    here.environment = region.environment()
    assert "far-run" in here.cli("clean").stdout.decode()
    known = here.home.rename(here.home.with_name("known"))
    assert b"nothing of cloudtrain's in us-east-1" in here.cli("clean").stdout
    found = json.loads(here.cli("clean", "--all-regions", "--json").stdout)
    assert len(found["regions"]) > 10
    assert {(row["region"], row["run"], row["fate"]) for row in found["leftovers"]} == {("eu-west-1", "far-run", None)}
    region.inject("error:UnauthorizedOperation:1@DescribeInstances")
    found = json.loads(here.cli("clean", "--all-regions", "--json", code=None).stdout)
    assert len(found["refused"]) == 1
    assert "far-run" in here.cli("clean", "--region", "eu-west-1").stdout.decode()
    shutil.rmtree(here.home)
    known.rename(here.home)
    here.cli("clean", "--all", "--yes")
    assert left(region) == {} and here.shown("far-run")["instance"]["life"] == "terminated"


def test_on_a_terminal_it_asks(here: Place, region: Region) -> None:
    train(here, "asked-run")
    for answer, ended in ((b"n\n", False), (b"\n", False), (b"y\n", True)):
        parent, child = pty.openpty()
        command = commands.start("clean", "--all", cwd=here.cwd, env=here.env(), stdin=child, stderr=child)
        os.close(child)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(parent, 4096)
        assert b"lose the results of asked-run?" in seen
        os.write(parent, answer)
        drain(parent)
        command.communicate(timeout=60)
        os.close(parent)
        assert command.returncode == 0 and (left(region) == {}) == ended


def drain(terminal: int) -> None:
    """Read until the other side is gone, so that it never waits to be read."""
    while True:
        try:
            if not os.read(terminal, 4096):
                return
        except OSError:
            return


def test_only_what_is_named_is_ended_and_what_cannot_be_leaves_exit_code_6(here: Place, region: Region) -> None:
    train(here, "one-run")
    train(here, "two-run")
    found = json.loads(here.cli("clean", "--json").stdout)["leftovers"]
    ids = {row["run"]: row["id"] for row in found if row["kind"] == "instance"}
    assert b"is called i-0123" in here.cli("clean", "i-0123", code=2).stderr
    here.cli("clean", ids["one-run"], "--all", "--yes")
    assert [row["id"] for row in left(region)["instances"]] == [ids["two-run"]]
    region.inject("error:UnauthorizedOperation@TerminateInstances")
    done = here.cli("clean", "--all", "--yes", "--json", code=6)
    found = json.loads(done.stdout)
    fates = {row["kind"]: row["fate"] for row in found["leftovers"]}
    assert fates["instance"] == "failed" and not found["ok"] and found["billing"]["running"]
    told = here.cli("clean", "--all", "--yes", code=6).stdout.decode()
    assert f"may still be billed: {ids['two-run']}" in told
    region.faults.replace([])
    here.cli("clean", "--all", "--yes")
    assert left(region) == {} and here.shown("two-run")["state"] == "stopped"


def test_the_rehearsals_region_is_cleaned_alike(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    place = Place("rehearsal", ["--dry-run"], tmp_path / "home", tmp_path / "cwd")
    assert b"no rehearsal is active" in place.cli("clean", "--rehearsal").stdout
    try:
        train(place, "play-run")
        told = place.cli("clean", "--rehearsal").stdout.decode()
        assert "play-run" in told and "cloudtrain clean --rehearsal --all --yes" in told
        looked = place.cli("clean", "--rehearsal", "--all", "--yes", "--dry-run").stdout.decode()
        assert "would end" in looked and "lost with it" in looked and "nothing was changed" in looked
        assert "left: 0 instances" in place.cli("clean", "--rehearsal", "--all", "--yes").stdout.decode()
        assert place.shown("play-run")["instance"]["life"] == "terminated"
    finally:
        for folder in (place.home / "state" / "rehearsal").glob("*"):
            service.stop(folder)
        place.cleanup()


def test_clean_needs_no_more_calls_than_it_must(here: Place, region: Region) -> None:
    here.cli("clean")
    assert sorted(call["action"] for call in region.calls()) == [
        "DescribeInstances",
        "DescribeSecurityGroups",
        "DescribeVolumes",
        "GetCallerIdentity",  # whose things these are
    ]
