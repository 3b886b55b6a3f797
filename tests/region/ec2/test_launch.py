"""Launching: at most one instance, whatever the answers are and wherever the command is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import (
    CloudtrainError,
    ConnectionFailed,
    ExitCode,
    NoCapacity,
    QuotaExceeded,
    Refused,
    SignInError,
)
from cloudtrain.core.events import Event, Noted
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.store import Store


def test_a_launch_leaves_its_marks_in_the_call_and_nothing_behind(trip_of: Any) -> None:
    trip = trip_of()
    instance = trip.acquire()
    assert trip.effects() == 1 and len(trip.launches()) == 1
    sent = trip.launches()[0]["parameters"]
    flat = json.dumps(sent)
    for mark in ("managed", "run", "token", "owner", "expires-at", "version"):
        assert f"cloudtrain:{mark}" in flat
    assert "ClientToken" in flat and "KeyName" not in flat and "IamInstanceProfile" not in flat
    groups = trip.clients.ec2.describe_security_groups(
        Filters=[{"Name": "tag:cloudtrain:run", "Values": ["brave-otter"]}]
    )["SecurityGroups"]
    assert len(groups) == 1
    (rule,) = groups[0]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (22, 22, "tcp")
    assert [r["CidrIp"] for r in rule["IpRanges"]] == ["127.0.0.1/32"]
    assert not trip.region.calls("ImportKeyPair") and not trip.region.calls("CreateTags")
    assert instance.owned and instance.address and instance.zone == "us-east-1a" and instance.price_per_hour
    released = trip.release(instance)
    assert "terminated" in released.summary and released.leftovers == ()
    assert trip.left() == {}


def test_two_calls_give_one_instance(trip_of: Any) -> None:
    trip = trip_of()
    first, second = trip.acquire(), trip.acquire()
    assert first.id == second.id and len(trip.launches()) == 1


def test_a_full_zone_is_asked_once_and_the_next_one_gives(trip_of: Any) -> None:
    trip = trip_of("capacity:us-east-1a")
    instance = trip.acquire()
    assert instance.zone == "us-east-1b"
    assert [call["error"] for call in trip.launches()] == ["InsufficientInstanceCapacity", None]
    assert "us-east-1a (InsufficientInstanceCapacity)" in trip.said()


def test_the_next_type_is_tried_once_every_zone_is_full(trip_of: Any) -> None:
    trip = trip_of("capacity:*:g4dn.xlarge", types=("g4dn.xlarge", "g6.xlarge"))
    assert trip.acquire().type == "g6.xlarge"
    assert trip.effects() == 1


def test_full_everywhere_is_one_clear_refusal_and_nothing_is_left(trip_of: Any) -> None:
    trip = trip_of("capacity:*")
    with pytest.raises(NoCapacity) as caught:
        trip.acquire()
    assert caught.value.message == "no g4dn.xlarge free in us-east-1 (5 places tried)"
    assert caught.value.exit_code == ExitCode.REFUSED and caught.value.consequence == "nothing is billed"
    assert caught.value.detail and caught.value.detail.count("InsufficientInstanceCapacity") == 5
    assert len(trip.launches()) == 5 and trip.left() == {}
    tokens = {json.dumps(call["parameters"].get("ClientToken")) for call in trip.launches()}
    assert len(tokens) == 5


@pytest.mark.parametrize(
    ("fault", "spot", "code"),
    [
        ("VcpuLimitExceeded@RunInstances", False, "L-DB2E81BA"),
        ("MaxSpotInstanceCountExceeded@RunInstances", True, "L-3819A6DF"),
    ],
)
def test_a_quota_stops_the_launch_and_names_the_way_out(trip_of: Any, fault: str, spot: bool, code: str) -> None:
    trip = trip_of(fault, spot=spot)
    with pytest.raises(QuotaExceeded) as caught:
        trip.acquire()
    assert "needs 4 vCPU" in caught.value.message and "the quota allows" in caught.value.message
    assert (
        caught.value.hint and f"--quota-code {code}" in caught.value.hint and "--region us-east-1" in caught.value.hint
    )
    assert len(trip.launches()) == 1 and trip.left() == {}


def test_throttling_is_waited_out_with_the_same_token(trip_of: Any) -> None:
    trip = trip_of("RequestLimitExceeded:3@RunInstances")
    trip.acquire()
    assert len(trip.launches()) == 4 and trip.effects() == 1
    assert len({call["parameters"]["ClientToken"] for call in trip.launches()}) == 1


@pytest.mark.parametrize(
    "fault", ["lost-response@RunInstances", "internal-after-effect@RunInstances", "html500@RunInstances:2"]
)
def test_an_unknown_effect_is_asked_again_with_the_same_token(trip_of: Any, fault: str) -> None:
    trip = trip_of(fault)
    instance = trip.acquire()
    assert trip.effects() == 1 and len(trip.region.inventory()["instances"]) == 1
    assert len({call["parameters"]["ClientToken"] for call in trip.launches()}) == 1
    assert instance.zone == "us-east-1a"


def test_after_an_unknown_effect_no_other_zone_is_asked_before_a_look(trip_of: Any) -> None:
    trip = trip_of("lost-response@RunInstances")
    tell = trip.told.append

    def full_from_now_on(event: Event) -> None:
        if isinstance(event, Noted) and "same token" in event.message:
            trip.region.inject("InsufficientInstanceCapacity:1@RunInstances")
        tell(event)

    instance = trip.provider.acquire(trip.plan, trip.notes, full_from_now_on)
    assert instance.zone == "us-east-1a" and trip.effects() == 1 and len(trip.launches()) == 2


def test_answers_that_never_come_leave_a_launch_that_the_next_command_finds(trip_of: Any) -> None:
    trip = trip_of("html500@RunInstances:40")
    with pytest.raises(ConnectionFailed) as caught:
        trip.acquire()
    assert caught.value.code == "launch_unknown" and "may have been started" in str(caught.value.consequence)
    trip.region.faults.replace([])
    instance = trip.acquire()
    assert trip.effects() == 1
    assert {call["parameters"]["ClientToken"] for call in trip.launches()} == {
        trip.launches()[0]["parameters"]["ClientToken"]
    }
    trip.release(instance)
    assert trip.left() == {}


def test_a_token_that_was_used_otherwise_stops_everything(trip_of: Any) -> None:
    trip = trip_of("IdempotentParameterMismatch@RunInstances")
    with pytest.raises(CloudtrainError) as caught:
        trip.acquire()
    assert "IdempotentParameterMismatch" in caught.value.message
    assert len(trip.launches()) == 1 and trip.left() == {}


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("UnauthorizedOperation@RunInstances", SignInError, "RunInstances"),
        ("OptInRequired@RunInstances", Refused, "not enabled"),
        ("PendingVerification@RunInstances", Refused, "verifying"),
    ],
)
def test_what_asking_again_cannot_change_stops_at_once(
    trip_of: Any, fault: str, kind: type[CloudtrainError], says: str
) -> None:
    trip = trip_of(fault)
    with pytest.raises(kind) as caught:
        trip.acquire()
    assert says in caught.value.message and caught.value.consequence == "no instance is running"
    assert len(trip.launches()) == 1 and trip.left() == {}


def test_a_new_instance_that_cannot_be_described_yet_is_not_taken_for_gone(trip_of: Any) -> None:
    trip = trip_of("not-found:2")
    instance = trip.acquire()
    assert trip.effects() == 1
    assert "InvalidInstanceID.NotFound" in {call["error"] for call in trip.region.calls("DescribeInstances")}
    assert instance.address


def test_an_instance_that_dies_before_it_runs_gives_way_to_the_next_zone(trip_of: Any) -> None:
    trip = trip_of("dies-pending")
    instance = trip.acquire()
    assert instance.zone == "us-east-1b" and trip.effects() == 2
    assert "ended before it ran: " in trip.said() and "Server." in trip.said()
    assert len(trip.region.inventory()["instances"]) == 1


@pytest.mark.parametrize(
    "code", ["Client.InternalError", "Client.InvalidSnapshot.NotFound", "Client.VolumeLimitExceeded"]
)
def test_a_reason_of_the_account_ends_the_launch_after_one_try(trip_of: Any, code: str) -> None:
    trip = trip_of(f"refused-pending:{code}:*")
    with pytest.raises(Refused) as caught:
        trip.acquire()
    error = caught.value
    assert error.code == "died_pending" and code in error.message and "trying the next place" not in trip.said()
    assert trip.effects() == 1 and trip.left() == {} and "nothing is billed" in str(error.consequence)
    assert error.hint and error.hint != "correct that, then run again"


def test_an_instance_that_stays_pending_is_terminated(trip_of: Any) -> None:
    from dataclasses import replace

    from tests.region.ec2.conftest import QUICK

    trip = trip_of("stays-pending", pace=replace(QUICK, pending=2.0))
    with pytest.raises(Refused) as caught:
        trip.acquire()
    assert caught.value.code == "stuck_pending" and "terminated" in str(caught.value.consequence)
    assert trip.left() == {}


def test_a_request_whose_lease_is_over_is_not_sent_any_more(trip_of: Any) -> None:
    trip = trip_of()
    trip.notes.die_at, trip.notes.after = 3, True
    with pytest.raises(BaseException):  # noqa: B017
        trip.acquire()
    notes = trip.notes.read(Ec2Notes)
    assert notes.request and not trip.launches()
    trip.notes.write(Ec2Notes(attempt=replace(notes.attempt, expires_at=time.time() - 10)))
    with pytest.raises(Refused) as caught:
        trip.acquire()
    assert caught.value.code == "lease_over" and not trip.launches() and trip.left() == {}


def test_killed_at_any_write_the_next_command_ends_with_one_instance(trip_of: Any, region_of: Any) -> None:
    from tests.region.ec2.conftest import Killed

    region = region_of()
    deaths = 0
    for point in range(1, 6):
        for after in (False, True):
            trip = trip_of(region=region, name=f"otter-{point}-{'after' if after else 'before'}")
            trip.notes.die_at, trip.notes.after = point, after
            before = len(region.calls("RunInstances"))
            try:
                instance = trip.acquire()
            except Killed:
                deaths += 1
                instance = trip.acquire()
            trip.notes.die_at = None
            mine = region.calls("RunInstances")[before:]
            assert sum(call["effect"] for call in mine) == 1, f"killed at write {point}"
            assert len(region.inventory()["instances"]) == 1
            assert trip.find().id == instance.id
            trip.release(instance)
            assert trip.left() == {}
    assert deaths == 10


DIES = """
import json, os, sys
from pathlib import Path
from cloudtrain.core.plan import Plan
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.provider import Ec2Provider
from cloudtrain.store import Store

