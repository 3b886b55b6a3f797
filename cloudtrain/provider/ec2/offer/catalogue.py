"""The GPU types of a Region with price, spot price, free quota and zones: what `cloudtrain instances` shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cloudtrain.core.errors import CloudtrainError, SignInError, UsageError
from cloudtrain.core.text import meant
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account, prices, quota, types, zones
from cloudtrain.provider.ec2.offer.prices import Price, PriceTable
from cloudtrain.provider.ec2.offer.quota import ON_DEMAND, Quota
from cloudtrain.provider.ec2.offer.types import InstanceType
from cloudtrain.provider.ec2.translate import NOTHING

# Series whose types may have an NVIDIA GPU; what EC2 says of each decides.
GPU_SERIES = ("g*", "p*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One type that a run can use. Prices are USD an hour; None where not known or not asked.

    Attributes:
        gpu: human-readable: "1x T4 16 GB".
        price_per_hour: on demand, with a public IPv4 address and the usual disk.
        estimate: the price is another Region's.
        spot_per_hour: of the cheapest zone now, with the same.
        quota_granted, quota_free: vCPUs the account may run at once of this family, and those not in use.
        zones: that offer it.
    """

    type: str
    gpu: str
    gpu_name: str
    gpu_count: int
    gpu_mib: int
    vcpus: int
    memory_gib: float
    arch: str
    price_per_hour: float | None
    estimate: bool
    spot_per_hour: float | None = None
    quota_granted: int | None = None
    quota_free: int | None = None
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All rows, cheapest first.

    Attributes:
        asked: EC2 was asked; False: the shipped table alone, which knows neither zones nor quota.
        price_note: where the prices are from and how old they are.
        price_age_days: age of the oldest price shown; None: none is shown.
    """

    region: str
    asked: bool
    rows: tuple[Row, ...]
    price_note: str
    price_age_days: int | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def shipped(*, gpu: str | None = None, now: datetime | None = None) -> Catalogue:
    """What the shipped table knows, without any account or network.

    Raises:
        UsageError: no type has such a GPU.
    """
    table = prices.load()
    usable = [one for one in table.specs.values() if types.family(one.name) not in types.TOO_OLD]
    priced = [one for one in usable if one.name in table.shipped]
    rows = [_row(one, table, table.region) for one in _matching(priced, gpu)]
    return _catalogue(table.region, rows, table, now or datetime.now(UTC), asked=False)


def survey(
    clients: Clients,
    *,
    gpu: str | None = None,
    refresh: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Catalogue:
    """The GPU types of the clients' Region. Quota, spot and fresh prices that may not be asked for become warnings.

    Args:
        gpu: only types with this GPU ("T4", in any case).
        refresh: ask the Pricing API for every type shown, and keep its answers for later commands.

    Raises:
        UsageError: no type has such a GPU.
        SignInError, ConnectionFailed: EC2 could not be asked.
    """
    account.identify(clients)
    warnings: list[str] = []
    found = [one for one in types.describe(GPU_SERIES, clients.ec2).values() if one.usable_reason is None]
    chosen = _matching(found, gpu)
    names = [one.name for one in chosen]
    table, day = prices.load(None if clients.loopback else clients.region), now()
    if not names:
        return _catalogue(clients.region, [], table, day, asked=True)
    vcpus = {one.name: one.vcpus for one in chosen}
    codes = {code for name in names if (code := quota.code_of_type(name, ON_DEMAND))}
    _ = (clients.ec2, clients.quotas)
    with ThreadPoolExecutor(4) as pool:
        offered = pool.submit(zones.offered, names, clients.ec2)
        spot = pool.submit(_optional, lambda: prices.spot_prices(names, clients.ec2, day), warnings)
        used = pool.submit(_optional, lambda: quota.in_use(clients.ec2, vcpus), warnings)
        granted = pool.submit(quota.survey, codes, clients.region, None, clients.quotas)
        sold, spot_now = offered.result(), spot.result() or {}
        quotas = quota.with_usage(granted.result(), used.result())
    if refresh:
        fresh = _optional(
            lambda: prices.refresh(names, clients.region, clients.pricing, today=day.date(), keep=not clients.loopback),
            warnings,
        )
        table = fresh or table
    warnings += [f"quota unknown: {q.name} ({q.unknown_because})" for q in quotas.values() if q.granted is None]
    rows = [
        _row(
            one,
            table,
            clients.region,
            spot=spot_now.get(one.name),
            limit=quotas.get(quota.code_of_type(one.name, ON_DEMAND) or ""),
            sold=sold.get(one.name, ()),
        )
        for one in chosen
        if sold.get(one.name)
    ]
    return _catalogue(clients.region, rows, table, day, asked=True, warnings=warnings)


def _optional(look: Callable[[], T], warnings: list[str]) -> T | None:
    """The answer, or None with a warning. Credentials that have ended are no option: they are raised."""
    try:
        return look()
    except CloudtrainError as error:
        if isinstance(error, SignInError) and error.code != "denied":
            raise
        warnings.append(error.message)
    return None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _matching(found: Sequence[InstanceType], gpu: str | None) -> list[InstanceType]:
    """Types whose GPU is called `gpu`; where none is called exactly so, those whose name holds it ("A10", "RTX")."""
    if gpu is None:
        return list(found)
    exact = [one for one in found if _plain(one.gpu_name) == _plain(gpu)]
    # "A10" stands for the A10G and not for the A100.
    part = re.compile(rf"(?<!\d){re.escape(_plain(gpu))}(?!\d)")
    chosen = exact or [one for one in found if _plain(gpu) and part.search(_plain(one.gpu_name))]
    if not chosen:
        names = sorted({one.gpu_name for one in found})
        raise UsageError(
            f"no instance type here has a GPU called {gpu!r}",
            hint=meant(gpu, names, f"--gpu with one of: {', '.join(names)}" if names else "try another --region"),
            consequence=NOTHING,
            code="unknown_gpu",
        )
    return chosen


def _row(
    one: InstanceType,
    table: PriceTable,
    region: str,
    *,
    spot: Mapping[str, float] | None = None,
    limit: Quota | None = None,
    sold: Sequence[str] = (),
) -> Row:
    price = table.of(one.name, region)
    return Row(
        type=one.name,
        gpu=one.gpu,
        gpu_name=one.gpu_name,
        gpu_count=one.gpu_count,
        gpu_mib=one.gpu_mib,
        vcpus=one.vcpus,
        memory_gib=one.memory_gib,
        arch=one.arch,
        price_per_hour=table.hourly(price.usd_per_hour).total if price else None,
        estimate=price.estimate if price else False,
        spot_per_hour=table.hourly(min(spot.values())).total if spot else None,
        quota_granted=limit.granted if limit else None,
        quota_free=limit.free if limit else None,
        zones=tuple(sold),
    )


def _catalogue(
    region: str,
    rows: Sequence[Row],
    table: PriceTable,
    now: datetime,
    *,
    asked: bool,
    warnings: Sequence[str] = (),
) -> Catalogue:
    used: list[Price] = [price for row in rows if (price := table.of(row.type, region))]
    ordered = sorted(rows, key=lambda row: (row.price_per_hour is None, row.price_per_hour or 0.0, row.type))
    return Catalogue(
        region=region,
        asked=asked,
        rows=tuple(ordered),
        price_note=f"$/HOUR includes {table.held()}; {table.note(used, now.date())}; newer: --refresh",
        price_age_days=max((price.age_days(now.date()) for price in used), default=None),
        warnings=tuple(dict.fromkeys(warnings)),
    )
