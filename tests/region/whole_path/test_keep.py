"""`--keep`: a machine that stays up once the results are here, ends itself with nobody there, and is seen meanwhile;
and an end without a pull, or with less than all results. Money first: nothing here may leave a machine that nobody has
been told of."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.billing import expiry, running
from cloudtrain.cleanup import debts, leftovers
from cloudtrain.console.pages import listing, summary
from cloudtrain.core.errors import ConnectionFailed, LimitReached, UsageError
from cloudtrain.core.spec import Ec2Spec, JobSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.lifecycle import machine_end as hold
from cloudtrain.lifecycle import openssh, planning, pull, stop, story
from cloudtrain.lifecycle.session import Session
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end import cleaning
from cloudtrain.provider.ec2.launch import acquire
from cloudtrain.provider.ec2.machine import Ec2Machine
from cloudtrain.run_folder import verify
from cloudtrain.store import Run
from tests import policy
from tests.lease_end import lease_end
from tests.region.whole_path.test_lease import NAME, Killed, Scene, gone, verified

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")

LONG = ("--pause", "0.05", "--lines", "20", "--epochs", "1000")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(acquire, "SHORTEST_LEASE_S", 0.0)
    monkeypatch.setattr(hold, "LEAST_S", 1.0)
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as region:
        yield Scene(region, tmp_path)
        assert policy.uncovered(region.calls()) == set()


def promised_end(scene: Scene) -> float:
    [machine] = scene.region.core.lives.machines.values()
    end = lease_end(machine.root)
    assert end is not None
    return end


def clients(scene: Scene) -> Clients:
    return Clients(None, scene.region.name, scene.region.endpoint_url, scene.region.access_key)


def unfetched(scene: Scene) -> list[str]:
    """Names of what a run that trains has finished and is not here; waits until there is something."""
    deadline = time.monotonic() + 30
    while not (found := [entry.name for entry in pull.missing(scene.run, scene.context)]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def settle(scene: Scene) -> None:
    context = scene.context
    debts.settle(context.store, context.emit, provider=context.provider)


def test_a_kept_machine_is_seen_all_the_while_and_ends_itself_with_nobody_there(scene: Scene) -> None:
    # The grace alone would have ended it long before.
    run = scene.begin(max_time_s=600.0, grace_s=1.0, keep_s=12.0)
    result = story.resume(run, scene.context)
    verified(result)
    now = time.time()
    run = scene.run
    at = expiry.kept_until(run)
    assert at is not None and now < at <= now + 12.0
    assert (result.state, run.life) == (RunState.SUCCEEDED, InstanceLife.RUNNING)
    assert promised_end(scene) == at
    [row] = scene.region.inventory()["instances"]
    assert tags.utc_seconds(row["tags"][tags.EXPIRES_AT]) == at
    assert scene.instance().instance_initiated_shutdown_behavior == "terminate"
    # Every screen says that it is billed, and until when.
    clock = time.strftime("%H:%M", time.localtime(at))
    assert result.leftovers and f"kept until {clock}" in result.leftovers[0] and "an hour" in result.leftovers[0]
    told = "\n".join([*listing.table([run]), *listing.page(run, scene.context.store)])
    assert f"kept until {clock}" in told and f"cloudtrain stop {NAME}" in told and f"cloudtrain ssh {NAME}" in told
    assert "may still run" not in told
    told_now = running.of([(run, scene.context.store.read_journal(NAME))], now)
    assert told_now["running"] is True and told_now["ends_by"] is not None
    assert listing.record(run)["kept_until"] == told_now["ends_by"]
    # No other command ends it by the way, and `clean` does not think it safe to.
    settle(scene)
    [found] = [
        one
        for one in cleaning.find(clients(scene), leftovers.known_runs(scene.context.store), now)
        if one.item.kind == "instance"
    ]
    assert not found.safe and f"kept until {clock}" in found.why and found.loss and found.usd_per_hour
    time.sleep(3.0)
    assert scene.state() == "running"
    scene.until("terminated", seconds=30)
    assert time.time() >= at - 1.0
    # The next command that talks to AWS sees it confirmed, and sweeps what it leaves.
    time.sleep(max(0.0, at - time.time()))
    assert debts.owes(scene.run, scene.context.store)
    settle(scene)
    assert scene.run.life is InstanceLife.TERMINATED and expiry.kept_until(scene.run) is None
    gone(scene)


def test_stop_with_keep_and_a_later_stop_without(scene: Scene) -> None:
    # What `run` was given does not count any more once `stop` says otherwise.
    scene.trains(*LONG, max_time_s=600.0, keep_s=30.0)
    unfetched(scene)
    result = stop.stop(scene.run, scene.context, keep_s=300.0)
    verified(result)
    assert result.state is RunState.STOPPED and expiry.is_kept(scene.run, time.time())
    with pytest.raises(UsageError, match="has ended"):
        stop.stop(scene.run, scene.context, keep_s=600.0)
    assert expiry.is_kept(scene.run, time.time())
    ended = stop.stop(scene.run, scene.context)
    assert (ended.life, ended.leftovers) == (InstanceLife.TERMINATED, ())
    gone(scene)


def test_what_cannot_be_arranged_ends_the_machine_and_says_so(scene: Scene) -> None:
    scene.region.inject("error:UnauthorizedOperation:1@ModifyInstanceAttribute")
    verified(story.resume(scene.begin(max_time_s=600.0, keep_s=300.0, if_i_vanish="terminate"), scene.context))
    assert "cannot be kept and is ended now" in scene.said()
    gone(scene)


@pytest.mark.parametrize("told", [False, True])
def test_a_command_killed_right_after_the_pull_leaves_a_machine_that_ends_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    end_at = Ec2Machine.end_at

    def dies(machine: Ec2Machine, *arguments: Any) -> bool:
        if told:
            end_at(machine, *arguments)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ec2Machine, "end_at", dies)
        story.resume(scene.begin(max_time_s=600.0, grace_s=8.0, keep_s=120.0), scene.context)
    assert scene.run.state is RunState.PULLING
    promised = scene.context.store.read_journal(NAME).held.until
    if not told:
        # The laptop stays off: its own supervisor ends it, parked or for good, when nobody has looked for the grace.
        scene.until("stopped", "terminated", seconds=30)
        result = story.resume(scene.run, scene.context)
        assert not scene.region.calls("StartInstances"), "nobody is billed for a machine that is kept for nobody"
    else:
        result = story.resume(scene.run, scene.context)
        assert expiry.kept_until(scene.run) == promised, "coming back gives no more time"
        stop.stop(scene.run, scene.context)
    assert result.state is RunState.SUCCEEDED
    gone(scene)


def test_a_kept_machine_that_has_gone_is_seen_by_pull_and_its_results_stay(scene: Scene) -> None:
    result = story.resume(scene.begin(max_time_s=120.0, keep_s=3600.0), scene.context)
    # It never stays beyond the run's own end.
    assert scene.run.created_at + 100.0 < (expiry.kept_until(scene.run) or 0.0) <= scene.run.created_at + 135.0
    spoilt, kept = (result.folder / entry.name for entry in result.artifacts[:2])
    # What somebody changes on the machine meanwhile never takes the place of a verified result.
    [theirs] = scene.folder.glob(f"region/**/runs/{NAME}/out/{kept.relative_to(result.folder)}")
    theirs.write_bytes(b"changed by hand")
    spoilt.write_bytes(b"spoilt")
    # While it is there a spoilt file comes from it again, as it was verified.
    verified(pull.pull_again(scene.run, scene.context))
    assert expiry.is_kept(scene.run, time.time())
    clients(scene).ec2.terminate_instances(InstanceIds=[scene.run.instance.id])  # type: ignore[union-attr]
    scene.until("terminated")
    with Session(scene.run, scene.context) as session, pytest.raises(ConnectionFailed, match="has ended"):
        openssh.check_there(scene.run, session)
    spoilt.write_bytes(b"spoilt")
    with pytest.raises(ConnectionFailed, match="no longer has a machine"):
        pull.pull_again(scene.run, scene.context)
    assert scene.run.life is InstanceLife.TERMINATED
    gone(scene)


def test_a_spot_machine_is_kept_too(scene: Scene) -> None:
    verified(story.resume(scene.begin(spot=True, max_time_s=600.0, keep_s=6.0), scene.context))
    assert expiry.is_kept(scene.run, time.time()) and not scene.region.calls("ModifyInstanceAttribute")
    scene.until("terminated", seconds=30)


def test_a_machine_that_had_parked_is_not_kept_when_it_is_woken_for_its_results(scene: Scene) -> None:
    scene.trains(max_time_s=600.0, grace_s=1.0, keep_s=300.0)
    scene.until("stopped")
    verified(scene.pull())
    assert "is not kept: it had parked" in scene.said()
    gone(scene)


def test_a_machine_whose_run_fails_is_kept_for_a_look_and_trains_the_next(scene: Scene) -> None:
    # What it needs is not to be had; then its job ends badly. In both cases the next run goes on there.
    spec = scene.spec(max_time_s=600.0, keep_on_failure_s=300.0)
    broken = replace(spec, job=replace(spec.job, python="/usr/bin/no-python"))
    with pytest.raises(UsageError) as caught:
        story.resume(planning.begin(planning.plan_run(broken, scene.context), scene.context), scene.context)
    run, store = scene.run, scene.context.store
    assert (run.state, run.error and run.error.code) == (RunState.FAILED, caught.value.code)
    at = expiry.kept_until(run)
    assert expiry.is_kept(run, time.time()) and promised_end(scene) == at and not debts.owes(run, store)
    told = "\n".join(listing.page(run, store))
    assert "kept until" in told and "an hour" in told and f"cloudtrain run --on {NAME}" in told
    again = replace(spec, name="again", train=replace(spec.train, args=("--code", "3")), ec2=Ec2Spec(from_run=NAME))
    failed = story.resume(planning.begin(planning.plan_run(again, scene.context), scene.context), scene.context)
    assert failed.state is RunState.FAILED and "kept until" in failed.leftovers[0]
    well = replace(spec, name="well", ec2=Ec2Spec(from_run="again"))
    verified(story.resume(planning.begin(planning.plan_run(well, scene.context), scene.context), scene.context))
    assert len(scene.region.calls("RunInstances")) == 1
    gone(scene)


MODEL = """
import os
os.makedirs("checkpoints")
with open("checkpoints/model.pt", "wb") as file:
    file.write(bytes(range(256)) * 1000)
