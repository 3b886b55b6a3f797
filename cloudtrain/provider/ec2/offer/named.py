"""An instance that the user names: what it is, and what an hour of it costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloudtrain.core.errors import Refused, UsageError
from cloudtrain.core.plan import Candidate, Offer, OfferDetails
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import ENDED, one, state_of
from cloudtrain.provider.ec2.offer import account, images, prices, types
from cloudtrain.provider.ec2.offer.prices import Price
from cloudtrain.provider.ec2.offer.quota import ON_DEMAND, SPOT
from cloudtrain.provider.ec2.offer.types import InstanceType
from cloudtrain.provider.ec2.translate import translated


def survey(instance_id: str, clients: Clients, now: datetime) -> Offer:
    """The offer to train on an instance that is there already.

    Raises:
        UsageError, Refused: there is none of this id, or it is ending.
        SignInError, ConnectionFailed: it could not be looked at.
    """
    who = account.identify(clients)
    instance = _living(instance_id, clients)
    state, name = state_of(instance), str(instance["InstanceType"])
    table = prices.load(None if clients.loopback else clients.region)
    kind = types.describe([name], clients.ec2).get(name)
    price = table.of(name, clients.region)
    zone = instance.get("Placement", {}).get("AvailabilityZone", "")
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
        warnings=tuple(_warnings(name, kind, price, clients.region)),
        details=OfferDetails(
            region=clients.region,
            market=SPOT if instance.get("InstanceLifecycle") == "spot" else ON_DEMAND,
            instance_id=instance_id,
            state=state,
            zone=zone,
            arch=instance.get("Architecture", kind.arch if kind else ""),
            image_id=instance["ImageId"],
            user=_user(instance, clients),
            owner=who.owner,
            price_date=prices.date_of([price]),
        ),
    )


def _living(instance_id: str, clients: Clients) -> Mapping[str, Any]:
    instance = one(clients, instance_id)
    if instance is None:
        raise UsageError(
            f"there is no instance {instance_id} in {clients.region}",
            hint="aws ec2 describe-instances lists those that exist; or another --region or --profile",
            consequence="nothing was changed",
            code="no_instance",
        )
    state = state_of(instance)
    if state in ENDED:
        raise Refused(
            f"{instance_id} is {state}",
            hint="--instance g4dn.xlarge launches a new one",
            consequence="nothing was changed",
            code="no_instance",
        )
    return instance


def _user(instance: Mapping[str, Any], clients: Clients) -> str:
    """The login name of its image."""
    with translated("look up the instance's image", profile=clients.profile, consequence="nothing was changed"):
        found = clients.ec2.describe_images(ImageIds=[instance["ImageId"]])["Images"]
    return images.login_user(found[0]) if found else "ubuntu"


def _warnings(name: str, kind: InstanceType | None, price: Price | None, region: str) -> list[str]:
    warnings = [f"{name}: {kind.usable_reason}"] if kind is not None and kind.usable_reason else []
    if price is None:
        return [*warnings, f"no price is known for {name}; it is billed for as long as it runs"]
    return [*warnings, *prices.warnings([price], region)]
