"""A launch request: what it asks for, its token and the order of places."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cloudtrain.core.plan import Launchable, OfferDetails, Place
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2.launch.launch import client_token, request_for, slots_of
from cloudtrain.provider.ec2.notes import Slot

ZONES = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"]
DETAILS = OfferDetails(image_id="ami-1", root_device="/dev/sda1", root_gb=45)


def request(spec: Ec2Spec | None = None, slot: Slot | None = None, **details: Any) -> dict[str, Any]:
    return request_for(
        slot or Slot("g4dn.xlarge", "us-east-1a", "subnet-1"),
        replace(DETAILS, **details),
        spec or Ec2Spec(),
        seed="feed",
        group="sg-1",
        user_data="#cloud-config\n{}",
        marks={"cloudtrain:managed": "true"},
    )


def test_the_request_is_one_machine_that_ends_itself_and_opens_nothing() -> None:
    sent = request()
    assert (sent["MinCount"], sent["MaxCount"]) == (1, 1)
    assert sent["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert sent["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    assert not {"KeyName", "IamInstanceProfile"} & set(sent)
    assert sent["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 45, "VolumeType": "gp3", "DeleteOnTermination": True}}
    ]
    assert [s["ResourceType"] for s in sent["TagSpecifications"]] == ["instance", "volume", "network-interface"]
    interface = sent["NetworkInterfaces"][0]
    assert interface["AssociatePublicIpAddress"] and interface["Groups"] == ["sg-1"]
    assert json.loads(json.dumps(sent)) == sent


def test_spot_is_one_time_and_its_request_is_tagged_too() -> None:
    sent = request(Ec2Spec(spot=True))
    assert sent["InstanceMarketOptions"]["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }
    assert "spot-instances-request" in [s["ResourceType"] for s in sent["TagSpecifications"]]
    assert "MaxPrice" not in json.dumps(sent)


def test_by_a_private_address_no_public_one_is_asked_for() -> None:
    assert request(Ec2Spec(private_ip=True))["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False


@pytest.mark.parametrize(("image", "wanted", "size"), [(45, None, 45), (45, 100, 100), (45, 20, 45), (0, None, 8)])
def test_the_disk_is_never_smaller_than_the_image(image: int, wanted: int | None, size: int) -> None:
    sent = request(Ec2Spec(volume_gb=wanted), root_gb=image)
    assert sent["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == size


def test_without_a_subnet_the_zone_is_named_instead() -> None:
    sent = request(slot=Slot("g4dn.xlarge", "us-east-1b"))
    assert sent["Placement"] == {"AvailabilityZone": "us-east-1b"}
    assert sent["SecurityGroupIds"] == ["sg-1"] and "NetworkInterfaces" not in sent


def test_each_place_has_its_own_token_and_always_the_same() -> None:
    slots = [Slot(t, z) for t in ("g4dn.xlarge", "g6.xlarge") for z in ZONES]
    tokens = [client_token("feed", slot) for slot in slots]
    assert len(set(tokens)) == 10 and all(len(t) <= 64 and t.isascii() for t in tokens)
    assert tokens == [client_token("feed", slot) for slot in slots]
    assert not set(tokens) & {client_token("beef", slot) for slot in slots}


def test_places_are_asked_in_stated_order_once_each_and_in_one_vpc() -> None:
    zones = (Place(zone="a", subnet="s1", vpc="v"), Place(zone="a", subnet="s2", vpc="v"))
    other = (Place(zone="b", subnet="s3", vpc="v"), Place(zone="c", subnet="s4", vpc="w"))
    found = slots_of(OfferDetails(candidates=(Launchable(type="t1", zones=zones), Launchable(type="t2", zones=other))))
    assert [(s.type, s.zone, s.subnet) for s in found] == [("t1", "a", "s1"), ("t2", "b", "s3")]
