"""Prices: the shipped table, its age, other Regions as an estimate, the Pricing API's strings, spot, the parts."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core import disk
from cloudtrain.core.errors import ConnectionFailed, SignInError
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import prices

TODAY = date(2026, 11, 23)


def product(*usd: str) -> str:
    """One entry of a PriceList as the Pricing API gives it: JSON in a string."""
    dimensions = {str(i): {"unit": "Hrs", "pricePerUnit": {"USD": one}} for i, one in enumerate(usd)}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"T1": {"priceDimensions": dimensions}}}})


class Pricing:
    """A pricing client that pages through the answers it is given, by type, and notes what it was asked."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = answers
        self.asked: list[dict[str, str]] = []

    def get_paginator(self, name: str) -> Pricing:
        assert name == "get_products"
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        assert request["ServiceCode"] == "AmazonEC2"
        assert all(one["Type"] == "TERM_MATCH" for one in request["Filters"])
        fields = {one["Field"]: one["Value"] for one in request["Filters"]}
        self.asked.append(fields)
        return [{"PriceList": self.answers.get(fields["instanceType"], [])}]


def test_the_shipped_table_is_dated_and_its_rates_are_marked() -> None:
    raw = json.loads((Path(prices.__file__).parent / "prices.json").read_text(encoding="utf-8"))
    assert (raw["as_of"], raw["region"], raw["currency"]) == ("2026-07-20", "us-east-1", "USD")
    assert raw["extras"]["verified"] is False
    assert all(row["usd_per_hour"] is None or 0.1 < row["usd_per_hour"] < 100 for row in raw["types"].values())


@pytest.mark.parametrize(
    ("name", "usd"), [("g4dn.xlarge", 0.526), ("g5.48xlarge", 16.288), ("g6.xlarge", 0.8048), ("p5.48xlarge", 55.04)]
)
def test_a_price_of_the_table_with_its_age(name: str, usd: float) -> None:
    found = prices.load("us-east-1").of(name, "us-east-1")
    assert found is not None
    assert (found.usd_per_hour, found.estimate, found.source) == (usd, False, "shipped table")
    assert found.age_days(TODAY) == 126


def test_a_region_without_prices_gets_an_estimate_that_says_whose_it_is() -> None:
    table = prices.load("eu-central-1")
    found = table.of("g4dn.xlarge", "eu-central-1")
    assert found is not None
    assert (found.estimate, found.region) == (True, "us-east-1")
    assert "prices of us-east-1 as an estimate" in table.note([found], TODAY)


def test_no_price_is_made_up() -> None:
    assert prices.load().of("p6-b200.48xlarge", "us-east-1") is None
    assert prices.load().of("no.such", "us-east-1") is None
    assert prices.load().note([], TODAY) == "no price is known"


def test_an_hour_is_instance_address_and_disk() -> None:
    cost = prices.load().hourly(0.526, 45)
    assert cost.disk == pytest.approx(45 * 0.08 / 730)
    assert cost.total == pytest.approx(0.526 + 0.005 + 45 * 0.08 / 730, abs=1e-6)
    assert cost.parts() == "instance $0.526 + public IPv4 $0.005 + 45 GB disk $0.005"
    assert "$0.0001" in prices.load().hourly(0.526, 1).parts()


def test_the_pricing_api_is_asked_with_every_filter_and_its_strings_are_read() -> None:
    api = Pricing({"g4dn.xlarge": [product("0.0000000000"), "not json", "[]", product("0.6580000000", "oops")]})
    assert prices.ask("g4dn.xlarge", "eu-central-1", api) == 0.658  # type: ignore[arg-type]
    assert api.asked == [
        {
            "regionCode": "eu-central-1",
            "instanceType": "g4dn.xlarge",
            "operatingSystem": "Linux",
            "preInstalledSw": "NA",
            "tenancy": "Shared",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
        }
    ]


@pytest.mark.parametrize("answer", [[], [product("0.0")], ["{}"], [json.dumps({"terms": {"OnDemand": {}}})]])
def test_an_answer_without_a_price_is_none(answer: list[str]) -> None:
    assert prices.ask("g4dn.xlarge", "us-east-1", Pricing({"g4dn.xlarge": answer})) is None  # type: ignore[arg-type]


