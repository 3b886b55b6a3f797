"""The provider over an emulated region: real HTTP, real SSH, faults, and the region's own record at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.decode import made
from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch, SignInError, UsageError
from cloudtrain.core.events import StepDone, StepProgress, StepStarted
from cloudtrain.core.instance import Instance
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.ec2 import machine_lease, trust
from cloudtrain.provider.ec2.instances import inventory
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.reach import boot
from cloudtrain.transport.ssh_keys import fingerprint, new_key
from tests.lease_end import lease_end
from tests.region.ec2.conftest import QUICK, Killed


def works(trip: Any, instance: Instance) -> bool:
    with trip.open(instance) as transport:
        return bool(transport.run(["echo", "it's $HOME"]).stdout == b"it's $HOME\n")


def test_an_instance_survives_the_registry(trip_of: Any) -> None:
    trip = trip_of()
    instance = trip.acquire()
    assert made(Instance, instance.to_dict()) == instance
    assert instance.life is InstanceLife.RUNNING and instance.user == "ubuntu" and instance.workdir == "cloudtrain"
    listed = [(item.id, item.run) for item in inventory(trip.clients) if item.kind == "instance"]
    assert listed == [(instance.id, "brave-otter")]
    assert works(trip, made(Instance, instance.to_dict()))
    titles = [event.title for event in trip.told if isinstance(event, StepDone)]
    assert titles == ["instance", "ssh"]
    trip.release(instance)
    assert trip.left() == {} and trip.find() is None


def test_a_machine_that_never_answers_is_given_up(trip_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 1.0)
    trip = trip_of("slow-boot:600", pace=replace(QUICK, boot=3.0))
    instance = trip.acquire()
    began = time.monotonic()
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(instance)
    assert "did not answer" in caught.value.message and instance.id in caught.value.message
    assert "--ssh-cidr" in str(caught.value.hint)
    assert time.monotonic() - began < 60
    # It is waited for in slices of a second, and told as the one wait that it is.
    waits = [e for e in trip.told if isinstance(e, StepProgress) and e.title == "boot"]
    told = [event.done for event in waits]
    assert {event.total for event in waits} == {3.0} and told == sorted(told) and 2.0 < told[-1] <= 3.0
    trip.release(instance)
    assert trip.left() == {}


def test_a_key_that_stays_refused_is_fatal(trip_of: Any) -> None:
    trip = trip_of("auth-refused:600", pace=replace(QUICK, auth=2.0))
    instance = trip.acquire()
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(instance)
    assert caught.value.code == "auth_refused" and "refuses the run's key" in caught.value.message
    trip.release(instance)


def test_a_wrong_host_key_is_fatal_and_nothing_is_sent(trip_of: Any) -> None:
    trip = trip_of("wrong-host-key")
    instance = trip.acquire()
    with pytest.raises(HostKeyMismatch) as caught:
        trip.open(instance)
    assert str(caught.value.detail).count("SHA256:") == 2 and "nothing was sent" in str(caught.value.consequence)
    assert fingerprint(str(instance.host_key)) in str(caught.value.detail)
    assert trip.notes.read(Ec2Notes).host_key == instance.host_key
    trip.release(instance)
    assert trip.left() == {}


def test_an_instance_that_ends_while_it_boots_is_told_with_its_reason(
    trip_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 1.0)
    trip = trip_of("slow-boot:600", "terminated:1")
    instance = trip.acquire()
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(instance)
    assert caught.value.code == "instance_gone" and "Client." in caught.value.message
    assert trip.find() is None
    released = trip.release(instance)
    assert "had already ended: Client." in released.summary and released.life is InstanceLife.TERMINATED
    assert trip.left() == {}


def test_this_computers_new_address_is_let_in_and_the_old_one_no_more(
    trip_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 1.0)
    monkeypatch.setattr(boot, "ASK_EVERY_S", 0.5)
    trip = trip_of("caller-moves:0")
    instance = trip.acquire()
    group = trip.notes.read(Ec2Notes).group
    # The emulated region is always on this computer, where addresses are not looked up.
    monkeypatch.setattr(type(trip.clients), "loopback", False)
    trip.provider._ask_address = lambda: "203.0.113.7"
    assert works(trip, instance)
    rules = trip.clients.ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]["IpPermissions"]
    assert [r["CidrIp"] for rule in rules for r in rule["IpRanges"]] == ["203.0.113.7/32"]
    assert "address has changed" in trip.said()


def test_termination_is_asked_for_until_it_is_answered(trip_of: Any) -> None:
    trip = trip_of("Unavailable:7@TerminateInstances")
    instance = trip.acquire()
    released = trip.release(instance)
    assert released.life is InstanceLife.TERMINATED and trip.left() == {}
    assert trip.notes.read(Ec2Notes).release_pending is None


def test_an_answer_that_is_none_ends_no_wait(trip_of: Any) -> None:
    """More of them than the SDK asks again by itself."""
    trip = trip_of()
    for client, call in ((trip.clients.ec2_launch, "RunInstances"), (trip.clients.ec2, "TerminateInstances")):
        client.meta.events.register(
            f"after-call.ec2.{call}", lambda **ignored: trip.region.inject("html500@DescribeInstances:7")
        )
    instance = trip.acquire()
    assert trip.effects() == 1 and not trip.region.faults.texts()
    released = trip.release(instance)
    assert released.life is InstanceLife.TERMINATED and trip.left() == {}
    assert sum(call["status"] == 500 for call in trip.region.calls("DescribeInstances")) == 14


def test_a_termination_that_is_not_allowed_is_a_debt_and_says_so(trip_of: Any) -> None:
    trip = trip_of("UnauthorizedOperation:1@TerminateInstances")
    instance = trip.acquire()
    with pytest.raises(SignInError) as caught:
        trip.release(instance)
    error = caught.value
    assert instance.id in error.message and "$0.5" in error.message and "an hour" in error.message
    assert f"aws ec2 terminate-instances --instance-ids {instance.id}" in str(error.hint)
    assert "lease switches it off at 20" in str(error.consequence)
    assert trip.notes.read(Ec2Notes).release_pending.id == instance.id
    assert trip.find().id == instance.id
    assert trust.keys_folder("brave-otter").exists()
    released = trip.release(trip.find())
    assert released.summary == f"{instance.id} terminated, nothing is billed any more" and trip.left() == {}


def test_an_instance_that_does_not_end_is_a_debt_too(trip_of: Any, region_of: Any) -> None:
    from cloudtrain.emulator.aws.core import Timing

    region = region_of(timing=Timing(pending_s=0.1, boot_s=0.1, shutting_down_s=6.0))
    trip = trip_of(region=region, pace=replace(QUICK, end=1.0))
    instance = trip.acquire()
    with pytest.raises(ConnectionFailed) as caught:
        trip.release(instance)
    assert caught.value.code == "release_pending" and "shutting-down" in caught.value.message


def test_killed_at_any_write_of_the_release_the_next_command_finishes_it(trip_of: Any, region_of: Any) -> None:
    region = region_of()
    deaths = 0
    for point in range(1, 4):
        trip = trip_of(region=region, name=f"otter-{point}")
        instance = trip.acquire()
        trip.notes.die_at = trip.notes.writes + point
        try:
            trip.release(instance)
        except Killed:
            deaths += 1
        trip.notes.die_at = None
        assert trip.release(instance).leftovers == ()
        assert trip.left() == {} and trip.find() is None
    assert deaths == 3


def test_a_group_that_stays_in_use_is_waited_for_once_the_end_is_told(trip_of: Any) -> None:
    trip = trip_of(pace=replace(QUICK, group=1.0))
    instance = trip.acquire()
    trip.region.inject("DependencyViolation:99@DeleteSecurityGroup")
    (kept,) = trip.release(instance).leftovers
    assert kept.startswith("security group sg-") and kept.endswith("costs nothing")
    steps = [event for event in trip.told if isinstance(event, (StepStarted, StepDone))][-4:]
    assert [(type(event), event.title) for event in steps] == [
        (StepStarted, "release"), (StepDone, "release"), (StepStarted, "tidy"), (StepDone, "tidy")
    ]  # fmt: skip
    # Whoever waits knows by then that nothing is billed.
    assert "nothing is billed any more" in steps[1].detail
    assert "something still uses it" in steps[2].detail and steps[2].limit_s == 1.0
    assert "is still in use; it costs nothing" in steps[3].detail
    # Nothing but a group is left, and of that it is known: there is no second wait.
    assert steps[3].seconds < 5 and "inventory: 0 instances, 0 volumes, 1 security group" in trip.said()
    trip.region.faults.replace([])
    assert trip.release(instance).leftovers == () and trip.left() == {}


def test_a_run_is_found_without_any_note(trip_of: Any) -> None:
    from tests.region.ec2.conftest import Notes

    trip = trip_of()
    instance = trip.acquire()
    trip.notes = Notes()
    found = trip.find()
    assert found.id == instance.id and found.details.token == instance.details.token
    with pytest.raises(UsageError) as caught:
        trust.forget("brave-otter")
        trip.open(found)
    assert caught.value.code == "no_key"
    trip.release(found)
    assert trip.left() == {}


def test_a_run_is_found_in_the_region_of_its_launch(trip_of: Any, clients_of: Any) -> None:
    from cloudtrain.provider.ec2.provider import Ec2Provider

    trip = trip_of()
    instance = trip.acquire()
    trip.provider = Ec2Provider(clients_of(trip.region, "eu-west-1"), pace=QUICK)
    assert trip.find().id == instance.id
    trip.release(instance)
    assert trip.left() == {}


def test_the_lease_ends_an_instance_that_nobody_ends(trip_of: Any) -> None:
    from cloudtrain.core.spec import Limits

    trip = trip_of(limits=Limits(max_time_s=3600.0))
    instance = trip.acquire()
    with trip.open(instance) as transport:
        elapses = lease_end(trip.region.machines()[instance.id].root)
        assert elapses is not None and abs(elapses - instance.details.expires_at) < 2
        assert 3500 < elapses - time.time() <= 3600
        # Its time has come; the connection may not outlive it.
        with contextlib.suppress(ConnectionFailed):
            transport.run(["sudo", "sh", "-c", machine_lease.move(time.time(), 0.0)])
    for _ in range(100):
        if trip.find() is None:
            break
        time.sleep(0.1)
    assert "had already ended: Client.InstanceInitiatedShutdown" in trip.release(instance).summary
    assert trip.left() == {}


def test_a_users_own_group_is_used_and_left(trip_of: Any) -> None:
    first = trip_of()
    own = first.clients.ec2.create_security_group(
        GroupName="mine", Description="mine", VpcId=first.plan.offer.details.candidates[0].zones[0].vpc
    )["GroupId"]
    first.clients.ec2.authorize_security_group_ingress(
        GroupId=own, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="127.0.0.1/32"
    )
    before = len(first.region.calls("CreateSecurityGroup"))
    trip = trip_of(region=first.region, security_group=own)
    instance = trip.acquire()
    assert works(trip, instance)
    trip.release(instance)
    assert len(trip.region.calls("CreateSecurityGroup")) == before
    assert trip.clients.ec2.describe_security_groups(GroupIds=[own])["SecurityGroups"]


@pytest.fixture
def own_machine(trip_of: Any, tmp_path: Path) -> Any:
    """A machine of the user's own in the region, stopped or running, with a key of theirs."""
    from cloudtrain.provider.ec2.user_data import render

    trip = trip_of()
    identity = tmp_path / "id"
    public = new_key(identity)
    private, host_key = trust.new_host_key("someone")
    details = trip.plan.offer.details
    launched = trip.clients.ec2.run_instances(
        ImageId=details.image_id,
        InstanceType="g4dn.xlarge",
        MinCount=1,
        MaxCount=1,
        SecurityGroupIds=[_open_group(trip)],
        UserData=render(
            host_private=private,
            host_public=host_key,
            client_public=public,
            expires_at=time.time() + 3600,
            lasts_s=3600,
        ),
    )["Instances"][0]["InstanceId"]

    def state() -> str:
        from cloudtrain.provider.ec2.instances import one, state_of

        return state_of(one(trip.clients, launched) or {})

    def wait(wanted: str) -> None:
        for _ in range(100):
            if state() == wanted:
                return
            time.sleep(0.1)
        raise AssertionError(f"{launched} is {state()}, not {wanted}")

    wait("running")

    def visit(**ec2: Any) -> Any:
        return trip_of(region=trip.region, instance_id=launched, **{"identity": str(identity), **ec2})

    return visit, launched, host_key, state, wait, trip


