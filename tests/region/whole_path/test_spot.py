"""Spot instances that are taken back, in an emulated region, through the command line."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.notes import RunNotes
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.store import Store
from tests.region.whole_path.place import JOBS, Place
from tests.region.whole_path.test_story import sums_hold

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")

NAME = "brave-otter"
# It stands still in the second of three epochs, until it is asked to end.
STANDS = ("--epochs", "3", "--steps", "40", "--wait-at", "2:5")


def weights(epochs: int, steps: int, seed: int = 1) -> str:
    """What the keeper ends with if nobody disturbs it."""
    state = hashlib.sha256(str(seed).encode()).hexdigest()
    for epoch in range(epochs):
        for step in range(1, steps + 1):
            state = hashlib.sha256(f"{state} {epoch} {step}".encode()).hexdigest()
    return state


def instances_of(region: Region) -> list[Any]:
    """EC2's own record of all instances, the first launch first."""
    from moto.ec2.models import ec2_backends

    return list(ec2_backends[region.account][region.name].all_instances())


@dataclass
class Scene:
    """A region whose spot instances come and go, and a computer."""

    region: Region
    place: Place

    def command(self, *args: str, flags: tuple[str, ...] = ()) -> list[str]:
        """A spot run of the keeper."""
        job = ["--job", str(JOBS / "keeper"), "--name", NAME, "--max-time", "20m", "--yes"]
        return ["run", "--instance", "g4dn.xlarge", "--spot", *job, *flags, "--", *args]

    @property
    def folder(self) -> Path:
        return self.place.folder(NAME)

    @property
    def store(self) -> Store:
        return Store(self.place.home / "state" / "registry.sqlite")

    def notes(self) -> RunNotes:
        return self.store.read_journal(NAME)

    def instances(self) -> list[Any]:
        """EC2's own record, the first launch first."""
        return instances_of(self.region)

    def take_back(self) -> None:
        """The machine goes without any notice."""
        from cloudtrain.emulator.aws.core import SPOT_TERMINATION

        for instance in self.instances():
            self.region.core.lives.terminate(instance, SPOT_TERMINATION)

    def warn(self, lead_s: float) -> None:
        """The machine is told that it goes."""
        for instance in self.instances():
            self.region.core.lives._notice(instance, lead_s, lambda act: act)

    def stands(self, at: str = "epoch 2 step 5") -> None:
        """Until the job has come to where it waits, by the log that is here."""
        log = self.folder / "console.log"
        self.place.wait_for(lambda: log.exists() and f"{at}\n" in log.read_text())

    def launches(self) -> list[dict[str, Any]]:
        """Requests that had an effect."""
        calls = [call for call in self.region.calls("RunInstances") if not call["parameters"].get("DryRun")]
        return [call for call in calls if call["effect"]]

    def trained(self) -> bool:
        """A checkpoint of a whole epoch is here."""
        return (known := self.notes().checkpoint) is not None and known.epoch is not None

    def clean(self, launches: int) -> None:
        """Nothing is left, and so many machines were launched, each for itself."""
        assert not any(self.region.inventory().values()), self.region.inventory()
        made = self.launches()
        assert len(made) == launches
        assert len({call["parameters"]["ClientToken"] for call in made}) == launches
        # No machine is leased beyond the end that the first one had.
        ends = [value for call in made for value in call["parameters"].values() if _is_time(value)]
        assert ends and max(ends) == ends[0]


def _is_time(value: object) -> bool:
    return isinstance(value, str) and value.endswith("Z") and value[4:5] == "-" and "T" in value


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    cwd = tmp_path / "here"
    cwd.mkdir()
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as region:
        place = Place("emulated", [], tmp_path / "home", cwd, region.environment())
        yield Scene(region, place)
        place.cleanup()


def log_of(scene: Scene, attempt: int | None = None) -> str:
    """The log of a machine that is over, or of the last one."""
    return (scene.folder / (f"console.{attempt}.log" if attempt else "console.log")).read_text()


def whole_attempts(folder: Path) -> list[dict[str, Any]]:
    """Every attempt's log and events are kept, and are what the receipt says."""
    receipt = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for attempt in receipt["attempts"]:
        for kind, name in (("log", f"console.{attempt['n']}.log"), ("events", f"events.{attempt['n']}.jsonl")):
            data = (folder / name).read_bytes()
            assert attempt[kind]["bytes"] == len(data)
            assert attempt[kind]["sha256"] == hashlib.sha256(data).hexdigest()
    return list(receipt["attempts"])


