"""What carries our mark, and nothing that does not."""

from __future__ import annotations

import time
from typing import Any

from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.instances import Item, described, inventory, one, reason_of, state_of


def test_tags_go_there_and_back() -> None:
    marks = tags.tags_of_run("brave-otter", "feed", "me", 1795437296.9)
    assert marks["cloudtrain:expires-at"] == "2026-11-23T12:34:56Z"
    assert tags.utc_seconds(marks["cloudtrain:expires-at"]) == 1795437296
    assert tags.utc_seconds("soon") is None and tags.utc_seconds(None) is None
    assert tags.as_map(tags.as_list(marks)) == marks
    assert tags.where(run="a", owner=None)[1:] == [{"Name": "tag:cloudtrain:run", "Values": ["a"]}]


def test_an_owner_is_the_same_in_each_session_and_gives_nothing_away() -> None:
    arn = "arn:aws:sts::123456789012:assumed-role/Student/botocore-session-"
    assert tags.owner_of(arn + "1700000000") == tags.owner_of(arn + "1800000000")
    assert tags.owner_of("arn:aws:iam::123456789012:user/a") != tags.owner_of("arn:aws:iam::123456789012:user/b")
    assert "123456789012" not in tags.owner_of("arn:aws:iam::123456789012:user/a")


def test_everything_of_a_run_is_found_by_its_tags_alone(trip_of: Any) -> None:
    trip = trip_of()
    instance = trip.acquire()
    found = inventory(trip.clients, run="brave-otter")
    assert sorted(item.kind for item in found) == ["instance", "security group"]
    (item,) = [item for item in found if item.kind == "instance"]
    assert (item.id, item.run, item.type, item.zone) == (instance.id, "brave-otter", "g4dn.xlarge", "us-east-1a")
    assert item.token == instance.details["token"]
    assert item.expires_at is not None and 7000 < item.expires_at - time.time() < 7300
    assert inventory(trip.clients, run="calm-raven") == [] and inventory(trip.clients, tokens=["beef"]) == []
    assert len(inventory(trip.clients)) == 2
    trip.release(instance)
    assert inventory(trip.clients) == []


def test_strangers_are_never_listed(trip_of: Any) -> None:
    trip = trip_of()
    launched = trip.clients.ec2.run_instances(
        ImageId=trip.plan.offer.details["image_id"], InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1
    )
    stranger = launched["Instances"][0]["InstanceId"]
    assert inventory(trip.clients) == [] and trip.find() is None
    assert state_of(one(trip.clients, stranger) or {}) in ("pending", "running")
    assert described(trip.clients, tags.where()) == []
    trip.clients.ec2.terminate_instances(InstanceIds=[stranger])


def test_what_ec2_does_not_know_is_none(trip_of: Any) -> None:
    assert one(trip_of().clients, "i-0123456789abcdef0") is None


def test_what_is_left_is_described_with_its_price() -> None:
    volume = Item(kind="volume", id="vol-1", state="available", size_gb=45)
    assert volume.describe() == "volume vol-1 (45 GB, available), about $3.60 a month"
    instance = Item(kind="instance", id="i-1", state="running", type="g4dn.xlarge")
    assert instance.describe(0.526) == "instance i-1 (g4dn.xlarge, running), $0.526 an hour"
    assert Item(kind="security group", id="sg-1").describe() == "security group sg-1, costs nothing"


def test_reasons_are_ec2s_words() -> None:
    reason = {"StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "price"}}
    assert reason_of(reason) == "Server.SpotInstanceTermination: price"
    assert reason_of({"StateTransitionReason": "User initiated"}) == "User initiated"
    assert reason_of(None) == "EC2 does not know it any more"
