"""A survey over the emulated region: what is offered, what is refused and why, and how many calls it takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from cloudtrain.core.errors import (
    CloudtrainError,
    ConnectionFailed,
    ExitCode,
    QuotaExceeded,
    Refused,
    SignInError,
    UsageError,
)
from cloudtrain.core.plan import CodeSummary, make_plan
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from tests.unit.provider.ec2.offer.test_offers import Rejects, Specs, refusal, survey

Opens = Callable[..., Region]
Connects = Callable[..., Clients]


def test_an_offer_has_everything_that_the_launch_needs(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    region = region_of()
    offer = survey(spec_of(), clients_of(region))
    details = json.loads(json.dumps(offer.details.to_dict()))
    assert (details["region"], details["arch"], details["market"], details["user"]) == (
        "us-east-1",
        "x86_64",
        "on-demand",
        "ubuntu",
    )
    assert "PyTorch 2.12 (Ubuntu 24.04)" in details["image_name"]
    assert (details["root_gb"], details["root_device"]) == (45, "/dev/sda1")
    [candidate] = details["candidates"]
    assert (candidate["type"], candidate["vcpus"]) == ("g4dn.xlarge", 4)
    assert candidate["price_per_hour"] == pytest.approx(0.526 + 0.005 + 45 * 0.08 / 730, abs=1e-5)
    assert [place["zone"] for place in candidate["zones"]] == [f"us-east-1{letter}" for letter in "abcdf"]
    assert all(place["subnet"].startswith("subnet-") for place in candidate["zones"])
    [shown] = offer.candidates
    assert (shown.gpu, shown.vcpus, shown.memory_gib) == ("1x T4 16 GB", 4, 16.0)
    assert (shown.price_per_hour, shown.most_per_hour) == (candidate["price_per_hour"], None)
    assert offer.warnings == ()
    assert region.account not in json.dumps([offer.account, details])
    assert (offer.account or "").startswith(f"account ...{region.account[-4:]}, us-east-1")
    assert "126 days old" in (offer.price_note or "")


def test_a_survey_is_lean_reads_only_and_asks_nothing_twice(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    region = region_of()
    survey(spec_of("g4dn.xlarge", "g6.xlarge"), clients_of(region))
    calls = Counter(call["action"] for call in region.calls())
    pages = calls.pop("GetParametersByPath")
    assert calls == dict.fromkeys(
        (
            "GetCallerIdentity",
            "DescribeInstanceTypes",
            "DescribeInstanceTypeOfferings",
            "DescribeSubnets",
            "DescribeRouteTables",
            "DescribeInstances",
            "DescribeImages",
            "GetServiceQuota",
        ),
        1,
    )
    assert pages == 1


def test_types_stay_in_the_order_asked_for(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    offer = survey(spec_of("g6.xlarge", "g4dn.xlarge", "g6.xlarge"), clients_of(region_of()))
    assert [one.type for one in offer.candidates] == ["g6.xlarge", "g4dn.xlarge"]
    assert [one.type for one in offer.details.candidates] == ["g6.xlarge", "g4dn.xlarge"]


def test_an_arm_type_gets_an_arm_image(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    offer = survey(spec_of("g5g.xlarge"), clients_of(region_of()))
    assert offer.details.arch == "arm64"
    assert "ARM64" in offer.details.image_name


def test_types_of_two_architectures_do_not_share_a_run(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    offer = survey(spec_of("g4dn.xlarge", "g5g.xlarge"), clients_of(region_of()))
    assert [one.type for one in offer.candidates] == ["g4dn.xlarge"]
    assert "arm64" in offer.warnings[0]


def test_a_larger_disk_is_priced_and_a_smaller_one_is_raised(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    clients = clients_of(region_of())
    large = survey(spec_of(volume_gb=200), clients)
    assert large.details.root_gb == 200
    assert large.candidates[0].price_per_hour == pytest.approx(0.531 + 200 * 0.08 / 730, abs=1e-5)
    small = survey(spec_of(volume_gb=10), clients)
    assert small.details.root_gb == 45
    assert any("45 GB" in warning for warning in small.warnings)


def test_spot_shows_the_price_now_and_promises_the_on_demand_price(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    spec = spec_of(spot=True)
    offer = survey(spec, clients_of(region_of()))
    [candidate] = offer.candidates
    extras = 0.005 + 45 * 0.08 / 730
    assert offer.details.market == "spot"
    assert candidate.price_per_hour is not None
    assert candidate.price_per_hour < 0.526 + extras
    assert candidate.most_per_hour == pytest.approx(0.526 + extras, abs=1e-5)
    plan = make_plan(spec, offer, CodeSummary(files=1, bytes=1))
    assert plan.at_most_usd == pytest.approx(2 * (0.526 + extras), abs=0.011)
    assert plan.price_per_hour == candidate.price_per_hour


def test_another_regions_prices_are_marked_as_an_estimate(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    region = region_of(name="eu-west-1")
    offer = survey(spec_of(), clients_of(region))
    assert "estimate" in (offer.price_note or "")
    assert any("us-east-1" in warning and "--refresh" in warning for warning in offer.warnings)


# What is refused, each with its own message, code and exit code.


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("g4dn.xlrge", UsageError, "unknown_type"),
        ("m5.large", Refused, "no_cuda"),
        ("g4ad.xlarge", Refused, "no_cuda"),
        ("dl1.24xlarge", Refused, "no_cuda"),
        ("g6f.xlarge", Refused, "no_cuda"),
        ("p3.2xlarge", Refused, "no_cuda"),
        ("p3dn.24xlarge", Refused, "no_cuda"),
        ("p6-b200.48xlarge", Refused, "no_price"),
    ],
)
def test_a_type_that_cannot_train_is_refused(
    region_of: Opens, clients_of: Connects, spec_of: Specs, name: str, kind: type[CloudtrainError], code: str
) -> None:
    error = refusal(spec_of(name), clients_of(region_of(quotas={"L-417A185B": 1000.0})))
    assert isinstance(error, kind)
    assert error.code == code
    assert error.consequence == "nothing was created"


def test_a_refused_type_is_left_out_with_its_reason_if_another_will_do(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    region = region_of(quotas={"L-417A185B": 0.0})
    offer = survey(spec_of("g4ad.xlarge", "p4d.24xlarge", "g4dn.xlarge"), clients_of(region))
    assert [one.type for one in offer.candidates] == ["g4dn.xlarge"]
    assert "g4ad.xlarge" in offer.warnings[0]
    assert "p4d.24xlarge needs 96 vCPU, the quota allows 0" in offer.warnings[1]


def test_if_all_are_refused_the_first_reason_is_told(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    error = refusal(spec_of("m5.large", "g4ad.xlarge"), clients_of(region_of()))
    assert "m5.large" in error.message


def test_a_typing_mistake_is_told_although_another_type_would_do(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    error = refusal(spec_of("g4dn.xlarge", "g6.xlrge"), clients_of(region_of()))
    assert error.exit_code is ExitCode.USAGE


def test_a_type_that_the_region_does_not_offer(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    region = region_of(name="us-west-1")
    error = refusal(spec_of("g6.xlarge"), clients_of(region))
    assert (error.code, error.exit_code) == ("not_offered", ExitCode.REFUSED)
    assert "us-west-1" in error.message


def test_a_type_without_a_known_price_is_refused(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    error = refusal(spec_of("g6e.12xlarge"), clients_of(region_of(quotas={"L-DB2E81BA": 500.0})))
    assert error.code == "no_price"
    assert "--refresh" in (error.hint or "")


def test_quota_zero(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    region = region_of("quota:0")
    error = refusal(spec_of(), clients_of(region))
    assert isinstance(error, QuotaExceeded)
    assert (error.exit_code, error.code) == (ExitCode.REFUSED, "quota")
    assert "--quota-code L-DB2E81BA --desired-value 4 --region us-east-1" in (error.hint or "")
    spot = refusal(spec_of(spot=True), clients_of(region))
    assert "--quota-code L-3819A6DF" in (spot.hint or "")


def test_what_runs_already_is_counted(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    region = region_of(quotas={"L-DB2E81BA": 6.0})
    clients = clients_of(region)
    image = survey(spec_of(), clients).details.image_id
    clients.ec2.run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)
    error = refusal(spec_of(), clients)
    assert isinstance(error, QuotaExceeded)
    assert "4 in use" in error.message
    assert "--desired-value 8" in (error.hint or "")
    assert survey(spec_of(spot=True), clients).candidates, "spot has a quota of its own"


def test_no_default_vpc_lists_the_subnets(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    region = region_of("no-default-vpc")
    clients = clients_of(region)
    bare = refusal(spec_of(), clients)
    assert (bare.code, bare.exit_code) == ("no_vpc", ExitCode.REFUSED)
    assert "create-default-vpc" in (bare.hint or "")
    subnet = own_subnet(clients)
    error = refusal(spec_of(), clients)
    assert "--subnet" in (error.hint or "")
    assert subnet in (error.detail or "")


def own_subnet(clients: Clients, *, routed: bool = False) -> str:
    """A VPC of the user's own with one subnet, whose machines get no address unless they ask for one."""
    vpc = clients.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = clients.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1b")["Subnet"]
    if routed:
        gateway = clients.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        clients.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        table = clients.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        clients.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        clients.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])
    return subnet["SubnetId"]