def test_a_notice_saves_in_mid_epoch_and_the_run_goes_on_elsewhere(scene: Scene) -> None:
    with scene.place.started(*scene.command("--epochs", "4", "--steps", "60", "--wait-at", "2:7")) as command:
        scene.stands(at="epoch 2 step 7")
        scene.warn(30.0)
        _, told = command.communicate(timeout=180)
    said = told.decode()
    assert command.returncode == 0, said
    assert (scene.folder / "weights.txt").read_text() == weights(4, 60)
    assert "EC2 takes this spot instance back" in said
    assert "another spot instance is launched (1 of at most 3 times)" in said and "as they were" in said
    [over] = whole_attempts(scene.folder)
    assert log_of(scene, 1).endswith("epoch 2 step 7\n") and log_of(scene).startswith("goes on after epoch 1, step 7\n")
    assert (over["exit"]["code"], over["exit"]["stop"], over["log"]["whole"]) == (143, "spot", True)
    first, second = scene.instances()
    assert (over["instance_id"], over["zone"]) == (first.id, first.availability_zone)
    assert second.availability_zone != first.availability_zone, "the zone that has just taken one back was asked first"
    lines = (log_of(scene, 1) + log_of(scene)).splitlines()
    steps = [line for line in lines if not line.startswith("goes on")]
    assert steps == [f"epoch {e} step {s}" for e in range(1, 5) for s in range(1, 61)], "a step is lost or done twice"
    receipt = json.loads((scene.folder / "run.json").read_text())
    assert (
        receipt["status"] == "succeeded"
        and receipt["log"]["sha256"] == hashlib.sha256(log_of(scene).encode()).hexdigest()
    )
    sums_hold(scene.folder)
    assert b"console.1.log" in scene.place.cli("verify", NAME).stdout
    scene.clean(launches=2)


def test_a_machine_that_goes_without_a_word_costs_one_epoch(scene: Scene) -> None:
    with scene.place.started(*scene.command("--deaf", *STANDS)) as command:
        scene.place.wait_for(scene.trained)
        scene.take_back()
        _, told = command.communicate(timeout=180)
    assert command.returncode == 0, told.decode()
    assert (scene.folder / "weights.txt").read_text() == weights(3, 40)
    [over] = whole_attempts(scene.folder)
    assert over["exit"]["code"] is None and over["log"]["whole"] is False and over["log"]["bytes"] > 0
    assert log_of(scene).startswith("goes on after epoch 1, step 0\n")
    sums_hold(scene.folder)
    scene.clean(launches=2)


def test_without_restarts_it_ends_interrupted_and_goes_on_by_hand(scene: Scene) -> None:
    with scene.place.started(*scene.command("--deaf", *STANDS, flags=("--spot-restarts", "0"))) as command:
        scene.place.wait_for(scene.trained)
        scene.take_back()
        _, told = command.communicate(timeout=180)
    assert command.returncode == 7, told.decode()
    assert f"cloudtrain run --resume {NAME}" in told.decode() and "--spot-restarts allows none" in told.decode()
    assert scene.place.shown(NAME)["state"] == "interrupted"
    sums_hold(scene.folder)
    scene.clean(launches=1)
    # Elsewhere, for nothing: on this computer.
    scene.place.cli("run", "--resume", NAME, "--local", "--name", "calm-otter", "--yes")
    folder = scene.place.folder("calm-otter")
    assert (folder / "weights.txt").read_text() == weights(3, 40)
    receipt = json.loads((folder / "run.json").read_text())
    assert receipt["resumed_from"]["name"] == NAME and receipt["resumed_from"]["checkpoint"]["sha256"]
    assert f"from {NAME}" in scene.place.cli("show", "calm-otter").stdout.decode()


@pytest.mark.parametrize(("at", "state"), [("K4:2", "provisioning"), ("K5:4", "booting"), ("K6:3", "syncing")])
def test_a_command_killed_on_the_way_to_the_second_machine_is_taken_up(scene: Scene, at: str, state: str) -> None:
    scene.place.environment = {**scene.place.environment, "CLOUDTRAIN_CRASH_AT": at}
    with scene.place.started(*scene.command("--deaf", *STANDS)) as command:
        scene.place.wait_for(scene.trained)
        scene.take_back()
        command.wait(120)
    assert command.returncode == -signal.SIGKILL
    assert scene.place.shown(NAME)["state"] == state and scene.notes().attempt == 2
    del scene.place.environment["CLOUDTRAIN_CRASH_AT"]
    told = scene.place.cli("logs", NAME).stdout.decode()
    assert (scene.folder / "weights.txt").read_text() == weights(3, 40)
    assert told == log_of(scene, 1) + log_of(scene)
    assert len(whole_attempts(scene.folder)) == 1
    sums_hold(scene.folder)
    scene.clean(launches=2)
