"""What an hour costs: a dated table that ships with the package, refreshed by the Pricing API, spot prices from EC2.

Nothing here is guessed: a type without a known price has none, and a price of another Region is marked as such.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtrain.core import disk
from cloudtrain.core.text import counted
from cloudtrain.provider.ec2.offer.types import InstanceType, shipped
from cloudtrain.provider.ec2.translate import translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_pricing import PricingClient
    from types_boto3_pricing.type_defs import FilterTypeDef

STALE_DAYS = 180
PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")
# Of the disk that the image which is chosen by default needs.
USUAL_DISK_GB = 45
# GetProducts allows few calls a second; more at once only meets throttling.
PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Price:
    """What one type costs.

    Attributes:
        usd_per_hour: the instance alone.
        as_of: day the figure was taken.
        region: whose price it is.
        estimate: it is another Region's, because this one's is not known.
        source: "shipped table" or "Pricing API".
    """

    usd_per_hour: float
    as_of: date
    region: str
    estimate: bool
    source: str

    def age_days(self, today: date) -> int:
        """Days since the figure was taken."""
        return max(0, (today - self.as_of).days)


@dataclass(frozen=True, slots=True)
class HourlyCost:
    """USD an hour of a running machine, by part. A run is billed for all three; transfer is not counted."""

    instance: float
    address: float
    disk: float
    disk_gb: int

    @property
    def total(self) -> float:
        """The sum."""
        return round(self.instance + self.address + self.disk, 6)

    def parts(self) -> str:
        """Human-readable: "instance $0.526 + public IPv4 $0.005 + 45 GB disk $0.005"."""
        address = f" + public IPv4 ${_short(self.address)}" if self.address else ""
        return f"instance ${_short(self.instance)}{address} + {self.disk_gb} GB disk ${_short(self.disk)}"


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices known here: the shipped table, and what was refreshed for some Region.

    Attributes:
        as_of: day of the shipped table.
        region: the Region of the shipped table.
        shipped: USD an hour by type.
        specs: facts of the types of the table, for when EC2 cannot be asked.
        address_per_hour: USD of a public IPv4 address.
        gp3_gb_month: USD of a GB of gp3 disk for a month of `hours_per_month`.
        fresh: prices of the Pricing API, by (Region, type).
    """

    as_of: date
    region: str
    shipped: Mapping[str, float]
    specs: Mapping[str, InstanceType]
    address_per_hour: float
    gp3_gb_month: float
    hours_per_month: float
    fresh: Mapping[tuple[str, str], Price] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every type of the table, priced or not."""
        return tuple(self.specs)

    def of(self, name: str, region: str) -> Price | None:
        """The price of a type in `region`, refreshed before shipped, else the shipped Region's marked as an estimate;
        None: not known."""
        fresh = self.fresh.get((region, name))
        if fresh is not None:
            return fresh
        usd = self.shipped.get(name)
        if usd is None:
            return None
        return Price(usd, self.as_of, self.region, region != self.region, "shipped table")

    def hourly(self, usd_per_hour: float, disk_gb: int = USUAL_DISK_GB) -> HourlyCost:
        """What a running machine costs with its address and disk: the one price of it, on every screen."""
        return HourlyCost(usd_per_hour, self.address_per_hour, self.disk_per_hour(disk_gb), disk_gb)

    def held(self, disk_gb: int = USUAL_DISK_GB) -> str:
        """What such a price has, human-readable."""
        return f"instance{', public IPv4' if self.address_per_hour else ''} and {disk_gb} GB disk"

    def disk_per_hour(self, disk_gb: int) -> float:
        """USD an hour of a gp3 disk, which is billed for as long as it exists."""
        return disk_gb * self.gp3_gb_month / self.hours_per_month

    def note(self, prices: Sequence[Price], today: date) -> str:
        """Where and from when the figures are, human-readable."""
        if not prices:
            return "no price is known"
        oldest = min(prices, key=lambda one: one.as_of)
        kind = "table" if oldest.source == "shipped table" else oldest.source
        age = oldest.age_days(today)
        text = f"{kind} of {oldest.as_of.isoformat()} ({counted(age, 'day')} old)"
        if any(one.estimate for one in prices):
            text += f", prices of {self.region} as an estimate"
        beside = "IPv4 and disk" if self.address_per_hour else "disk"
        return f"{text}; {beside} at list price, taxes and transfer not included"


def date_of(used: Sequence[Price | None]) -> str | None:
    """The day of the oldest of these prices, ISO 8601."""
    return min((price.as_of.isoformat() for price in used if price), default=None)


def warnings(used: Sequence[Price], region: str) -> list[str]:
    """What the user should know about these prices, used in `region`: nothing if they are its own."""
    if not any(price.estimate for price in used):
        return []
    return [
        f"no prices for {region} are known: those of {used[0].region} are an estimate"
        f" (cloudtrain instances --region {region} --refresh asks AWS)"
    ]


def _short(usd: float) -> str:
    return f"{usd:.3f}" if usd >= 0.001 or usd == 0 else f"{usd:.4f}"


@cache
def _shipped() -> PriceTable:
    raw = shipped()
    specs = {
        name: InstanceType(
            name=name,
            vcpus=row["vcpus"],
            memory_gib=row["memory_gib"],
            gpu_name=row["gpu"],
            gpu_count=row["gpus"],
            gpu_mib=row["gpu_mib"],
            arch=row["arch"],
            nvidia=True,
        )
        for name, row in raw["types"].items()
    }
    extras = raw["extras"]
    return PriceTable(
        as_of=date.fromisoformat(raw["as_of"]),
        region=raw["region"],
        shipped={name: row["usd_per_hour"] for name, row in raw["types"].items() if row["usd_per_hour"] is not None},
        specs=specs,
        address_per_hour=extras["public_ipv4_per_hour"],
        gp3_gb_month=extras["gp3_gb_month"],
        hours_per_month=extras["hours_per_month"],
    )


def load(region: str | None = None) -> PriceTable:
    """The shipped table, with what `refresh` has stored for `region`.

    Args:
        region: None: the shipped table alone, as for an emulated Region.
    """
    table = _shipped()
    if region is None:
        return table
    rows = _stored(region).items()
    return _with(region, {name: row for name, row in rows if row[1] >= table.as_of or region != table.region})


def _with(region: str, rows: Mapping[str, tuple[float, date]]) -> PriceTable:
    fresh = {(region, name): Price(usd, day, region, False, "Pricing API") for name, (usd, day) in rows.items()}
    return replace(_shipped(), fresh=fresh)


def refresh(names: Iterable[str], region: str, pricing: PricingClient, *, today: date, keep: bool = True) -> PriceTable:
    """The table with the Pricing API's present figures for `names` in `region`; one call a type.

    Args:
        today: day that the figures are dated with.
        keep: store them for later `load`s; False for an emulated Region.

    Raises:
        SignInError: the right pricing:GetProducts is missing.
        ConnectionFailed: the Pricing API did not answer.
    """
    wanted = sorted(set(names))
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = dict(zip(wanted, pool.map(lambda name: ask(name, region, pricing), wanted), strict=True))
    got = {name: (usd, today) for name, usd in answers.items() if usd is not None}
    stored = {**_stored(region), **got} if keep else got
    if keep and got:
        _store(region, stored)
    return _with(region, stored)


def ask(name: str, region: str, pricing: PricingClient) -> float | None:
    """On-demand USD an hour of one type from GetProducts; None: the list has none.

    Raises:
        SignInError, ConnectionFailed: no answer.
    """
    wanted = {
        "regionCode": region,
        "instanceType": name,
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }
    filters: list[FilterTypeDef] = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in wanted.items()]
    with translated("ask the Pricing API"):
        pages = pricing.get_paginator("get_products").paginate(
            ServiceCode="AmazonEC2", Filters=filters, PaginationConfig={"MaxItems": 100}
        )
        found = [usd for page in pages for text in page["PriceList"] for usd in _usd(text)]
    # The filters leave one product; should they ever leave more, the dearest keeps the promise of "at most".
    return max(found, default=None)


def _usd(text: str | Mapping[str, Any]) -> Iterator[float]:
    """Prices in one entry of a PriceList, which is JSON inside a string; zeros and what cannot be read are skipped."""
    try:
        product: Any = json.loads(text) if isinstance(text, str) else text
        terms = product["terms"]["OnDemand"].values()
        dimensions = [one for term in terms for one in term["priceDimensions"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    for one in dimensions:
        try:
            usd = float(one["pricePerUnit"]["USD"])
        except (KeyError, TypeError, ValueError):
            continue
        if usd > 0 and math.isfinite(usd):
            yield usd


def spot_prices(names: Iterable[str], ec2: EC2Client, now: datetime) -> dict[str, dict[str, float]]:
    """Present spot USD an hour by type and zone, from DescribeSpotPriceHistory (needs no pricing right).

    Raises:
        SignInError, ConnectionFailed: no answer.
    """
    latest: dict[tuple[str, str], tuple[datetime, float]] = {}
    with translated("look up spot prices"):
        pages = ec2.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=sorted(set(names)),  # type: ignore[arg-type]  # any name; the stubs list those of their day
            ProductDescriptions=list(PRODUCTS),
            StartTime=now,
        )
        for page in pages:
            for row in page["SpotPriceHistory"]:
                key, at = (str(row["InstanceType"]), row["AvailabilityZone"]), row["Timestamp"]
                with suppress(ValueError):  # a text that is no number: no price
                    usd = float(row["SpotPrice"])
                    if math.isfinite(usd) and (key not in latest or at > latest[key][0]):
                        latest[key] = (at, usd)
    by_type: dict[str, dict[str, float]] = {}
    for (name, zone), (_, usd) in sorted(latest.items()):
        by_type.setdefault(name, {})[zone] = usd
    return by_type


def _file(region: str) -> Path:
    return disk.cache_dir() / "prices" / f"{region}.json"


def _stored(region: str) -> dict[str, tuple[float, date]]:
    """What was refreshed before. A damaged or foreign file counts as none: it can be made again."""
    try:
        rows = json.loads(_file(region).read_text(encoding="utf-8"))["types"]
        found = {str(n): (float(r["usd_per_hour"]), date.fromisoformat(r["as_of"])) for n, r in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: row for name, row in found.items() if row[0] > 0 and math.isfinite(row[0])}


def _store(region: str, rows: Mapping[str, tuple[float, date]]) -> None:
    file = _file(region)
    types = {name: {"usd_per_hour": usd, "as_of": day.isoformat()} for name, (usd, day) in sorted(rows.items())}
    try:
        disk.private_dir(file.parent)
        disk.write_durably(file, json.dumps({"version": 1, "region": region, "types": types}, indent=1).encode())
    except OSError:
        return  # a cache that cannot be written costs the next command a look-up, no more
