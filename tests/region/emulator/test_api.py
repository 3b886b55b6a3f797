"""The EC2 API of the emulated region: what moto alone gets wrong or does not have."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloudtrain.emulator import service
from cloudtrain.emulator.aws.core import Timing


def code(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_a_token_launches_once_and_again_in_another_zone(account):
    zone_a, zone_b = ({"Placement": {"AvailabilityZone": f"us-east-1{z}"}} for z in "ab")
    first = account.launch(ClientToken="run-1", **zone_a)
    assert account.launch(ClientToken="run-1", **zone_a) == first
    assert account.launch(ClientToken="run-1", **zone_b) != first
    regional = account.launch(ClientToken="run-1")
    assert regional != first and account.launch(ClientToken="run-1") == regional
    effects = [call["effect"] for call in account.region.calls("RunInstances")]
    assert effects == [True, False, True, True, False]
    assert len(account.region.inventory()["instances"]) == 3


def test_a_token_with_other_parameters_is_refused(account):
    account.launch(ClientToken="run-1")
    assert code(lambda: account.launch(ClientToken="run-1", InstanceType="g5.xlarge")) == "IdempotentParameterMismatch"
    assert len(account.region.inventory()["instances"]) == 1


def test_states_take_their_time_and_the_address_comes_with_running(open_account):
    account = open_account(timing=Timing(pending_s=2.0, boot_s=0, stopping_s=2.0, shutting_down_s=2.0, grace_s=0.2))
    answer = account.ec2.run_instances(
        ImageId=account.image(), InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1, ClientToken="t",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "cloudtrain:run", "Value": "x"}]}],
    )["Instances"][0]  # fmt: skip
    assert answer["State"]["Name"] == "pending" and not answer.get("PublicIpAddress")
    instance = answer["InstanceId"]
    seen = account.look(instance)
    assert seen["State"] == {"Code": 0, "Name": "pending"} and not seen.get("PublicIpAddress")
    running = account.wait(instance, "running")
    assert running["PublicIpAddress"].startswith("127.")
    tags = {t["Key"]: t["Value"] for t in running["Tags"]}
    assert tags["cloudtrain:run"] == "x" and int(tags["emulator:ssh-port"]) > 1023
    found = account.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["t"]}])["Reservations"]
    assert found[0]["Instances"][0]["InstanceId"] == instance
    stopping = account.ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
    assert stopping["PreviousState"]["Name"] == "running" and stopping["CurrentState"]["Name"] == "stopping"
    assert account.look(instance)["State"]["Name"] == "stopping"
    stopped = account.wait(instance, "stopped")
    assert not stopped.get("PublicIpAddress") and stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert account.region.inventory()["volumes"]
    account.ec2.terminate_instances(InstanceIds=[instance])
    assert account.look(instance)["State"]["Name"] == "shutting-down"
    gone = account.wait(instance, "terminated")
    assert gone["StateTransitionReason"].startswith("User initiated (")
    account.ec2.terminate_instances(InstanceIds=[instance])
    assert account.look(instance)["State"]["Name"] == "terminated"
    assert not account.region.inventory()["volumes"] and not account.region.inventory()["instances"]


def test_address_and_port_change_with_a_stop(account):
    instance = account.launch()
    before = account.address(instance)
    account.ec2.stop_instances(InstanceIds=[instance])
    account.wait(instance, "stopped")
    account.ec2.start_instances(InstanceIds=[instance])
    assert account.address(instance) != before


def test_a_terminated_instance_loses_its_tags_and_then_vanishes(open_account):
    timing = Timing(pending_s=0, boot_s=0, shutting_down_s=0, tags_fade_s=0.3, forget_s=1.0)
    account = open_account(timing=timing)
    instance = account.launch(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "k", "Value": "v"}]}])
    account.ec2.terminate_instances(InstanceIds=[instance])
    account.wait(instance, "terminated")
    deadline = time.monotonic() + 20
    while account.look(instance).get("Tags"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(ClientError) as caught:
        while time.monotonic() < deadline:
            account.look(instance)
    assert caught.value.response["Error"]["Code"] == "InvalidInstanceID.NotFound"


def test_image_parameters_name_real_images_of_both_architectures(account):
    for arch in ("x86_64", "arm64"):
        pages = account.aws("ssm").get_paginator("get_parameters_by_path")
        found = [
            p
            for page in pages.paginate(Path=f"/aws/service/deeplearning/ami/{arch}", Recursive=True)
            for p in page["Parameters"]
        ]
        ages = {p["Name"].split("/")[-3]: time.time() - p["LastModifiedDate"].timestamp() for p in found}
        assert ages["oss-nvidia-driver-gpu-pytorch-2.7-ubuntu-22.04"] > 180 * 86400, "the old line is frozen"
        assert ages["oss-nvidia-driver-gpu-pytorch-2.12-ubuntu-24.04"] < 60 * 86400
        images = account.ec2.describe_images(ImageIds=[p["Value"] for p in found])["Images"]
        assert len(images) == len(found) and {i["Architecture"] for i in images} == {arch}
        disk = images[0]["BlockDeviceMappings"][0]
        assert disk["DeviceName"] == images[0]["RootDeviceName"] and disk["Ebs"]["VolumeSize"] >= 30
        assert {i["ImageOwnerAlias"] for i in images} == {"amazon"}
    names = ["Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.* (Ubuntu 24.04) *"]
    filters = [{"Name": "name", "Values": names}, {"Name": "architecture", "Values": ["x86_64"]}]
    found = account.ec2.describe_images(Owners=["amazon"], Filters=filters)["Images"]
    assert {i["Name"].split()[8] for i in found} == {"2.11", "2.12"} and all(i["CreationDate"] for i in found)


def test_quota_price_and_spot_price(account):
    quotas = account.aws("service-quotas")
    assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]["Value"] == 192
    assert quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]["Value"] == 0
    assert code(lambda: quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-NONE")) == "NoSuchResourceException"
    filters = {
        "instanceType": "g4dn.xlarge",
        "regionCode": "us-east-1",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
    }
    entries = account.aws("pricing").get_products(
        ServiceCode="AmazonEC2", Filters=[{"Type": "TERM_MATCH", "Field": f, "Value": v} for f, v in filters.items()]
    )["PriceList"]
    (term,) = json.loads(entries[0])["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert float(dimension["pricePerUnit"]["USD"]) == 0.526
    history = account.ec2.describe_spot_price_history(InstanceTypes=["g4dn.xlarge"], ProductDescriptions=["Linux/UNIX"])
    assert {h["AvailabilityZone"][-1] for h in history["SpotPriceHistory"]} == set("abcdf")
    assert all(0.1 < float(h["SpotPrice"]) < 0.526 for h in history["SpotPriceHistory"])
    assert account.aws("sts").get_caller_identity()["Account"]
    assert "eu-west-1" in {r["RegionName"] for r in account.ec2.describe_regions()["Regions"]}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"InstanceType": "g99.xlarge"}, "InvalidParameterValue"),
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "nothing"}, "InvalidAMIID.Malformed"),
        ({"Placement": {"AvailabilityZone": "us-east-1e"}}, "Unsupported"),
        ({"Placement": {"AvailabilityZone": "eu-west-1a"}}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidUserData.Malformed"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"InstanceType": "g5g.xlarge"}, "InvalidParameterValue"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 20}}]},
            "InvalidBlockDeviceMapping",
        ),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_wrong_launch_is_refused_and_makes_nothing(account, wrong, expected):
    assert code(lambda: account.launch(**wrong)) == expected
    left = account.region.inventory()
    assert not left["instances"] and not left["volumes"]


def test_the_root_volume_has_the_images_size_and_the_launchs_tags(account):
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "cloudtrain:managed", "Value": "true"}]}
        for kind in ("instance", "volume")
    ]
    disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeType": "gp3", "DeleteOnTermination": True}}]
    account.launch(TagSpecifications=tags, BlockDeviceMappings=disk)
    (volume,) = account.ec2.describe_volumes(Filters=[{"Name": "tag:cloudtrain:managed", "Values": ["true"]}])[
        "Volumes"
    ]
    assert (volume["Size"], volume["VolumeType"]) == (45, "gp3")
    account.launch(TagSpecifications=tags)
    assert [v["Size"] for v in account.ec2.describe_volumes()["Volumes"]] == [45, 45]


def test_quota_and_capacity_are_told_apart_and_free_zones_are_chosen(open_account):
    account = open_account("capacity:us-east-1a", quotas={"L-DB2E81BA": 8.0})
    with pytest.raises(ClientError) as full:
        account.launch(Placement={"AvailabilityZone": "us-east-1a"})
    assert full.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert full.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert account.look(account.launch())["Placement"]["AvailabilityZone"] == "us-east-1b"
    account.launch()
    assert code(account.launch) == "VcpuLimitExceeded"
    for instance in account.region.inventory()["instances"]:
        account.ec2.terminate_instances(InstanceIds=[instance["id"]])
    account.launch()


def test_a_spot_instance_has_a_request_and_cannot_be_stopped(account):
    instance = account.launch(InstanceMarketOptions={"MarketType": "spot"})
    seen = account.wait(instance, "running")
    assert seen["InstanceLifecycle"] == "spot" and seen["SpotInstanceRequestId"].startswith("sir-")
    (request,) = account.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[seen["SpotInstanceRequestId"]])[
        "SpotInstanceRequests"
    ]
    assert request["InstanceId"] == instance and request["State"] == "active"
    assert code(lambda: account.ec2.stop_instances(InstanceIds=[instance])) == "UnsupportedOperation"


def test_a_security_group_in_use_cannot_be_deleted(account):
    instance = account.launch()
    assert code(lambda: account.ec2.delete_security_group(GroupId=account.group())) == "DependencyViolation"
    account.ec2.terminate_instances(InstanceIds=[instance])
    account.wait(instance, "terminated")
    account.ec2.delete_security_group(GroupId=account.group())
    assert not any(account.region.inventory().values())


def test_shutdown_behaviour_and_user_data_can_be_changed_as_in_ec2(account):
    instance = account.launch()
    account.wait(instance, "running")
    account.ec2.modify_instance_attribute(InstanceId=instance, InstanceInitiatedShutdownBehavior={"Value": "stop"})
    told = account.ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert told["InstanceInitiatedShutdownBehavior"]["Value"] == "stop"
    assert (
        code(lambda: account.ec2.modify_instance_attribute(InstanceId=instance, UserData={"Value": b"x"}))
        == "IncorrectInstanceState"
    )


def test_what_is_not_emulated_is_an_aws_error_and_never_html(account):
    account.launch()

    def unknown() -> None:
        account.ec2.get_spot_placement_scores(TargetCapacity=1)

    assert code(unknown) == "InvalidAction"
    assert (
        code(lambda: account.ec2.describe_instances(Filters=[{"Name": "bogus", "Values": ["x"]}]))
        == "InvalidParameterValue"
    )
    assert code(lambda: account.aws("pricing").describe_services()) == "UnknownOperationException"
    assert code(lambda: account.ec2.describe_vpcs(DryRun=True)) == "DryRunOperation"


def test_the_record_names_every_call(account):
    account.launch(ClientToken="abc")
    (call,) = account.region.calls("RunInstances")
    assert call["service"] == "ec2" and call["region"] == "us-east-1" and call["status"] == 200
    assert call["parameters"]["ClientToken"] == "abc" and call["parameters"]["InstanceType"] == "g4dn.xlarge"
    told = json.loads((account.region.folder / "region.json").read_bytes())
    assert service.ask(told, "calls") == account.region.calls()
    assert len(service.ask(told, "inventory")["instances"]) == 1
    written = json.loads((account.region.folder / "inventory.json").read_bytes())
    assert len(written["instances"]) == 1


def test_two_regions_in_one_process_know_nothing_of_each_other(open_account):
    one, two = open_account(), open_account(timing=replace(Timing(), pending_s=0))
    one.launch()
    assert len(one.region.inventory()["instances"]) == 1 and not two.region.inventory()["instances"]
    assert not two.ec2.describe_instances()["Reservations"]
