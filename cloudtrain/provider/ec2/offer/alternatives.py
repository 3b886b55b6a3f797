"""Which types a plan is compared with: the same GPU for less, and the next GPUs down and up by price."""

from __future__ import annotations

from collections.abc import Sequence

from cloudtrain.provider.ec2.offer.prices import PriceTable
from cloudtrain.provider.ec2.offer.types import NO_CUDA, TOO_OLD, InstanceType, family

MOST = 3
"""Rows beside the one that a run takes, the other types asked for included."""


def near(asked: Sequence[str], table: PriceTable, region: str) -> tuple[str, ...]:
    """Types to set beside the first of `asked`, cheapest first; of each GPU the cheapest type with as many of them.

    Only what the price table knows is compared. Whether the Region sells a type, and where, is not known here.
    """
    chosen = table.specs.get(asked[0]) if asked else None
    price = _price(asked[0], table, region) if chosen is not None else None
    if chosen is None or price is None:
        return ()
    there = {table.specs[name].gpu_name for name in asked[1:] if name in table.specs} - {chosen.gpu_name}
    cheapest: dict[str, tuple[float, str]] = {}
    for one in table.specs.values():
        usd = _price(one.name, table, region)
        new = one.name not in asked and one.gpu_name not in there
        if usd is not None and new and _comparable(one, chosen):
            cheapest[one.gpu_name] = min(cheapest.get(one.gpu_name, (usd, one.name)), (usd, one.name))
    own = cheapest.pop(chosen.gpu_name, None)
    others = sorted(cheapest.values())
    below = [row for row in others if row[0] < price][-2:]
    above = [row for row in others if row[0] >= price][: max(1, 2 - len(below))]
    same = [own] if own is not None and own[0] < price else []
    room = max(0, MOST - (len(asked) - 1))
    return tuple(name for _, name in sorted([*same, *reversed(below), *above][:room]))


def _price(name: str, table: PriceTable, region: str) -> float | None:
    found = table.of(name, region)
    return found.usd_per_hour if found else None


def _comparable(one: InstanceType, chosen: InstanceType) -> bool:
    usable = family(one.name) not in TOO_OLD and family(one.name) not in NO_CUDA
    return usable and one.arch == chosen.arch and one.gpu_count == chosen.gpu_count
