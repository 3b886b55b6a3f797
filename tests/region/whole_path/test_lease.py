"""Who ends the machine when nobody is there: leases, parked machines, graces; an emulated region honours them."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.billing import cost, expiry
from cloudtrain.cleanup import debts
from cloudtrain.console.pages import listing, summary
from cloudtrain.core.disk import sha256
from cloudtrain.core.errors import ConnectionFailed, ExitCode, RunError, UsageError
from cloudtrain.core.events import Event
from cloudtrain.core.spec import Ec2Spec, JobSpec, Limits, RunSpec, Target, TrainSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.lifecycle import machine_end, overdue, planning, stop, story
from cloudtrain.lifecycle import pull as lifecycle_pull
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.launch import acquire
from cloudtrain.provider.ec2.machine import Ec2Machine
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.provider import Ec2Provider
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run, Store
from tests import policy
from tests.lease_end import lease_end
from tests.region.whole_path.place import JOBS, Place

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")

QUICK = Pace(poll=0.3, send=20, backoff=0.05, settle=1.5, visible=8, pending=15, boot=30, auth=10, end=30, group=10)
NAME = "brave-otter"


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass
class Scene:
    """A region, and commands of one computer that come and go."""

    region: Region
    folder: Path
    told: list[Event] = field(default_factory=list)

    @property
    def context(self) -> Context:
        clients = Clients(None, self.region.name, self.region.endpoint_url, self.region.access_key)
        return Context(
            store=Store(self.folder / "registry.sqlite"),
            provider=lambda spec: Ec2Provider(clients, pace=QUICK),
            emit=self.told.append,
        )

    def spec(self, *args: str, spot: bool = False, **limits: Any) -> RunSpec:
        return RunSpec(
            name=NAME,
            target=Target.EC2,
            train=TrainSpec(args=args),
            job=JobSpec(source=str(JOBS / "toy"), module="toy.train"),
            runs_dir=str(self.folder / "runs"),
            limits=Limits(**limits),
            ec2=Ec2Spec(spot=spot),
        )

    def begin(self, *args: str, spot: bool = False, **limits: Any) -> Run:
        spec = self.spec(*args, spot=spot, **limits)
        return planning.begin(planning.plan_run(spec, self.context), self.context)

    def trains(self, *args: str, spot: bool = False, **limits: Any) -> Run:
        """A run that trains, and whose laptop has left."""
        story.resume(self.begin(*args, spot=spot, **limits), self.context, detach=True)
        return self.run

    @property
    def run(self) -> Run:
        return Store(self.folder / "registry.sqlite").get(NAME)

    def pull(self) -> Result:
        return lifecycle_pull.pull_now(self.run, self.context)

    def said(self) -> str:
        return "\n".join(str(event) for event in self.told)

    def instance(self) -> Any:
        """EC2's own record of the one instance."""
        from moto.ec2.models import ec2_backends

        [found] = ec2_backends[self.region.account][self.region.name].all_instances()
        return found

    def state(self) -> str:
        return str(self.instance().state)

    def until(self, *states: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.state() not in states:
            assert time.monotonic() < deadline, f"{self.state()}, not {states}\n{self.said()}"
            time.sleep(0.1)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(acquire, "SHORTEST_LEASE_S", 0.0)
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as region:
        yield Scene(region, tmp_path)
        assert policy.uncovered(region.calls()) == set()


def verified(result: Result) -> None:
    """Files are here, each as the host's manifest says."""
    assert result.artifacts
    for entry in result.artifacts:
        assert sha256(result.folder / entry.here) == entry.sha256 or entry.link


def gone(scene: Scene) -> None:
    assert not any(scene.region.inventory().values()), scene.region.inventory()


def test_a_lease_that_ends_before_training_ends_the_machine(scene: Scene) -> None:
    run = scene.begin(max_time_s=4.0)
    with Session(run, scene.context) as session:
        story.reach(story.acquire(run, session), session)
    scene.until("terminated")
    assert not scene.region.calls("ModifyInstanceAttribute")


def test_a_lease_that_ends_after_training_began_parks_and_pull_fetches_everything(scene: Scene) -> None:
    run = scene.trains("--pause", "0.05", "--lines", "20", "--epochs", "1000", max_time_s=15.0)
    [call] = scene.region.calls("ModifyInstanceAttribute")
    assert call["effect"] and call["parameters"]["InstanceInitiatedShutdownBehavior.Value"] == "stop"
    before, pinned = run.instance, scene.context.store.read_notes(NAME, Ec2Notes).host_key
    scene.until("stopped")
    result = scene.pull()
    verified(result)
    assert (result.state, result.exit_code) == (RunState.STOPPED, ExitCode.LIMIT)
    assert result.error and result.error.code == "limit_reached"
    assert (result.folder / "console.log").stat().st_size > 0
    notes = scene.context.store.read_notes(NAME, Ec2Notes)
    after = scene.run.instance
    assert before and after, (before, after)
    assert (after.address, after.port) != (before.address, before.port), (before, after)
    assert notes.host_key == pinned
    assert result.life is InstanceLife.TERMINATED
    gone(scene)
    data = scene.region.calls("ModifyInstanceAttribute")[1]["parameters"]["UserData.Value"]
    assert data and "PRIVATE" not in base64.b64decode(data).decode()
    assert "parked" in scene.said()


def outlives(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that trains on a machine which should have ended 1 s ago, and does not."""
    monkeypatch.setattr(overdue, "AFTER_S", 0.0)
    monkeypatch.setattr(overdue, "_LOOK_S", 0.1)
    run = scene.trains("--pause", "0.05", "--lines", "20", "--epochs", "1000", max_time_s=600.0)
    assert run.instance is not None
    details = replace(run.instance.details, expires_at=time.time() - 1.0)
    return scene.context.store.note(run, instance=replace(run.instance, details=details))


def test_who_follows_a_machine_that_outlives_its_end_parks_it_through_ec2(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlives(scene, monkeypatch)
    result = scene.pull()
    assert (result.state, result.life) == (RunState.STOPPED, InstanceLife.TERMINATED)
    assert (result.folder / "console.log").stat().st_size > 0
    assert scene.region.calls("StopInstances") and "EC2 was asked to end it, and says at" in scene.said()
    gone(scene)


def test_a_command_that_only_passes_by_parks_it_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    outlives(scene, monkeypatch)
    told: list[Event] = []
    provider = scene.context.provider
    debts.settle(scene.context.store, told.append, provider=provider, limit_s=30.0)
    assert scene.state() == "stopped" and scene.run.life is InstanceLife.PARKED
    assert f"cloudtrain pull {NAME} fetches them" in str(told) and "nothing of it is billed" not in str(told)


def test_a_machine_parks_once_its_job_has_ended_and_nobody_looks(scene: Scene) -> None:
    scene.trains(max_time_s=600.0, grace_s=3.0)
    scene.until("stopped")
    result = scene.pull()
    verified(result)
    assert (result.state, result.exit_code) == (RunState.SUCCEEDED, ExitCode.DONE)
    gone(scene)


def test_a_client_that_looks_now_and_then_keeps_the_machine_on(scene: Scene) -> None:
    run = scene.trains(max_time_s=600.0, grace_s=4.0)
    with Session(run, scene.context) as session:
        for _ in range(8):
            time.sleep(1.0)
            session.supervisor().poll()
    assert scene.state() == "running"
    verified(scene.pull())
    gone(scene)


def test_a_machine_may_be_told_to_end_instead(scene: Scene) -> None:
    scene.trains("--pause", "0.05", "--epochs", "1000", max_time_s=12.0, grace_s=1.0, if_i_vanish="terminate")
    assert not scene.region.calls("ModifyInstanceAttribute")
    scene.until("terminated")


def test_spot_cannot_park_and_its_results_outlive_the_grace(scene: Scene) -> None:
    scene.trains(spot=True, max_time_s=600.0, grace_s=0.5)
    assert not scene.region.calls("ModifyInstanceAttribute")
    time.sleep(3.0)
    assert scene.state() == "running"
    verified(scene.pull())
    gone(scene)


def test_a_command_killed_between_start_and_switch_is_made_good(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(machine: Ec2Machine) -> bool:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ec2Machine, "park_at_end", dies)
        scene.trains("--pause", "0.05", "--epochs", "1000", max_time_s=600.0)
    story.resume(scene.run, scene.context, detach=True)
    assert scene.instance().instance_initiated_shutdown_behavior == "stop"
    story.resume(scene.run, scene.context, detach=True)
    assert len(scene.region.calls("ModifyInstanceAttribute")) == 1
    stop.stop(scene.run, scene.context)
    gone(scene)


def test_a_switch_that_fails_is_said_aloud_and_tried_again(scene: Scene) -> None:
    scene.region.inject("error:UnauthorizedOperation:1@ModifyInstanceAttribute")
    scene.trains("--pause", "0.05", "--epochs", "1000", max_time_s=600.0, grace_s=0.5)
    assert "may delete its disk" in scene.said()
    assert scene.run.state is RunState.RUNNING
    stop.stop(scene.run, scene.context)
    gone(scene)


def test_a_pull_that_is_killed_after_the_start_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry then knows the old address alone."""
    wake = Ec2Machine.wake

    def dies(machine: Ec2Machine) -> Any:
        wake(machine)
        raise Killed

    scene.trains(max_time_s=600.0, grace_s=1.0)
    scene.until("stopped")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ec2Machine, "wake", dies)
        scene.pull()
    assert scene.run.life is InstanceLife.PARKED
    verified(scene.pull())
    gone(scene)


def test_a_parked_machine_that_somebody_ended_is_told_as_such(scene: Scene) -> None:
    scene.trains(max_time_s=600.0, grace_s=1.0)
    scene.until("stopped")
    context = scene.context
    instance = scene.run.instance
    assert instance is not None
    clients = Clients(None, scene.region.name, scene.region.endpoint_url, scene.region.access_key)
    clients.ec2.terminate_instances(InstanceIds=[instance.id])
    scene.until("terminated")
    outcome = lifecycle_pull.pull_now(scene.run, context)
    assert outcome.state is RunState.LOST and "terminated" in str((outcome.error or RunError()).message)


def test_extend_moves_lease_tag_deadline_and_registry(scene: Scene) -> None:
    run = scene.trains("--pause", "0.05", "--epochs", "1000", max_time_s=20.0)
    [machine] = scene.region.core.lives.machines.values()
    before = lease_end(machine.root)
    told = machine_end.extension(run, scene.context, 30.0)
    done = machine_end.extend(run, scene.context, 30.0)
    assert done == told and told.after == told.before + 30.0
    hour = machine_end.extension(run, scene.context, 3600.0).at_most_usd
    assert hour == pytest.approx(run.plan.price_per_hour, rel=0.05)
    after = lease_end(machine.root)
    assert before is not None and after == pytest.approx(before + 30.0, abs=1.0)
    [row] = scene.region.inventory()["instances"]
    assert tags.utc_seconds(row["tags"][tags.EXPIRES_AT]) == pytest.approx(after, abs=1.0)
    # A second one counts from the first.
    assert machine_end.extension(scene.run, scene.context, 10.0).before == told.after
    # The old end passes, for the machine as for the job.
    time.sleep(max(0.0, told.before + 1.5 - time.time()))
    assert scene.state() == "running"
    with Session(scene.run, scene.context) as session:
        assert session.supervisor().poll().state == "running"
    stop.stop(scene.run, scene.context)
    with pytest.raises(UsageError, match="has ended"):
        machine_end.extend(scene.run, scene.context, 30.0)
    gone(scene)


def test_a_parked_run_is_shown_as_such_is_not_extended_and_costs_no_gpu(scene: Scene) -> None:
    scene.trains(max_time_s=600.0, grace_s=1.0)
    scene.until("stopped")
    # Nobody here has seen it yet, so nobody says so.
    later = time.time() + 3600
    assert not expiry.away(scene.run) and expiry.overdue_s(scene.run, later) and not expiry.overdue_s(scene.run, 0.0)
    with pytest.raises(ConnectionFailed, match="parked"):
        machine_end.extend(scene.run, scene.context, 30.0)
    assert scene.state() == "stopped"
    run, daily = scene.run, scene.run.plan.offer.details.parked_per_day
    assert run.life is InstanceLife.PARKED and daily, "EC2 has said so"
    assert (cost.cost(run, later + 86400) or 0.0) - (cost.cost(run, later) or 0.0) == pytest.approx(daily)
    told = "\n".join([*listing.table([run]), *listing.page(run, scene.context.store)])
    assert "parked, $0." in told and "a day" in told and f"cloudtrain pull {NAME}" in told
    with pytest.raises(UsageError, match="is no longer training"):
        machine_end.extension(run, scene.context, 30.0)
    verified(scene.pull())
    parked_s = scene.run.instance.details.parked_s if scene.run.instance else None
    assert parked_s is not None and 0.0 <= parked_s < 60.0  # EC2 tells whole seconds
    gone(scene)


def test_stop_of_a_parked_run_fetches_what_there_is(scene: Scene) -> None:
    scene.trains(max_time_s=600.0, grace_s=1.0)
    scene.until("stopped")
    result = stop.stop(scene.run, scene.context)
    verified(result)
    assert result.state is RunState.SUCCEEDED
    gone(scene)


def test_the_plan_says_what_becomes_of_the_machine(scene: Scene) -> None:
    def plan(spot: bool = False, **limits: Any) -> str:
        shutil.rmtree(scene.folder / "runs", ignore_errors=True)
        run = scene.begin(spot=spot, **limits)
        scene.context.store.forget(run.name)
        return "\n".join(summary.plan_lines(run.plan))

    assert re.search(r"10m 00s after the training, or at the limit, it parks: .*GB disk costs \$0\.\d\d a day", plan())
    assert "at the limit it is terminated" in plan(if_i_vanish="terminate")
    assert "a spot instance cannot park" in plan(spot=True)


def test_extend_and_park_on_a_command_line(scene: Scene, tmp_path: Path) -> None:
    cwd = tmp_path / "here"
    cwd.mkdir()
    place = Place("emulated", ["--instance", "g4dn.xlarge"], tmp_path / "home", cwd, scene.region.environment())
    wanted = ("-d", "--max-time", "10m", "--grace", "3s")
    extended = tmp_path / "extended"
    place.cli(*place.toy(NAME, "--until", str(extended), flags=wanted))
    asked = place.cli("extend", NAME, "2h", code=2)
    assert b"add --yes to accept at most $1." in asked.stderr
    assert b"not a duration" in place.cli("extend", NAME, "soon", code=2).stderr
    done = place.cli("extend", NAME, "2h", "--yes", "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    before, after = (datetime.fromisoformat(told[key]) for key in ("ended_by", "ends_by"))
    assert (after - before).total_seconds() == 7200 and 1.1 < told["at_most_usd"] < 1.3
    assert place.shown(NAME)["ends_by"] == told["ends_by"]
    extended.touch()
    scene.until("stopped")
    said = place.cli("pull", NAME).stderr.decode()
    assert "is parked; starting it" in said
    assert place.shown(NAME)["state"] == "succeeded"
    gone(scene)
    assert b"has ended" in place.cli("extend", NAME, "30m", "--yes", code=2).stderr


def test_a_bad_word_for_what_happens_is_refused(scene: Scene, tmp_path: Path) -> None:
    place = Place("emulated", ["--instance", "g4dn.xlarge"], tmp_path / "home", tmp_path, scene.region.environment())
    told = place.cli(*place.toy(NAME, flags=("--if-i-vanish", "dance")), code=2).stderr
    assert b"--if-i-vanish park or terminate" in told
    assert not scene.region.calls("RunInstances")
