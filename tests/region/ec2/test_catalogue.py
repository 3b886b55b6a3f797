"""The catalogue: GPU types of a Region with prices, spot, quota and zones; the shipped table without an account."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cloudtrain.core import disk
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from tests.unit.provider.ec2.offer.test_catalogue import row, survey

Opens = Callable[..., Region]
Connects = Callable[..., Clients]


def test_the_types_of_a_region(region_of: Opens, clients_of: Connects) -> None:
    region = region_of()
    clients = clients_of(region)
    found = survey(clients)
    json.dumps(found.to_dict())
    one = row(found, "g4dn.xlarge")
    assert (one.gpu, one.vcpus, one.memory_gib, one.arch) == ("1x T4 16 GB", 4, 16.0, "x86_64")
    assert one.price_per_hour == pytest.approx(0.535932, abs=1e-5)
    assert one.spot_per_hour is not None
    assert 0 < one.spot_per_hour < 0.536
    assert (one.quota_granted, one.quota_free) == (192, 192)
    assert one.zones == tuple(f"us-east-1{letter}" for letter in "abcdf")
    names = [one.type for one in found.rows]
    assert not [name for name in names if name.startswith(("g6f", "gr6f", "g4ad", "p3"))]
    prices = [one.price_per_hour for one in found.rows if one.price_per_hour is not None]
    assert prices == sorted(prices)
    assert names.index("g4dn.xlarge") < names.index("p5.48xlarge") < names.index("p6-b200.48xlarge")
    assert (found.price_age_days, found.warnings) == (126, ())


def test_what_runs_takes_from_the_quota_that_is_free(region_of: Opens, clients_of: Connects) -> None:
    clients = clients_of(region_of(quotas={"L-DB2E81BA": 8.0}))
    image = clients.ec2.describe_images(Filters=[{"Name": "name", "Values": ["Deep*"]}])["Images"][0]["ImageId"]
    clients.ec2.run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)
    one = row(survey(clients, gpu="L4"), "g6.xlarge")
    assert (one.quota_granted, one.quota_free) == (8, 4)


def test_a_refresh_asks_the_pricing_api_and_an_emulated_one_leaves_no_trace(
    region_of: Opens, clients_of: Connects
) -> None:
    region = region_of(name="us-east-1")
    found = survey(clients_of(region), gpu="T4", refresh=True)
    assert len(region.calls("GetProducts")) == len(found.rows)
    assert row(found, "g4dn.xlarge").price_per_hour == pytest.approx(0.535932, abs=1e-5)
    assert found.price_age_days == 0
    assert "Pricing API of 2026-11-23" in found.price_note
    assert not (disk.cache_dir() / "prices").exists()


def test_another_region_says_whose_prices_these_are(region_of: Opens, clients_of: Connects) -> None:
    found = survey(clients_of(region_of(name="eu-west-1")), gpu="T4")
    assert row(found, "g4dn.xlarge").estimate
    assert "prices of us-east-1 as an estimate" in found.price_note


def test_what_may_not_be_asked_is_a_warning(region_of: Opens, rejecting: Any) -> None:
    clients = rejecting(
        region_of(),
        GetServiceQuota="AccessDeniedException",
        GetProducts="AccessDeniedException",
        DescribeSpotPriceHistory="UnauthorizedOperation",
        DescribeInstances="UnauthorizedOperation",
    )
    found = survey(clients, gpu="T4", refresh=True)
    one = row(found, "g4dn.xlarge")
    assert (one.spot_per_hour, one.quota_free, one.price_per_hour) == (None, None, pytest.approx(0.535932, abs=1e-5))
    text = " ".join(found.warnings)
    for right in ("GetServiceQuota", "GetProducts", "DescribeSpotPriceHistory", "DescribeInstances"):
        assert right in text
