"""`run --on`: a run takes over a machine that another has kept. One launch, one owner, one timer, one bill."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest

from cloudtrain.billing import cost, expiry, running
from cloudtrain.cleanup import debts, leftovers
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.spec import Ec2Spec, RunSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import machine_end as hold
from cloudtrain.lifecycle import openssh, planning, pull, stop, story, takeover
from cloudtrain.lifecycle.session import Session
from cloudtrain.provider.ec2 import tags, trust
from cloudtrain.provider.ec2.end import cleaning
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.store import Run
from tests.region.whole_path.test_keep import clients, promised_end, settle
from tests.region.whole_path.test_keep import scene as scene
from tests.region.whole_path.test_lease import NAME, Scene, gone, verified

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")

NEXT = "calm-heron"


def spec(scene: Scene, *args: str, name: str = NEXT, on: str = NAME, **limits: float) -> RunSpec:
    return replace(scene.spec(*args, **limits), name=name, ec2=Ec2Spec(from_run=on))


def begin(scene: Scene, *args: str, name: str = NEXT, on: str = NAME, **limits: float) -> Run:
    plan = planning.plan_run(spec(scene, *args, name=name, on=on, **limits), scene.context)
    return planning.begin(plan, scene.context)


def kept(scene: Scene, **limits: float) -> Run:
    verified(story.resume(scene.begin(**{"max_time_s": 600.0, "keep_s": 300.0, **limits}), scene.context))
    return scene.run


def test_a_run_takes_over_the_machine_that_another_has_kept(scene: Scene) -> None:
    old = kept(scene, grace_s=4.0, keep_s=8.0)
    assert old.instance is not None
    pinned, key = scene.context.store.read_notes(NAME, Ec2Notes).host_key, trust.keys_folder(NAME) / "client"
    private = key.read_bytes()
    would = replace(scene.spec(), name=NEXT)
    assert takeover.waiting(would, scene.context.store, time.time()) == old
    assert takeover.waiting(replace(would, ec2=Ec2Spec(spot=True)), scene.context.store, time.time()) is None
    rival = begin(scene, name="rival")
    began = time.time()
    story.resume(begin(scene, "--epochs", "1000", "--pause", "0.05", max_time_s=900.0), scene.context, detach=True)
    store, took = scene.context.store, time.time()
    old, new = store.get(NAME), store.get(NEXT)
    # One launch, one owner: instance, key, pin and user are the new run's, and the old one has none of them.
    assert len(scene.region.calls("RunInstances")) == 1 and new.instance is not None
    assert (new.instance.id, new.life, old.life) == (old.instance.id, InstanceLife.RUNNING, InstanceLife.NONE)  # type: ignore[union-attr]
    notes = store.read_notes(NEXT, Ec2Notes)
    assert notes.host_key == pinned and (trust.keys_folder(NEXT) / "client").read_bytes() == private
    assert not key.exists() and store.read_notes(NAME, Ec2Notes).to_dict() == {}
    # One timer: that of the new run's limit, on the machine, in its tags and in the registry.
    at = expiry.expires_at(new)
    assert at is not None and began + 899 <= at <= took + 900
    assert promised_end(scene) == at
    [row] = scene.region.inventory()["instances"]
    [group] = scene.region.inventory()["security_groups"]
    assert tags.utc_seconds(row["tags"][tags.EXPIRES_AT]) == at
    assert {row["tags"][tags.RUN], group["tags"][tags.RUN]} == {NEXT} and row["tags"]["Name"] == f"cloudtrain-{NEXT}"
    assert scene.instance().instance_initiated_shutdown_behavior == "stop"
    # One bill: that of the earlier run ends where the other begins, and the sum is the machine's.
    now = time.time() + 3600
    assert new.instance.price_per_hour is not None and new.instance.details.began_at is not None
    whole = new.instance.price_per_hour * (now - new.instance.details.began_at) / 3600
    both = [cost.would_cost(run, now) or 0.0 for run in (old, replace(new, instance=_endless(new)))]
    assert sum(both) == pytest.approx(whole) and both[0] < whole / 30
    told = running.of([(run, store.read_journal(run.name)) for run in (old, new)], took)
    assert told["running"] is True and not running.of([(old, store.read_journal(NAME))], took)["running"]
    # What the earlier run would do to the machine it does no more: neither a command nor its supervisor.
    assert not debts.owes(old, store)
    settle(scene)
    assert stop.stop(old, scene.context).life is InstanceLife.NONE
    store.write_journal(NAME, hold.RunNotes(owed=True))
    stop.settle(old, scene.context)
    with Session(old, scene.context) as session, pytest.raises(ConnectionFailed, match=f"taken over by {NEXT}"):
        openssh.check_there(old, session)
    pull.pull_again(old, scene.context)
    # Another run that wanted it, too, ends without it, and takes nothing with it.
    with pytest.raises(UsageError, match=f"taken over by {NEXT}"):
        story.resume(rival, scene.context)
    assert (store.get("rival").state, store.get("rival").life) == (RunState.FAILED, InstanceLife.NONE)
    [found] = [
        each for each in cleaning.find(clients(scene), leftovers.known_runs(store), now) if each.item.kind == "instance"
    ]
    assert found.known is not None and (found.known.run, found.item.run, found.safe) == (NEXT, NEXT, False)
    time.sleep(max(0.0, (old.instance.details.expires_at or 0.0) + 1.0 - time.time()))  # type: ignore[union-attr]
    assert scene.state() == "running" and store.get(NEXT).state is RunState.RUNNING
    # Kept once more, for a third.
    verified(stop.stop(store.get(NEXT), scene.context, keep_s=300.0))
    result = story.resume(begin(scene, name="third", on=NEXT, max_time_s=600.0), scene.context)
    verified(result)
    assert (result.state, takeover.holder(store.get(NAME), store)) == (RunState.SUCCEEDED, "third")
    assert len(scene.region.calls("RunInstances")) == 1
    gone(scene)


def _endless(run: Run) -> object:
    assert run.instance is not None
    return replace(run.instance, details=replace(run.instance.details, expires_at=None))


def test_what_is_gone_or_somebody_elses_is_refused_before_money(scene: Scene) -> None:
    old = kept(scene)
    assert old.instance is not None
    until, store = old.instance.details.kept_until or 0.0, scene.context.store

    def refused(told: str) -> None:
        with pytest.raises(UsageError, match=told) as caught:
            planning.plan_run(spec(scene, name="third"), scene.context)
        assert (caught.value.code, int(caught.value.exit_code)) == ("not_kept", 2)

    def marked(at: float) -> None:
        marks = [{"Key": tags.EXPIRES_AT, "Value": tags.utc_text(at)}]
        clients(scene).ec2.create_tags(Resources=[old.instance.id], Tags=marks)  # type: ignore[union-attr, arg-type]

    marked(until + 3600)
    refused("somebody else has moved the end")
    marked(until)
    run = begin(scene)
    clients(scene).ec2.terminate_instances(InstanceIds=[old.instance.id])
    refused("has ended: EC2 says so")
    assert store.names() == [NEXT, NAME]
    # It went between plan and takeover: the run fails, and nothing is launched in its place.
    trust.copy_keys(NAME, NEXT)
    with pytest.raises(UsageError, match="has ended: EC2 says so"):
        story.resume(run, scene.context)
    run = store.get(NEXT)
    assert (run.state, run.life, store.read_journal(NAME).handed_to) == (RunState.FAILED, InstanceLife.NONE, None)
    assert len(scene.region.calls("RunInstances")) == 1 and not trust.keys_folder(NEXT).exists()
    stop.stop(store.get(NAME), scene.context)
    gone(scene)