def _open_group(trip: Any) -> str:
    vpc = trip.plan.offer.details.candidates[0].zones[0].vpc
    group = trip.clients.ec2.create_security_group(GroupName="theirs", Description="theirs", VpcId=vpc)["GroupId"]
    trip.clients.ec2.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="127.0.0.0/8"
    )
    return str(group)


def test_a_machine_of_the_users_own_is_verified_by_its_console_and_never_ended(own_machine: Any) -> None:
    visit, launched, host_key, state, _, _ = own_machine
    trip = visit()
    instance = trip.acquire()
    assert (instance.id, instance.owned, instance.life) == (launched, False, InstanceLife.NONE)
    assert works(trip, instance)
    assert trip.notes.read(Ec2Notes).host_key == host_key and "from the instance's console output" in trip.said()
    assert trip.find().id == launched
    released = trip.release(instance)
    assert "goes on running" in released.summary and state() == "running"
    assert not trip.region.calls("TerminateInstances") and not trip.region.calls("CreateTags")


def test_a_stopped_machine_is_started_and_stopped_again(own_machine: Any) -> None:
    visit, launched, host_key, state, wait, base = own_machine
    base.clients.ec2.stop_instances(InstanceIds=[launched])
    wait("stopped")
    trip = visit(host_key=fingerprint(host_key))
    instance = trip.acquire()
    assert trip.acquire().id == launched
    assert works(trip, instance) and state() == "running"
    released = trip.release(instance)
    assert "stopped again" in released.summary and state() == "stopped"
    assert len(trip.region.calls("StartInstances")) == 1 and not trip.region.calls("TerminateInstances")