endpoint, moment, store, plan = sys.argv[1:]
clients = Clients(None, "us-east-1", endpoint)
clients.ec2_launch.meta.events.register(f"{moment}.ec2.RunInstances", lambda **ignored: os._exit(9))
plan = Plan.from_dict(json.loads(Path(plan).read_text()))
Ec2Provider(clients).acquire(plan, Store(Path(store)).journal(plan.spec.name), print)
"""


@pytest.mark.parametrize(("moment", "sent"), [("before-send", 0), ("after-call", 1)])
def test_a_killed_process_leaves_what_the_next_one_needs(trip_of: Any, tmp_path: Path, moment: str, sent: int) -> None:
    trip = trip_of()
    store = Store(tmp_path / "registry.sqlite")
    store.add(trip.plan)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(trip.plan.to_dict()))
    died = subprocess.run(
        [sys.executable, "-c", DIES, trip.region.endpoint_url, moment, str(store.path), str(plan)],
        capture_output=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, **trip.region.environment()},
    )
    assert died.returncode == 9, died.stderr.decode()
    assert len(trip.launches()) == sent
    trip.notes = store.journal("brave-otter")
    instance = trip.acquire()
    assert trip.effects() == 1 and instance.id == trip.region.inventory()["instances"][0]["id"]
    with trip.open(instance) as transport:
        assert transport.run(["true"]).exit_code == 0
    trip.release(instance)
    assert trip.left() == {}
