"""What a launch for a spec could be: every look-up, composed into one Offer. Nothing is created or changed.

Look-ups that need nothing of each other run side by side, and no call is made twice. For one type: GetCallerIdentity,
DescribeInstanceTypes, DescribeInstanceTypeOfferings, DescribeSubnets, DescribeRouteTables, GetServiceQuota,
DescribeInstances, GetParametersByPath (a call a page), DescribeImages, and DescribeSpotPriceHistory for spot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from cloudtrain.core.errors import CloudtrainError, Refused, SignInError, UsageError
from cloudtrain.core.plan import Candidate, Launchable, Offer, OfferDetails, Place
from cloudtrain.core.spec import Ec2Spec, RunSpec
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account, alternatives, images, named, prices, quota, types, zones
from cloudtrain.provider.ec2.offer.images import Image
from cloudtrain.provider.ec2.offer.prices import Price, PriceTable
from cloudtrain.provider.ec2.offer.quota import ON_DEMAND, SPOT, Quota
from cloudtrain.provider.ec2.offer.types import InstanceType
from cloudtrain.provider.ec2.offer.zones import Subnet
from cloudtrain.provider.ec2.translate import NOTHING

LOOKUPS_AT_ONCE = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the look-ups gave, before it is judged."""

    types: Mapping[str, InstanceType]
    zones: Mapping[str, Sequence[str]]
    quotas: Mapping[str, Quota]
    spot: Mapping[str, Mapping[str, float]] | None
    subnets: Sequence[Subnet]
    table: PriceTable
    market: str
    region: str


@dataclass(frozen=True, slots=True)
class _Machine:
    """A type that can be launched: as the plan shows it, its on-demand price, its places in the order to try them."""

    shown: Candidate
    price: Price
    spots: tuple[Subnet, ...]

    def launchable(self) -> Launchable:
        """What the launch needs of it."""
        return Launchable(
            type=self.shown.type,
            price_per_hour=self.shown.price_per_hour,
            vcpus=self.shown.vcpus,
            zones=tuple(Place(zone=spot.zone, subnet=spot.id, vpc=spot.vpc, cidr=spot.cidr) for spot in self.spots),
        )


@dataclass(frozen=True, slots=True)
class _Usable:
    """What is left of the types asked for, the image for them, and what the user should know of the others."""

    machines: Sequence[_Machine]
    image: Image
    disk_gb: int
    left_out: Sequence[str]
    warnings: Sequence[str]