def test_a_machine_that_the_policy_does_not_cover_says_which_tag_it_needs(own_machine: Any) -> None:
    visit, launched, host_key, _, wait, base = own_machine
    told = f"aws ec2 create-tags --resources {launched} --tags Key=cloudtrain:use,Value=true"

    def denied(action: str, act: Callable[[], object], consequence: str) -> None:
        base.region.inject(f"UnauthorizedOperation:1@{action}")
        with pytest.raises(SignInError) as caught:
            act()
        assert told in str(caught.value.hint) and consequence in str(caught.value.consequence)

    trip = visit()
    instance = trip.acquire()
    denied("GetConsoleOutput", lambda: trip.open(instance), "nothing was sent")
    base.clients.ec2.stop_instances(InstanceIds=[launched])
    wait("stopped")
    trip = visit(host_key=fingerprint(host_key))
    denied("StartInstances", trip.acquire, "it stays stopped")
    instance = trip.acquire()
    denied("StopInstances", lambda: trip.release(instance), "being billed")


def test_a_machine_that_shows_another_key_than_the_one_given_is_not_trusted(own_machine: Any) -> None:
    visit, *_ = own_machine
    _, other = trust.new_host_key("other")
    for given in (fingerprint(other), other):
        trip = visit(host_key=given)
        with pytest.raises(HostKeyMismatch):
            trip.open(trip.acquire())


def test_a_machine_of_the_users_own_needs_their_key(own_machine: Any) -> None:
    visit, *_ = own_machine
    trip = visit(identity=None)
    with pytest.raises(UsageError) as caught:
        trip.open(trip.acquire())
    assert caught.value.code == "no_identity" and "--identity" in str(caught.value.hint)