os.symlink("checkpoints/model.pt", "last.ckpt")
for name in ("run.json", "runs/x", ".cache/y", "env/lock.txt", ".env"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file:
        file.write(name)
os.makedirs("../data")
with open("../data/1.bin", "wb") as file:
    file.write(bytes(1000))
"""
HUGE = """
with open("big.pt", "wb") as file:
    file.truncate(6 * 2**30)
with open("small.pt", "wb") as file:
    file.write(b"small")
"""


def begun(scene: Scene, program: str, **limits: Any) -> Run:
    """The run of a program of the user's own."""
    project = scene.folder / "project"
    project.mkdir()
    (project / "train.py").write_text(program)
    spec = replace(scene.spec(**limits), job=JobSpec(source=str(project), command=("python", "train.py")))
    return planning.begin(planning.plan_run(spec, scene.context), scene.context)


def test_what_a_program_writes_where_it_runs_is_here(scene: Scene) -> None:
    result = story.resume(begun(scene, MODEL), scene.context)
    verified(result)
    assert result.exit_code == 0
    body = bytes(range(256)) * 1000
    assert (result.folder / "checkpoints/model.pt").read_bytes() == body == (result.folder / "last.ckpt").read_bytes()
    assert {entry.name: entry.here for entry in result.artifacts} == {
        **{name: name for name in ("checkpoints/model.pt", "last.ckpt", "runs/x", ".cache/y", "env/lock.txt")},
        "run.json": "_run.json",
        ".env": "_.env",
    }
    assert "left there, beside the project: ../data, 1 kB" in scene.said()
    assert verify.check(result.folder).wrong == ()
    gone(scene)


def test_results_that_are_too_many_park_their_machine_until_somebody_decides(scene: Scene) -> None:
    run = begun(scene, HUGE, max_time_s=600.0)
    with pytest.raises(LimitReached, match=r"1 result .* results_limit = 5 GiB .* big.pt \(6.4 GB\)") as caught:
        story.resume(run, scene.context)
    assert caught.value.code == "results_limit" and "is deleted" in (caught.value.consequence or "")
    run = scene.run
    assert (scene.state(), run.life, run.state) == ("stopped", InstanceLife.PARKED, RunState.PULLING)
    assert (run.folder / "small.pt").read_bytes() == b"small" and not (run.folder / "big.pt").exists()
    assert "--all" in "\n".join(listing.table([run]))
    # Nothing that does not decide starts the machine, or ends it.
    for act in (stop.stop, pull.pull_now, story.resume):
        with pytest.raises(LimitReached, match=r"big\.pt"):
            act(scene.run, scene.context)
    assert scene.state() == "stopped" and not scene.region.calls("StartInstances")
    # A part is fetched from it, and it parks again.
    part = pull.pull(scene.run, scene.context, ["checkpoints"])
    assert part.entries == () and scene.state() == "stopped" and len(scene.region.calls("StartInstances")) == 1
    done = stop.discard(scene.run, scene.context)
    assert (done.state, done.life) == (RunState.SUCCEEDED, InstanceLife.TERMINATED)
    assert [entry.name for entry in done.artifacts] == ["small.pt"]
    assert "1 result, 6.4 GB, deleted with the machine: big.pt" in "\n".join(summary.ending_lines(done))
    gone(scene)


def test_all_of_them_come_when_they_are_wanted(scene: Scene) -> None:
    run = begun(scene, HUGE.replace("6 * 2**30", "30000"), results_gib=20_000 / 2**30)
    with pytest.raises(LimitReached):
        story.resume(run, scene.context)
    done = pull.pull_now(scene.run, scene.context, everything=True)
    assert (done.state, done.error) == (RunState.SUCCEEDED, None)
    assert (done.folder / "big.pt").read_bytes() == bytes(30000)
    verified(done)
    gone(scene)
