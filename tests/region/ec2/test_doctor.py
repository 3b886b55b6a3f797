"""The doctor over the emulated region: every check, its fix when it fails, and nothing created."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2 import doctor, tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account
from tests.unit.provider.ec2.test_doctor import of, run, the

Opens = Callable[..., Region]
Connects = Callable[..., Clients]


def changes(region: Region) -> list[dict[str, Any]]:
    """Calls that changed something."""
    reads = ("Describe", "Get", "List")
    return [call for call in region.calls() if not call["action"].startswith(reads) and not _dry(call)]


def _dry(call: dict[str, Any]) -> bool:
    return "DryRun" in str(call)


def test_a_sound_account_is_all_ok_and_nothing_is_created(region_of: Opens, clients_of: Connects) -> None:
    region = region_of()
    found = run(clients_of(region))
    assert {check.status for check in found} == {"ok"}, found
    assert [check.name for check in found] == [
        "packages",
        "aws",
        "region",
        "type",
        "price",
        "quota",
        "image",
        "disk",
        "network",
        "rights",
        "leftovers",
    ]
    assert region.account not in str(found)
    assert "192 of 192 vCPU free" in the(found, "quota").message
    assert "not encrypted by default" in the(found, "disk").message
    assert "126 days old" in the(found, "price").message
    assert the(found, "rights").message == "RunInstances, CreateSecurityGroup, TerminateInstances: trial call allowed"
    assert not any(region.inventory().values())
    assert not changes(region)


def test_a_key_of_the_accounts_own_for_new_disks_is_named(region_of: Opens, clients_of: Connects) -> None:
    region = region_of("default-key:1234abcd", "tags-demanded:team")
    clients = clients_of(region)
    found = run(clients, tags={"team": "vision"})
    disk = the(found, "disk")
    assert (disk.status, "key/1234abcd" in disk.message, region.account in disk.message) == ("warn", True, False)
    assert "Encrypted disks" in (disk.fix or "") and the(found, "rights").status == "ok"
    lacking, _ = of(run(clients, private_ip=True), "rights")
    assert lacking.status == "fail" and "--tag" in str(lacking.fix)


def test_each_failure_has_its_fix_and_stops_no_other(region_of: Opens, clients_of: Connects) -> None:
    region = region_of("quota:0", "no-default-vpc", "ssm-denied")
    found = run(clients_of(region))
    quota = the(found, "quota")
    assert quota.status == "fail"
    assert quota.fix == (
        "aws service-quotas request-service-quota-increase --service-code ec2"
        " --quota-code L-DB2E81BA --desired-value 4 --region us-east-1"
    )
    network = the(found, "network")
    assert network.status == "fail"
    assert "create-default-vpc" in (network.fix or "")
    assert the(found, "image").status == "warn"
    assert the(found, "rights").status == "warn"
    assert the(found, "leftovers").status == "ok"


@pytest.mark.parametrize("name", ["g4dn.xlrge", "g4ad.xlarge", "m5.large"])
def test_a_type_that_cannot_be_used(region_of: Opens, clients_of: Connects, name: str) -> None:
    found = run(clients_of(region_of()), name, "g4dn.xlarge")
    bad, good = of(found, "type")
    assert (bad.status, good.status) == ("fail", "ok")
    assert bad.fix
    assert the(found, "quota").status == "ok"


@pytest.mark.parametrize("operation", ["RunInstances", "CreateSecurityGroup"])
def test_a_right_that_is_missing_is_named(region_of: Opens, rejecting: Any, operation: str) -> None:
    message = f"You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/s is not authorized to perform: ec2:{operation} on resource: x because no identity-based policy allows it"  # noqa: E501
    clients = rejecting(region_of(), message=message, status=403, **{operation: "UnauthorizedOperation"})
    bad, good = of(run(clients), "rights")
    assert bad.status == "fail"
    assert f"ec2:{operation}" in bad.message
    assert "iam-policy.json" in (bad.fix or "")
    assert (good.status, operation in good.message) == ("ok", False)


def test_terminating_is_proved_on_an_own_instance_only(region_of: Opens, clients_of: Connects, rejecting: Any) -> None:
    region = region_of()
    denied = rejecting(region, status=403, TerminateInstances="UnauthorizedOperation")
    unproved, _ = of(run(denied), "rights")
    assert (unproved.status, "could not be proved" in unproved.message) == ("warn", True)
    leave_instance(region, clients_of(region), ends_in=3600)
    lacking, _ = of(run(denied), "rights")
    assert (lacking.status, "TerminateInstances" in lacking.message) == ("fail", True)


def leave_instance(region: Region, clients: Clients, *, ends_in: float) -> str:
    """An instance that carries our mark, as a run that was forgotten leaves it."""
    [image] = clients.ec2.describe_images(
        Filters=[{"Name": "name", "Values": ["Deep Learning OSS*PyTorch 2.12 (Ubuntu 24.04)*"]}]
    )["Images"]
    marks = tags.tags_of_run("wide-heron", "t", account.identify(clients).owner, time.time() + ends_in)
    made = clients.ec2.run_instances(
        ImageId=image["ImageId"],
        InstanceType="g4dn.xlarge",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=tags.specifications(marks, "instance", "volume"),  # type: ignore[arg-type]
    )
    return made["Instances"][0]["InstanceId"]


def test_leftovers_are_shown_with_their_price(region_of: Opens, clients_of: Connects) -> None:
    region = region_of()
    clients = clients_of(region)
    instance_id = leave_instance(region, clients, ends_in=3600)
    [found] = of(run(clients, now=datetime.now(UTC)), "leftovers")
    assert found.status == "warn"
    for part in (instance_id, "g4dn.xlarge", "$0.536 an hour", "of run wide-heron", "ends itself in"):
        assert part in found.message
    assert found.fix == "cloudtrain stop wide-heron"


def test_an_instance_beyond_its_time_is_a_failure(region_of: Opens, clients_of: Connects) -> None:
    region = region_of()
    clients = clients_of(region)
    leave_instance(region, clients, ends_in=-600)
    [found] = of(run(clients, now=datetime.now(UTC)), "leftovers")
    assert (found.status, found.fix) == ("fail", "cloudtrain clean")
    assert "its time ended" in found.message


def test_a_forgotten_volume_and_group_are_shown(region_of: Opens, clients_of: Connects) -> None:
    clients = clients_of(region_of())
    marks: Any = tags.tags_of_run("wide-heron", "t", account.identify(clients).owner, time.time())
    clients.ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=45,
        TagSpecifications=tags.specifications(marks, "volume"),  # type: ignore[arg-type]
    )
    [vpc] = clients.ec2.describe_vpcs()["Vpcs"]
    clients.ec2.create_security_group(
        GroupName="g",
        Description="d",
        VpcId=vpc["VpcId"],
        TagSpecifications=tags.specifications(marks, "security-group"),  # type: ignore[arg-type]
    )
    volume, group = of(run(clients), "leftovers")
    assert "about $3.60 a month" in volume.message
    assert "costs nothing" in group.message


def test_a_quota_and_a_route_that_may_not_be_read_are_warnings(region_of: Opens, rejecting: Any) -> None:
    clients = rejecting(
        region_of(), status=403, GetServiceQuota="AccessDeniedException", DescribeRouteTables="UnauthorizedOperation"
    )
    found = run(clients)
    assert the(found, "quota").status == "warn"
    assert the(found, "network").status == "warn"
    assert the(found, "rights").status == "ok"


def test_one_look_up_that_fails_stops_no_other(region_of: Opens, rejecting: Any) -> None:
    found = run(rejecting(region_of(), status=403, DescribeImages="UnauthorizedOperation"))
    assert (the(found, "image").status, "DescribeImages" in the(found, "image").message) == ("fail", True)
    assert the(found, "network").status == "ok"
    assert the(found, "leftovers").status == "ok"


def test_prices_that_are_old_or_anothers_are_warnings(region_of: Opens, clients_of: Connects) -> None:
    old = the(run(clients_of(region_of()), now=datetime(2027, 6, 1, tzinfo=UTC)), "price")
    assert (old.status, old.fix) == ("warn", "cloudtrain instances --refresh")
    other = the(run(clients_of(region_of(name="eu-west-1"))), "price")
    assert other.status == "warn"
    assert "us-east-1's, as an estimate for eu-west-1" in other.message


def test_a_free_plan_is_told_with_its_credit(
    monkeypatch: pytest.MonkeyPatch, region_of: Opens, clients_of: Connects
) -> None:
    # An emulated Region has no plan to ask for; here its answer is the one of a real free-plan account.
    clients = clients_of(region_of())
    plan = doctor.account.AccountPlan(kind="FREE", credit_usd=87.4)
    monkeypatch.setattr(doctor.account, "plan", lambda clients: plan)
    monkeypatch.setattr(type(clients), "loopback", False)
    check = the(run(clients), "plan")
    assert (check.status, "$87.40 credit" in check.message) == ("warn", True)
