"""What a launch for a spec could be: every look-up, composed into one Offer. Nothing is created or changed.

Look-ups that need nothing of each other run side by side, and no call is made twice. For one type: GetCallerIdentity,
DescribeInstanceTypes, DescribeInstanceTypeOfferings, DescribeSubnets, DescribeRouteTables, GetServiceQuota,
DescribeInstances, GetParametersByPath (a call a page), DescribeImages, and DescribeSpotPriceHistory for spot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cloudtrain.core.errors import CloudtrainError, QuotaExceeded, Refused, SignInError, UsageError
from cloudtrain.core.plan import Candidate, Offer
from cloudtrain.core.spec import Ec2Spec, RunSpec
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import one as instance_of_id
from cloudtrain.provider.ec2.instances import state_of
from cloudtrain.provider.ec2.offer import account, alternatives, images, prices, quota, types, zones
from cloudtrain.provider.ec2.offer.images import Image
from cloudtrain.provider.ec2.offer.prices import Price, PriceTable
from cloudtrain.provider.ec2.offer.quota import ON_DEMAND, SPOT, Quota
from cloudtrain.provider.ec2.offer.types import InstanceType
from cloudtrain.provider.ec2.offer.zones import Subnet
from cloudtrain.provider.ec2.translate import NOTHING, translated

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
        return _existing(ec2.instance_id, ec2, clients, now())
    for name in ec2.types:
        if not types.TYPE_NAME.fullmatch(name):
            types.refuse_known(name)
    return _launchable(ec2, clients, now())


def _launchable(ec2: Ec2Spec, clients: Clients, now: datetime) -> Offer:
    names = tuple(dict.fromkeys(ec2.types))
    market = SPOT if ec2.spot else ON_DEMAND
    table = prices.load(None if clients.loopback else clients.region)
    if all(_refusal_without_lookup(name, ec2) for name in names):
        types.refuse_known(names[0], own_image=ec2.ami is not None)
    others = alternatives.near(names, table, clients.region)
    who, found, image_of = _look_up(names, others, market, ec2, table, clients, now)

    allowed = zones.usable(found.subnets, clients.region, asked=ec2.subnet)
    candidates: list[Candidate] = []
    placed: list[dict[str, Any]] = []
    used_prices: list[Price] = []
    refused: list[tuple[str, CloudtrainError]] = []
    warnings: list[str] = []
    image: Image | None = None
    for name in names:
        try:
            kind = types.check_usable(
                name,
                found.types,
                known=table.names,
                region=clients.region,
                market=market,
                own_image=ec2.ami is not None,
            )
            spots = zones.place(name, found.zones, allowed, clients.region)
            unknown = quota.preflight(name, kind.vcpus, _quota_of(name, market, found, clients.region))
            price = _price_of(name, found.table, clients.region)
            if image is not None and kind.arch != image.arch:
                raise _other_arch(name, kind, image)
            image = image or image_of(kind.arch)
        except UsageError:
            raise
        except (Refused, QuotaExceeded) as error:
            refused.append((name, error))
            continue
        disk_gb, too_small = images.root_size(image, ec2.volume_gb)
        candidate, spots = _candidate(kind, price, spots, disk_gb, found)
        warnings += [text for text in (unknown, too_small) if text and text not in warnings]
        candidates.append(candidate)
        used_prices.append(price)
        placed.append(
            {
                "type": name,
                "price_per_hour": candidate.price_per_hour,
                "vcpus": kind.vcpus,
                "zones": [{"zone": spot.zone, "subnet": spot.id, "vpc": spot.vpc} for spot in spots],
            }
        )
    if image is None or not candidates:
        raise refused[0][1]
    beside = _beside(others, allowed, disk_gb, found, clients.region)
    left_out = [f"{error.message}; left out" for _, error in refused]
    return Offer(
        where=clients.region,
        candidates=tuple(candidates),
        alternatives=tuple(machine for machine, _ in beside),
        account=f"{who.text}, {clients.region} (from {clients.region_source})",
        price_note=_price_note(found.table, [*used_prices, *(price for _, price in beside)], disk_gb, market, now),
        enforcer="a timer on the instance itself, laptop on or off",
        warnings=(*left_out, *_about_prices(used_prices, clients.region), *_about_image(image), *warnings),
        details={
            "region": clients.region,
            "market": market,
            "arch": image.arch,
            "image_id": image.id,
            "image_name": image.name,
            "image_source": image.source,
            "root_device": image.root_device,
            "root_gb": disk_gb,
            "parked_per_day": found.table.disk_per_hour(disk_gb) * 24,
            "user": image.user,
            "owner": tags.owner_of(who.arn),
            "price_date": _price_date(used_prices),
            "candidates": placed,
        },
    )


def _beside(
    names: Sequence[str], allowed: Sequence[Subnet], disk_gb: int, found: _Found, region: str
) -> list[tuple[Candidate, Price]]:
    """The machines of these types that could be had here, to compare with."""
    beside = []
    for name in names:
        price = found.table.of(name, region)
        if price is None:
            continue
        try:
            spots = zones.place(name, found.zones, allowed, region)
        except (Refused, UsageError):
            continue
        machine, _ = _candidate(found.table.specs[name], price, spots, disk_gb, found)
        if found.market == SPOT and machine.most_per_hour is None:
            continue  # an on-demand price beside one of spot would compare two things
        beside.append((machine, price))
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
    stale credentials are told as such.
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
    return caller, _Found(found_types, found_zones, quotas, spot_now, subnets, table, market), image_of


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


def _quota_of(name: str, market: str, found: _Found, region: str) -> Quota:
    code = quota.code_of_type(name, market)
    return found.quotas[code] if code is not None else quota.unlisted(name, market, region)


def _price_of(name: str, table: PriceTable, region: str) -> Price:
    price = table.of(name, region)
    if price is None:
        raise Refused(
            f"no price is known for {name}, so its cost could not be limited",
            hint=f"cloudtrain instances --region {region} --refresh asks AWS for it",
            consequence=NOTHING,
            code="no_price",
        )
    return price


def _other_arch(name: str, kind: InstanceType, image: Image) -> Refused:
    return Refused(
        f"{name} is {kind.arch} and the types before it are {image.arch}: one run boots one image",
        hint=f"give {name} a run of its own",
        consequence=NOTHING,
        code="mixed_arch",
    )


def _candidate(
    kind: InstanceType, price: Price, spots: Sequence[Subnet], disk_gb: int, found: _Found
) -> tuple[Candidate, tuple[Subnet, ...]]:
    """The machine as the plan shows it, and its places in the order to try them: cheapest zone first for spot."""
    most = found.table.hourly(price.usd_per_hour, disk_gb).total
    by_zone = (found.spot or {}).get(kind.name, {})
    here = {spot.zone: by_zone[spot.zone] for spot in spots if spot.zone in by_zone}
    note = found.table.hourly(price.usd_per_hour, disk_gb).parts()
    now = most
    if found.market == SPOT and not here:
        note = f"spot price not known, shown is on demand; {note}"
    if here:
        # The dearest of the zones that may be used: what is shown is never less than what is paid now.
        dearest = max(here.values())
        now = found.table.hourly(dearest, disk_gb).total
        note = f"spot, on demand ${most:.3f}; " + found.table.hourly(dearest, disk_gb).parts()
        spots = sorted(spots, key=lambda spot: (here.get(spot.zone, price.usd_per_hour), spot.zone))
    candidate = Candidate(
        type=kind.name,
        gpu=kind.gpu,
        vcpus=kind.vcpus,
        memory_gib=kind.memory_gib,
        price_per_hour=now,
        most_per_hour=max(now, most) if here else None,
        zones=tuple(spot.zone for spot in spots),
        note=note,
    )
    return candidate, tuple(spots)


def _price_note(table: PriceTable, used: Sequence[Price], disk_gb: int, market: str, now: datetime) -> str:
    text = f"$/HOUR has instance, public IPv4 and {disk_gb} GB disk; {table.note(used, now.date())}"
    return f"spot prices as of now, at most the on-demand price; {text}" if market == SPOT else text


def _price_date(used: Sequence[Price | None]) -> str | None:
    """The day of the oldest of these prices, ISO 8601."""
    return min((price.as_of.isoformat() for price in used if price), default=None)


def _about_prices(used: Sequence[Price], region: str) -> list[str]:
    if not any(price.estimate for price in used):
        return []
    return [
        f"no prices of {region} are at hand: those of {used[0].region} are an estimate"
        f" (cloudtrain instances --region {region} --refresh asks AWS)"
    ]


def _about_image(image: Image) -> list[str]:
    """What the user should know about the image: nothing if it was the first choice."""
    if not image.notes:
        return []
    return [f"image: {image.source}, {image.name} ({'; '.join(image.notes)})"]


def _existing(instance_id: str, ec2: Ec2Spec, clients: Clients, now: datetime) -> Offer:
    """An instance that is there already: what it is and what an hour of it costs."""
    who = account.identify(clients)
    instance = instance_of_id(clients, instance_id)
    if instance is None:
        raise UsageError(
            f"there is no instance {instance_id} in {clients.region}",
            hint="aws ec2 describe-instances lists those there are; or another --region or --profile",
            consequence="nothing was changed",
            code="no_instance",
        )
    state = state_of(instance)
    if state in ("shutting-down", "terminated"):
        raise Refused(
            f"{instance_id} is {state}",
            hint="--instance g4dn.xlarge launches a new one",
            consequence="nothing was changed",
            code="no_instance",
        )
    name = str(instance["InstanceType"])
    table = prices.load(None if clients.loopback else clients.region)
    kind = types.describe([name], clients.ec2).get(name)
    price = table.of(name, clients.region)
    with translated("look up the instance's image", profile=clients.profile, consequence="nothing was changed"):
        found = clients.ec2.describe_images(ImageIds=[instance["ImageId"]])["Images"]
    market = SPOT if instance.get("InstanceLifecycle") == "spot" else ON_DEMAND
    zone = instance.get("Placement", {}).get("AvailabilityZone", "")
    warnings = []
    if kind is not None and kind.usable_reason:
        warnings.append(f"{name}: {kind.usable_reason}")
    if price is None:
        warnings.append(f"no price is known for {name}; it is billed for as long as it runs")
    else:
        warnings += _about_prices([price], clients.region)
    return Offer(
        where=clients.region,
        candidates=(
            Candidate(
                type=name,
                gpu=kind.gpu if kind else "",
                vcpus=kind.vcpus if kind else None,
                memory_gib=kind.memory_gib if kind else None,
                price_per_hour=price.usd_per_hour if price else None,
                zones=(zone,),
                note=f"{instance_id}, {state}; the instance alone, without disks and addresses",
            ),
        ),
        account=f"{who.text}, {clients.region} (from {clients.region_source})",
        price_note=table.note([price] if price else [], now.date()),
        enforcer="the training is ended; the instance is yours"
        + (" and is stopped again" if state == "stopped" else " and goes on"),
        warnings=tuple(warnings),
        details={
            "region": clients.region,
            "market": market,
            "instance_id": instance_id,
            "state": state,
            "zone": zone,
            "arch": instance.get("Architecture", kind.arch if kind else ""),
            "image_id": instance["ImageId"],
            "user": images.login_user(found[0]) if found else "ubuntu",
            "owner": tags.owner_of(who.arn),
            "price_date": _price_date([price]),
        },
    )