def survey(spec: RunSpec, clients: Clients, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Offer:
    """What could be launched for `spec`, or the existing instance that it names.

    Types that cannot be used are left out, each with its reason in `Offer.warnings`; the others stay in the order asked
    for. `Offer.details` is described in docs/ec2.md.

    Raises:
        UsageError: a type, subnet, image or instance does not exist.
        SignInError: no valid credentials, or a right is missing that no fallback replaces.
        Refused, QuotaExceeded: no type can be launched; the reason is that of the first.
        ConnectionFailed: AWS did not answer.
    """
    ec2 = spec.ec2 or Ec2Spec()
    if ec2.instance_id is not None:
        return named.survey(ec2.instance_id, clients, now())
    for name in ec2.types:
        if not types.TYPE_NAME.fullmatch(name):
            types.refuse_known(name)
    return _launchable(ec2, clients, now())


def _launchable(ec2: Ec2Spec, clients: Clients, now: datetime) -> Offer:
    names = tuple(dict.fromkeys(ec2.types))
    market = SPOT if ec2.spot else ON_DEMAND
    table = prices.load(None if clients.loopback else clients.region)
    if ec2.private_ip:
        table = replace(table, address_per_hour=0.0)
    if all(_refusal_without_lookup(name, ec2) for name in names):
        types.refuse_known(names[0], own_image=ec2.ami is not None)
    others = alternatives.near(names, table, clients.region)
    who, found, image_of = _look_up(names, others, market, ec2, table, clients, now)
    allowed = zones.usable(found.subnets, clients.region, asked=ec2.subnet, private=ec2.private_ip)
    usable = _usable(names, ec2, allowed, found, image_of)
    beside = _beside(others, allowed, usable.disk_gb, found)
    image, disk_gb, used = usable.image, usable.disk_gb, [machine.price for machine in usable.machines]
    return Offer(
        where=clients.region,
        candidates=tuple(machine.shown for machine in usable.machines),
        alternatives=tuple(machine.shown for machine in beside),
        account=f"{who.text}, {clients.region} (from {clients.region_source})",
        price_note=_price_note(table, [*used, *(machine.price for machine in beside)], disk_gb, market, now),
        enforcer="the instance ends itself, laptop on or off",
        warnings=(
            *usable.left_out,
            *prices.warnings(used, clients.region),
            *_about_image(image),
            *usable.warnings,
        ),
        details=OfferDetails(
            region=clients.region,
            market=market,
            arch=image.arch,
            image_id=image.id,
            image_name=image.name,
            image_owner=image.owner,
            image_source=image.source,
            root_device=image.root_device,
            root_gb=disk_gb,
            parked_per_day=table.disk_per_hour(disk_gb) * 24,
            user=ec2.user or image.user,
            owner=who.owner,
            price_date=prices.date_of(used),
            candidates=tuple(machine.launchable() for machine in usable.machines),
        ),
    )


def _usable(
    names: Sequence[str],
    ec2: Ec2Spec,
    allowed: Sequence[Subnet],
    found: _Found,
    image_of: Callable[[str], Image],
) -> _Usable:
    """The types that can be launched, in the order of `names`. If none can, the reason of the first is raised."""
    machines: list[_Machine] = []
    refused: list[Refused] = []
    warnings: list[str] = []
    image: Image | None = None
    for name in names:
        try:
            kind = types.check_usable(
                name,
                found.types,
                known=found.table.names,
                region=found.region,
                market=found.market,
                own_image=ec2.ami is not None,
            )
            spots = zones.place(name, found.zones, allowed, found.region)
            unknown = quota.preflight(name, kind.vcpus, _quota_of(name, found))
            price = _price_of(name, found)
            image = _same_image(kind, image, image_of)
        except Refused as error:
            refused.append(error)
            continue
        disk_gb, too_small = images.root_size(image, ec2.volume_gb)
        machines.append(_machine(kind, price, spots, disk_gb, found))
        warnings += [text for text in (unknown, too_small) if text and text not in warnings]
    if image is None or not machines:
        raise refused[0]
    return _Usable(machines, image, disk_gb, [f"{error.message}; left out" for error in refused], warnings)


def _beside(names: Sequence[str], allowed: Sequence[Subnet], disk_gb: int, found: _Found) -> list[_Machine]:
    """The machines of these types that could be had here, to compare with."""
    beside = []
    for name in names:
        price = found.table.of(name, found.region)
        if price is None:
            continue
        try:
            spots = zones.place(name, found.zones, allowed, found.region)
        except (Refused, UsageError):
            continue
        machine = _machine(found.table.specs[name], price, spots, disk_gb, found)
        if found.market == SPOT and machine.shown.most_per_hour is None:
            continue  # an on-demand price beside one of spot would compare two things
        beside.append(machine)
    return beside


def _look_up(
    names: Sequence[str],
    others: Sequence[str],
    market: str,
    ec2: Ec2Spec,
    table: PriceTable,
    clients: Clients,
    now: datetime,
) -> tuple[account.Account, _Found, Callable[[str], Image]]:
    """All calls, side by side; `others` are types that are only shown, and take no call of their own.

    Which failure is raised does not depend on which answer comes first: the caller's identity goes first, so missing or
    stale credentials are reported as such.
    """
    # A session must not make clients in several threads at once.
    _ = (clients.ec2, clients.ssm, clients.sts, clients.quotas)
    resolved: dict[str, Image] = {}

    def image_of(arch: str) -> Image:
        if arch not in resolved:
            resolved[arch] = images.resolve(arch, clients.ec2, clients.ssm, ami=ec2.ami)
        return resolved[arch]

    codes = {code for name in names if (code := quota.code_of_type(name, market))}
    first_guess = next((table.specs[name].arch for name in names if name in table.specs), "x86_64")
    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        who = pool.submit(account.identify, clients)
        kinds = pool.submit(types.describe, names, clients.ec2)
        offered = pool.submit(zones.offered, (*names, *others), clients.ec2)
        nets = pool.submit(zones.subnets, clients.ec2)
        routes = pool.submit(zones.routes, clients.ec2)
        used = pool.submit(_or_none, lambda: quota.in_use(clients.ec2, {}))
        granted = pool.submit(quota.survey, codes, clients.region, None, clients.quotas)
        priced = (*names, *others)
        spot = pool.submit(_or_none, lambda: prices.spot_prices(priced, clients.ec2, now)) if market == SPOT else None
        # The shipped table tells the architecture before EC2 does; EC2's word is what is judged by later.
        image = pool.submit(image_of, first_guess)
        caller = who.result()
        found_types, found_zones = kinds.result(), offered.result()
        subnets = zones.routed(nets.result(), routes.result())
        in_use: Mapping[str, int] | None = used.result()
        quotas = quota.with_usage(granted.result(), in_use)
        spot_now = spot.result() if spot is not None else {}
        _settle(image)
    found = _Found(found_types, found_zones, quotas, spot_now, subnets, table, market, clients.region)
    return caller, found, image_of


def _settle(image: Future[Image]) -> None:
    """Wait for the image looked up early. A refusal is raised when the image is really needed, since a type may be
    refused first; anything else counts at once."""
    try:
        image.result()
    except (Refused, UsageError):
        return


def _or_none(look: Callable[[], T]) -> T | None:
    """The answer, or None where the right to ask is missing."""
    try:
        return look()
    except SignInError as error:
        if error.code != "denied":
            raise
        return None


def _refusal_without_lookup(name: str, ec2: Ec2Spec) -> bool:
    try:
        types.refuse_known(name, own_image=ec2.ami is not None)
    except CloudtrainError:
        return True
    return False


def _quota_of(name: str, found: _Found) -> Quota:
    code = quota.code_of_type(name, found.market)
    return found.quotas[code] if code is not None else quota.unlisted(name, found.market, found.region)


def _price_of(name: str, found: _Found) -> Price:
    price = found.table.of(name, found.region)
    if price is None:
        raise Refused(
            f"no price is known for {name}, so its cost could not be limited",
            hint=f"cloudtrain instances --region {found.region} --refresh asks AWS for it",
            consequence=NOTHING,
            code="no_price",
        )
    return price


def _same_image(kind: InstanceType, before: Image | None, image_of: Callable[[str], Image]) -> Image:
    """The image of the types before this one, which it must be able to boot; for the first one, what suits it."""
    if before is None:
        return image_of(kind.arch)
    if kind.arch != before.arch:
        raise Refused(
            f"{kind.name} is {kind.arch} and the types before it are {before.arch}: one run boots one image",
            hint=f"give {kind.name} a run of its own",
            consequence=NOTHING,
            code="mixed_arch",
        )
    return before


def _machine(kind: InstanceType, price: Price, spots: Sequence[Subnet], disk_gb: int, found: _Found) -> _Machine:
    """A type in these places; for spot, the cheapest zone is tried first."""
    most = found.table.hourly(price.usd_per_hour, disk_gb).total
    by_zone = (found.spot or {}).get(kind.name, {})
    here = {spot.zone: by_zone[spot.zone] for spot in spots if spot.zone in by_zone}
    note = found.table.hourly(price.usd_per_hour, disk_gb).parts()
    now = most
    if found.market == SPOT and not here:
        note = f"spot price not known, the on-demand price is shown; {note}"
    if here:
        # The dearest of the zones that may be used: what is shown is never less than what is paid now.
        dearest = max(here.values())
        now = found.table.hourly(dearest, disk_gb).total
        note = f"spot, on demand ${most:.3f}; " + found.table.hourly(dearest, disk_gb).parts()
        spots = sorted(spots, key=lambda spot: (here.get(spot.zone, price.usd_per_hour), spot.zone))
    shown = Candidate(
        type=kind.name,
        gpu=kind.gpu,
        vcpus=kind.vcpus,
        memory_gib=kind.memory_gib,
        price_per_hour=now,
        most_per_hour=max(now, most) if here else None,
        zones=tuple(spot.zone for spot in spots),
        note=note,
    )
    return _Machine(shown, price, tuple(spots))


def _price_note(table: PriceTable, used: Sequence[Price], disk_gb: int, market: str, now: datetime) -> str:
    text = f"$/HOUR includes {table.held(disk_gb)}; {table.note(used, now.date())}"
    return f"spot prices as of now, at most the on-demand price; {text}" if market == SPOT else text


def _about_image(image: Image) -> list[str]:
    """What the user should know about the image: nothing if it was the first choice."""
    if not image.notes:
        return []
    return [f"image: {image.source}, {image.name} ({'; '.join(image.notes)})"]