def test_a_refresh_is_kept_and_wins_over_the_table() -> None:
    api = Pricing({"g4dn.xlarge": [product("0.658")], "g6.xlarge": []})
    fresh = prices.refresh(["g4dn.xlarge", "g6.xlarge"], "eu-central-1", api, today=TODAY)  # type: ignore[arg-type]
    again = prices.load("eu-central-1")
    for table in (fresh, again):
        found = table.of("g4dn.xlarge", "eu-central-1")
        assert found is not None
        assert (found.usd_per_hour, found.as_of, found.estimate, found.source) == (0.658, TODAY, False, "Pricing API")
        other = table.of("g6.xlarge", "eu-central-1")
        assert other is not None
        assert other.estimate
    assert prices.load("us-east-1").of("g4dn.xlarge", "us-east-1") == prices.load().of("g4dn.xlarge", "us-east-1")


def test_a_refresh_of_an_emulated_region_leaves_no_trace() -> None:
    api = Pricing({"g4dn.xlarge": [product("9.99")]})
    prices.refresh(["g4dn.xlarge"], "us-east-1", api, today=TODAY, keep=False)  # type: ignore[arg-type]
    assert not (disk.cache_dir() / "prices").exists()


NEGATIVE = '{"types": {"g4dn.xlarge": {"usd_per_hour": -1, "as_of": "2026-11-01"}}}'


@pytest.mark.parametrize("damage", ["", "[]", '{"types": {"g4dn.xlarge": 3}}', NEGATIVE])
def test_a_damaged_cache_counts_as_none(damage: str) -> None:
    folder = disk.cache_dir() / "prices"
    folder.mkdir(parents=True)
    (folder / "us-east-1.json").write_text(damage, encoding="utf-8")
    found = prices.load("us-east-1").of("g4dn.xlarge", "us-east-1")
    assert found is not None
    assert found.source == "shipped table"


def test_a_cache_older_than_the_table_is_not_used() -> None:
    api = Pricing({"g4dn.xlarge": [product("0.7")]})
    prices.refresh(["g4dn.xlarge"], "us-east-1", api, today=date(2025, 1, 1))  # type: ignore[arg-type]
    found = prices.load("us-east-1").of("g4dn.xlarge", "us-east-1")
    assert found is not None
    assert found.usd_per_hour == 0.526


def test_a_cache_that_cannot_be_written_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("", encoding="utf-8")
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(in_the_way))
    api = Pricing({"g4dn.xlarge": [product("0.658")]})
    table = prices.refresh(["g4dn.xlarge"], "us-east-1", api, today=TODAY)  # type: ignore[arg-type]
    assert table.of("g4dn.xlarge", "us-east-1") is not None


def test_the_pricing_api_denied_or_absent_is_told(rejecting: Any) -> None:
    for code, kind in (("AccessDeniedException", SignInError), ("ThrottlingException", ConnectionFailed)):
        clients: Clients = rejecting(GetProducts=code)
        with pytest.raises(kind):
            prices.ask("g4dn.xlarge", "us-east-1", clients.pricing)


def test_spot_prices_are_the_latest_of_each_zone() -> None:
    def row(zone: str, usd: str, hour: int, name: str = "g4dn.xlarge") -> dict[str, Any]:
        at = datetime(2026, 11, 23, hour, tzinfo=UTC)
        return {"InstanceType": name, "AvailabilityZone": zone, "SpotPrice": usd, "Timestamp": at}

    class Ec2:
        def get_paginator(self, name: str) -> Ec2:
            assert name == "describe_spot_price_history"
            return self

        def paginate(self, **request: Any) -> list[dict[str, Any]]:
            assert request["ProductDescriptions"] == ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"]
            return [
                {"SpotPriceHistory": [row("us-east-1a", "0.20", 1), row("us-east-1b", "0.30", 1)]},
                {"SpotPriceHistory": [row("us-east-1a", "0.25", 3), row("us-east-1a", "0.22", 2)]},
            ]

    found = prices.spot_prices(["g4dn.xlarge"], Ec2(), datetime(2026, 11, 23, tzinfo=UTC))  # type: ignore[arg-type]
    assert found == {"g4dn.xlarge": {"us-east-1a": 0.25, "us-east-1b": 0.30}}