def test_a_subnet_of_the_users_own(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    clients = clients_of(region_of())
    subnet = own_subnet(clients, routed=True)
    offer = survey(spec_of(subnet=subnet), clients)
    [place] = offer.details.candidates[0].zones
    assert (place.zone, place.subnet) == ("us-east-1b", subnet)


def test_a_subnet_without_a_way_out_is_refused_before_launch(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    clients = clients_of(region_of())
    error = refusal(spec_of(subnet=own_subnet(clients)), clients)
    assert (error.code, error.exit_code) == ("no_public_ip", ExitCode.REFUSED)
    assert "Internet gateway" in error.message


def test_default_subnets_without_public_addresses_are_refused_before_launch(
    region_of: Opens, clients_of: Connects, spec_of: Specs
) -> None:
    error = refusal(spec_of(), clients_of(region_of("no-public-ip")))
    assert (error.code, error.exit_code) == ("no_public_ip", ExitCode.REFUSED)
    assert "modify-subnet-attribute" in (error.hint or "")


def test_an_unknown_subnet(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    error = refusal(spec_of(subnet="subnet-0123456789abcdef0"), clients_of(region_of()))
    assert (error.code, error.exit_code) == ("no_subnet", ExitCode.USAGE)


def test_a_subnet_in_a_zone_that_does_not_sell_the_type(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    clients = clients_of(region_of())
    [zone_e] = clients.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1e"]}])[
        "Subnets"
    ]
    error = refusal(spec_of(subnet=zone_e["SubnetId"]), clients)
    assert error.code == "not_offered"
    assert "us-east-1a" in (error.hint or "")


def test_aws_out_of_reach(spec_of: Specs, rejecting: Rejects) -> None:
    # Port 9 of this computer is closed; `rejecting` only takes the pauses between the SDK's attempts away.
    rejecting()
    clients = Clients(None, "us-east-1", "http://127.0.0.1:9", ("a", "b"))
    error = refusal(spec_of(), clients)
    assert isinstance(error, ConnectionFailed)
    assert error.code == "aws_unreachable"


@pytest.mark.parametrize("operation", ["DescribeInstanceTypes", "DescribeSubnets", "DescribeInstanceTypeOfferings"])
def test_throttling_that_does_not_end(region_of: Opens, rejecting: Rejects, spec_of: Specs, operation: str) -> None:
    error = refusal(spec_of(), rejecting(region_of(), status=503, **{operation: "RequestLimitExceeded"}))
    assert (error.code, error.exit_code) == ("throttled", ExitCode.CONNECTION)


def test_throttling_that_ends_is_not_noticed(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    region = region_of("error:RequestLimitExceeded:1@DescribeInstanceTypes")
    assert survey(spec_of(), clients_of(region)).candidates


@pytest.mark.parametrize("operation", ["DescribeInstanceTypes", "DescribeSubnets", "DescribeImages"])
def test_a_missing_right_is_named(region_of: Opens, rejecting: Rejects, spec_of: Specs, operation: str) -> None:
    clients = rejecting(region_of(), status=403, **{operation: "UnauthorizedOperation"})
    error = refusal(spec_of(), clients)
    assert isinstance(error, SignInError)
    assert (error.code, operation in error.message) == ("denied", True)


# Rights that may be missing.


def test_a_quota_that_may_not_be_read_is_a_warning(region_of: Opens, rejecting: Rejects, spec_of: Specs) -> None:
    offer = survey(spec_of(), rejecting(region_of(), GetServiceQuota="AccessDeniedException"))
    assert any("servicequotas:GetServiceQuota" in warning for warning in offer.warnings)


def test_awss_default_quota_holds_where_the_account_has_no_value(
    region_of: Opens, rejecting: Rejects, spec_of: Specs
) -> None:
    region = region_of()
    error = refusal(spec_of(), rejecting(region, GetServiceQuota="NoSuchResourceException"))
    assert isinstance(error, QuotaExceeded), "AWS's default for a GPU family is 0"
    assert len(region.calls("GetAWSDefaultServiceQuota")) == 1


def test_an_answer_that_is_no_answer(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    error = refusal(spec_of(), clients_of(region_of("html500@DescribeSubnets:9")))
    assert (error.code, error.exit_code) == ("aws_unavailable", ExitCode.CONNECTION)


def test_usage_routes_and_spot_prices_that_may_not_be_read(
    region_of: Opens, rejecting: Rejects, spec_of: Specs
) -> None:
    denied = dict.fromkeys(
        ("DescribeInstances", "DescribeRouteTables", "DescribeSpotPriceHistory"), "UnauthorizedOperation"
    )
    offer = survey(spec_of(spot=True), rejecting(region_of(), status=403, **denied))
    [candidate] = offer.candidates
    assert "spot price not known" in candidate.note
    assert candidate.price_per_hour == pytest.approx(0.526 + 0.005 + 45 * 0.08 / 730, abs=1e-5)


# An instance that is there already.


def test_an_existing_instance(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    clients = clients_of(region_of())
    image = survey(spec_of(), clients).details.image_id
    made = clients.ec2.run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)
    instance_id = made["Instances"][0]["InstanceId"]
    offer = survey(spec_of(instance_id=instance_id), clients)
    assert offer.details.instance_id == instance_id
    assert (offer.details.user, offer.details.image_id) == ("ubuntu", image)
    assert (offer.candidates[0].type, offer.candidates[0].price_per_hour) == ("g4dn.xlarge", 0.526)
    clients.ec2.terminate_instances(InstanceIds=[instance_id])
    clients.ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance_id], WaiterConfig={"Delay": 1})
    ended = refusal(spec_of(instance_id=instance_id), clients)
    assert (ended.code, ended.exit_code) == ("no_instance", ExitCode.REFUSED)


def test_an_instance_that_does_not_exist(region_of: Opens, clients_of: Connects, spec_of: Specs) -> None:
    error = refusal(spec_of(instance_id="i-0123456789abcdef0"), clients_of(region_of()))
    assert error.exit_code is ExitCode.USAGE
