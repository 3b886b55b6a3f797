"""One launch attempt: the same request to one (type, zone) after the other, until one has an instance to give.

The rules that keep it at one instance: each (type, zone) has one ClientToken; a request is on the disk before it is
sent; a request whose effect is unknown is sent again with the same token, and then looked for by its tags in the whole
Region, before any other zone is asked. (EC2 honours a token within one zone only, so the token alone is not enough.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudtrain.core import crash
from cloudtrain.core.errors import CloudtrainError, ConnectionFailed, QuotaExceeded
from cloudtrain.core.events import Emit, Noted, StepProgress
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import OfferDetails
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients, Unreadable
from cloudtrain.provider.ec2.instances import described
from cloudtrain.provider.ec2.notes import Ec2Notes, Launched, Pending, Slot
from cloudtrain.provider.ec2.offer import quota
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import FOREIGN, Failure, code_of, failure_of, text_of, translate

UNKNOWN = "an instance may have been started; if so, its own lease ends it"
# How often a request is sent while its effect is unknown, and while what it names (the new security group) may be too
# new to be known everywhere.
_SENDS = 5
_EARLY = 4


def slots_of(details: OfferDetails) -> list[Slot]:
    """The places in the order of the offer: types as stated, zones of each as listed, each once.

    A security group lives in one VPC, so only places in the VPC of the first are kept.
    """
    places: dict[tuple[str, str], Slot] = {}
    for one in details.candidates:
        for place in one.zones:
            slot = Slot(
                type=one.type,
                zone=place.zone,
                subnet=place.subnet,
                price=one.price_per_hour,
                vcpus=one.vcpus,
                vpc=place.vpc,
                cidr=place.cidr,
            )
            places.setdefault((slot.type, slot.zone), slot)
    first = next(iter(places.values()), None)
    return [slot for slot in places.values() if first and slot.vpc == first.vpc]


def client_token(seed: str, slot: Slot) -> str:
    """The one ClientToken of this attempt at this place: 51 ASCII characters, EC2 takes 64."""
    return "ct-" + hashlib.sha256(f"{seed}/{slot.type}/{slot.zone}".encode()).hexdigest()[:48]


def request_for(
    slot: Slot,
    details: OfferDetails,
    spec: Ec2Spec,
    *,
    seed: str,
    group: str,
    user_data: str,
    marks: Mapping[str, str],
) -> dict[str, Any]:
    """The whole RunInstances call, JSON-ready, so that it can be sent again exactly as it was.

    No key pair, no instance profile: there is nothing on the instance that opens anything else.
    """
    tagged = ["instance", "volume", "network-interface", *(["spot-instances-request"] if spec.spot else [])]
    request: dict[str, Any] = {
        "ClientToken": client_token(seed, slot),
        "ImageId": details.image_id,
        "InstanceType": slot.type,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": details.root_device,
                "Ebs": {
                    # Below the size of the image's snapshot EC2 refuses.
                    "VolumeSize": max(details.root_gb or 0, spec.volume_gb or 0, 8),
                    "VolumeType": "gp3",
                    "DeleteOnTermination": True,
                },
            }
        ],
        "TagSpecifications": tags.specifications(marks, *tagged),
        "UserData": user_data,
    }
    if slot.subnet:
        request["NetworkInterfaces"] = [
            {
                "DeviceIndex": 0,
                "SubnetId": slot.subnet,
                "Groups": [group],
                "AssociatePublicIpAddress": not spec.private_ip,
                "DeleteOnTermination": True,
            }
        ]
    else:
        request["SecurityGroupIds"] = [group]
        request["Placement"] = {"AvailabilityZone": slot.zone}
    if spec.spot:
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    return request


class Launch:
    """Sends the requests of one attempt.

    Args:
        seed: names the attempt: tag `cloudtrain:token`, and what the ClientTokens are made from.
        give_up_at: unix seconds after which the request must not be sent any more, because its lease would be over.
    """

    def __init__(
        self, clients: Clients, journal: Journal, emit: Emit, pace: Pace, *, seed: str, spot: bool, give_up_at: float
    ) -> None:
        self._clients = clients
        self._journal = journal
        self._emit = emit
        self._pace = pace
        self._seed = seed
        self._spot = spot
        self._give_up_at = give_up_at

    def first_free(self, slots: Sequence[Slot], build: Callable[[Slot], dict[str, Any]]) -> Launched | None:
        """Ask `slots` in order; the instance's record, or None if none has one to give. Records what was refused where.

        Raises:
            Refused, SignInError: asking other places changes nothing; nothing is running.
            ConnectionFailed: `UNKNOWN`.
        """
        for slot in slots:
            request = build(slot)
            # The intent, before the effect: whoever comes after a crash sends this again, byte for byte.
            self._journal.write(Ec2Notes(request=Pending(slot=slot, request=request)))
            crash.point("K1")
            if record := self.send(slot, request):
                return record
        return None

    def send(self, slot: Slot, request: Mapping[str, Any]) -> Launched | None:
        """Send one recorded request until its fate is known; its instance's record, or None: this place is full."""
        self._emit(StepProgress("instance", f"asking for {slot}"))
        uncertain = False
        error: Exception | None = None
        for attempt in self._pace.backoffs(self._pace.send):
            if self._pace.now() > self._give_up_at:
                break
            try:
                crash.point("K3")
                answer = self._clients.ec2_launch.run_instances(**request)
                crash.point("K4")
                if not answer["Instances"]:
                    raise Unreadable("it names no instance")
                return self.record(slot, answer["Instances"][0])
            except FOREIGN as raised:
                error = raised
            match failure_of(error):
                case Failure.THROTTLED:
                    self._emit(StepProgress("instance", f"{slot}: AWS asks for slower calls ({code_of(error)})"))
                    continue
                case Failure.UNKNOWN_EFFECT:
                    uncertain = True
                    self._emit(Noted(f"{slot}: no usable answer ({code_of(error)}), asking again with the same token"))
                    if attempt < _SENDS:
                        continue
                case Failure.ABSENT if attempt < _EARLY:
                    continue
            break
        return self._judge(slot, error, uncertain)

    def _judge(self, slot: Slot, error: Exception | None, uncertain: bool) -> Launched | None:
        """What the last answer means, once what an earlier one may have caused has been looked for."""
        failure = failure_of(error) if error else Failure.UNKNOWN_EFFECT
        unsure = uncertain or failure in (Failure.MISMATCH, Failure.SPENT)
        if unsure and (found := self.reconcile(slot, settle=True)):
            return found
        if error is None or failure is Failure.UNKNOWN_EFFECT:
            raise ConnectionFailed(
                f"AWS gave no usable answer to the launch of {slot}"
                + (f" ({code_of(error)}, {_SENDS} times)" if error else " before its time was over"),
                hint="cloudtrain stop looks for it again and ends it; then start a new run",
                consequence=UNKNOWN,
                code="launch_unknown",
            ) from error
        if failure in (Failure.CAPACITY, Failure.SPENT):
            self.refuse(slot, code_of(error))
            return None
        if failure is Failure.QUOTA:
            raised: CloudtrainError = over_quota(self._clients, error, slot, spot=self._spot)
        else:
            raised = translate(
                error, f"launch {slot}", profile=self._clients.profile, consequence="no instance is running"
            )
        self._journal.write(Ec2Notes(request=None))
        raise raised from error

    def refuse(self, slot: Slot, why: str) -> None:
        """Record that `slot` has nothing to give, and say so."""
        tried = (*self._journal.read(Ec2Notes).tried, (slot.type, slot.zone, why))
        self._journal.write(Ec2Notes(tried=tried, request=None))
        self._emit(Noted(f"no {slot} ({why}), trying the next place"))

    def reconcile(self, slot: Slot | None, *, settle: bool = False) -> Launched | None:
        """The live instance that this attempt has started anywhere in the Region, by its tags; recorded if found.

        Args:
            settle: look for a while, since a new instance may take some seconds to be listed.
        """
        for _ in self._pace.polls(self._pace.settle if settle else 0):
            found = described(self._clients, tags.where(token=self._seed))
            if found:
                return self.record(slot, found[0])
        return None

    def record(self, slot: Slot | None, instance: Mapping[str, Any]) -> Launched:
        """Put the instance on the disk; its request, which holds the host key, is not needed any more."""
        zone = str(instance.get("Placement", {}).get("AvailabilityZone") or (slot.zone if slot else ""))
        record = Launched(
            id=str(instance["InstanceId"]),
            type=str(instance.get("InstanceType") or (slot.type if slot else "")),
            zone=zone,
            price=slot.price if slot else None,
            at=self._pace.now(),
        )
        self._journal.write(Ec2Notes(instance=record, request=None))
        crash.point("K5")
        return record


def over_quota(clients: Clients, error: Exception, slot: Slot, *, spot: bool) -> QuotaExceeded:
    """The refusal with all that is needed to act on it: quota, what it allows, what is in use, the command."""
    market = quota.SPOT if spot else quota.ON_DEMAND
    code = quota.code_of_type(slot.type, market)
    try:
        if code is None:
            found = quota.unlisted(slot.type, market, clients.region)
        else:
            used = quota.in_use(clients.ec2, {slot.type: slot.vcpus} if slot.vcpus else {})
            found = quota.survey([code], clients.region, used, clients.quotas)[code]
    except CloudtrainError:
        found = quota.unlisted(slot.type, market, clients.region)
    allowed = f"the quota allows {found.granted}" if found.granted is not None else "the quota is too small"
    taken = f", {found.in_use} in use" if found.in_use else ""
    needed = f"needs {slot.vcpus} vCPU" if slot.vcpus else "needs more vCPU"
    return QuotaExceeded(
        f"{slot.type} {needed}, {allowed}{taken} ({found.name}, {clients.region})",
        hint=found.command(slot.vcpus or 4) or "cloudtrain doctor shows the quotas",
        consequence="nothing is billed",
        detail=f"{text_of(error)} ({code_of(error)})",
    )
