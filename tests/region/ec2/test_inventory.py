"""What carries our mark, and nothing that does not."""

from __future__ import annotations

import time
from typing import Any

from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.instances import described, inventory, one, state_of


def test_everything_of_a_run_is_found_by_its_tags_alone(trip_of: Any) -> None:
    trip = trip_of()
    instance = trip.acquire()
    found = inventory(trip.clients, run="brave-otter")
    assert sorted(item.kind for item in found) == ["instance", "security group"]
    (item,) = [item for item in found if item.kind == "instance"]
    assert (item.id, item.run, item.type, item.zone) == (instance.id, "brave-otter", "g4dn.xlarge", "us-east-1a")
    assert item.token == instance.details.token
    assert item.expires_at is not None and 7000 < item.expires_at - time.time() < 7300
    assert inventory(trip.clients, run="calm-raven") == [] and inventory(trip.clients, tokens=["beef"]) == []
    assert len(inventory(trip.clients)) == 2
    trip.release(instance)
    assert inventory(trip.clients) == []


def test_strangers_are_never_listed(trip_of: Any) -> None:
    trip = trip_of()
    launched = trip.clients.ec2.run_instances(
        ImageId=trip.plan.offer.details.image_id, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1
    )
    stranger = launched["Instances"][0]["InstanceId"]
    assert inventory(trip.clients) == [] and trip.find() is None
    assert state_of(one(trip.clients, stranger) or {}) in ("pending", "running")
    assert described(trip.clients, tags.where()) == []
    trip.clients.ec2.terminate_instances(InstanceIds=[stranger])


def test_what_ec2_does_not_know_is_none(trip_of: Any) -> None:
    assert one(trip_of().clients, "i-0123456789abcdef0") is None
