"""What of ours exists in a Region, found by its tags alone, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Emit, StepProgress
from cloudtrain.core.instance import Details, Instance
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import an_hour
from cloudtrain.provider.ec2 import network, tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.offer.prices import USUAL_DISK_GB, PriceTable, load
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import FOREIGN, Failure, failure_of, translated

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import InstanceTypeDef

LIVE = ("pending", "running", "stopping", "stopped")
UP = ("pending", "running")
ENDED = ("shutting-down", "terminated")
_RECLAIMED = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")

WORKDIR = "cloudtrain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in the account that carries our mark.

    Attributes:
        kind: "instance", "volume" or "security group".
        state: EC2's own word for it ("running", "available").
        size_gb: of a volume, or of the volumes that an instance holds.
        expires_at: unix seconds at which its lease ends it; None where unknown.
        created_at: unix seconds of its (latest) start or creation; None where EC2 does not say.
        owner: `tags.owner_of` whoever launched it.
        spot: it is billed at the spot price.
    """

    kind: str
    id: str
    state: str = ""
    run: str = ""
    token: str = ""
    type: str = ""
    zone: str = ""
    size_gb: int | None = None
    expires_at: float | None = None
    created_at: float | None = None
    owner: str = ""
    spot: bool = False

    def hourly(self, table: PriceTable, region: str) -> float | None:
        """USD an hour of an instance that is up, with its address and disks (of spot: at most); None: it is not, or its
        price is not known."""
        price = table.of(self.type, region) if self.kind == "instance" and self.state in UP else None
        return table.hourly(price.usd_per_hour, self.size_gb or USUAL_DISK_GB).total if price else None

    def describe(self, usd_per_hour: float | None = None) -> str:
        """Human-readable, with what it costs."""
        month = f"about ${(self.size_gb or 0) * load().gp3_gb_month:.2f} a month"
        if self.kind == "volume":
            return f"volume {self.id} ({self.size_gb} GB, {self.state}), {month}"
        if self.kind != "instance":
            return f"{self.kind} {self.id}, costs nothing"
        costs = an_hour(usd_per_hour) or "billed while it runs"
        if self.state == "stopped":
            costs = f"its disk {month}" if self.size_gb else "its disk is billed"
        return f"instance {self.id} ({self.type}, {self.state}), {costs}"


def inventory(
    clients: Clients, *, run: str | None = None, tokens: Iterable[str] | None = None, owner: str | None = None
) -> list[Item]:
    """Live instances, volumes and security groups of ours in the Region, narrowed by tags where given.

    Volumes that a live instance will take with it are not listed beside it.
    """
    wanted: Any = tags.where(run=run, token=list(tokens) if tokens is not None else None, owner=owner)
    instances = described(clients, wanted, LIVE + ENDED[:1])
    held = {mapping["Ebs"]["VolumeId"] for i in instances for mapping in i.get("BlockDeviceMappings", [])}
    with translated("list what exists", profile=clients.profile, consequence=None):
        disks = clients.ec2.get_paginator("describe_volumes").paginate(Filters=wanted)
        volumes = [v for page in disks for v in page["Volumes"]]
        pages = clients.ec2.get_paginator("describe_security_groups").paginate(Filters=wanted)
        groups = [g for page in pages for g in page["SecurityGroups"]]
    sizes = {str(v["VolumeId"]): int(v.get("Size", 0)) for v in volumes}
    items = [_instance(instance, sizes) for instance in instances]
    for volume in volumes:
        if volume["VolumeId"] not in held and volume.get("State") != "deleting":
            items.append(
                Item(
                    kind="volume",
                    id=volume["VolumeId"],
                    state=volume.get("State", ""),
                    zone=volume.get("AvailabilityZone", ""),
                    size_gb=volume.get("Size"),
                    created_at=_unix(volume.get("CreateTime")),
                    **_marks(tags.as_map(volume.get("Tags"))),
                )
            )
    items += [
        Item(kind="security group", id=group["GroupId"], **_marks(tags.as_map(group.get("Tags")))) for group in groups
    ]
    return items


def described(clients: Clients, filters: list[dict[str, Any]], states: Iterable[str] = LIVE) -> list[InstanceTypeDef]:
    """Instances that `filters` select, in any zone of the Region, in one of `states`."""
    narrowed: Any = [*filters, {"Name": "instance-state-name", "Values": list(states)}]
    with translated("list instances", profile=clients.profile, consequence=None):
        pages = clients.ec2.get_paginator("describe_instances").paginate(Filters=narrowed)
        return [i for page in pages for reservation in page["Reservations"] for i in reservation.get("Instances", [])]


def one(clients: Clients, instance_id: str) -> InstanceTypeDef | None:
    """The instance of this id in whatever state; None: EC2 does not know it (yet, or any more)."""
    with translated(f"look up {instance_id}", profile=clients.profile, consequence="nothing was changed"):
        try:
            answer = clients.ec2.describe_instances(InstanceIds=[instance_id])
        except ClientError as error:
            if failure_of(error) is Failure.ABSENT:
                return None
            raise
    return next((i for reservation in answer["Reservations"] for i in reservation.get("Instances", [])), None)


def watched(
    clients: Clients, instance_id: str, emit: Emit, pace: Pace, *, step: str, within_s: float, unlisted: str = "unknown"
) -> Iterator[tuple[InstanceTypeDef | None, str, float]]:
    """Look at an instance until `within_s` seconds have gone: EC2's description of it (None: EC2 does not know it;
    empty: AWS gave no usable answer this time), its state (else `unlisted`), and the seconds gone. A look that whoever
    waits was not content with is reported as progress of the `step`."""
    for gone in pace.polls(within_s):
        try:
            found = one(clients, instance_id)
        except ConnectionFailed:
            found = {}
        state = state_of(found) if found else unlisted
        yield found, state, gone
        emit(StepProgress(step, f"{instance_id} {state}", done=gone, total=within_s, unit="s"))


def state_of(instance: Mapping[str, Any]) -> str:
    """EC2's word for the instance's state."""
    return str(instance.get("State", {}).get("Name", ""))


def life_of(instance: Mapping[str, Any]) -> InstanceLife:
    """What an instance of ours is in that state."""
    state = state_of(instance)
    if state in ("stopping", "stopped"):
        return InstanceLife.PARKED
    if state in ENDED:
        return InstanceLife.TERMINATED
    return InstanceLife.RUNNING if state == "running" else InstanceLife.LAUNCHING


def address_of(instance: Mapping[str, Any], *, private: bool) -> str | None:
    """Where the instance is reached now; None: nowhere yet."""
    if private:
        return instance.get("PrivateIpAddress") or None
    return instance.get("PublicIpAddress") or instance.get("PublicDnsName") or None


def reason_of(instance: Mapping[str, Any] | None) -> str:
    """Why an instance ended, in EC2's words: "Server.SpotInstanceTermination: ..."."""
    if instance is None:
        return "EC2 no longer knows it"
    reason = instance.get("StateReason") or {}
    code, message = str(reason.get("Code", "")), str(reason.get("Message", ""))
    if code and code not in message:
        return f"{code}: {message}" if message else code
    return message or str(instance.get("StateTransitionReason", "")) or "no reason given"


# "User initiated (2026-11-30 08:00:00 GMT)", where somebody asked for it; EC2 tells no time of what shut itself down.
_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


def down_since(found: Mapping[str, Any] | None, clients: Clients) -> float | None:
    """Unix seconds since which an instance has been stopped or has ended: by the reason of its last change of state,
    else by when its console last told anything; None: EC2 does not say, or does not know it."""
    if not found:
        return None
    began = _unix(found.get("LaunchTime")) or 0.0
    told = _AT.search(str(found.get("StateTransitionReason", ""))[:200])
    try:
        if told:
            at: float | None = datetime.strptime(told[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
        else:
            at = _unix(clients.ec2.get_console_output(InstanceId=str(found["InstanceId"])).get("Timestamp"))
    except (*FOREIGN, ValueError):
        return None
    return at if at is not None and at >= began else None


def blame_of(instance: Mapping[str, Any]) -> str:
    """EC2's code of why an instance ended, if the reason lies with the account ("Client.InternalError"): another place
    would refuse it as well. Empty: it lies with EC2 (`Server.`), or is not told."""
    code = str((instance.get("StateReason") or {}).get("Code", ""))
    return code if code.startswith("Client.") else ""


def reclaimed(instance: Mapping[str, Any]) -> bool:
    """Whether `instance` was a spot instance that EC2 has taken back."""
    if instance.get("InstanceLifecycle") != "spot" or state_of(instance) not in (*ENDED, "stopping", "stopped"):
        return False
    code = str((instance.get("StateReason") or {}).get("Code", ""))
    # The transition's reason is free text; it is asked only where there is no code.
    return (code or str(instance.get("StateTransitionReason", ""))).startswith(_RECLAIMED)


def _instance(instance: Mapping[str, Any], sizes: Mapping[str, int]) -> Item:
    held = [mapping["Ebs"]["VolumeId"] for mapping in instance.get("BlockDeviceMappings", [])]
    return Item(
        kind="instance",
        id=str(instance["InstanceId"]),
        state=state_of(instance),
        type=str(instance.get("InstanceType", "")),
        zone=str(instance.get("Placement", {}).get("AvailabilityZone", "")),
        size_gb=sum(sizes.get(volume, 0) for volume in held) or None,
        created_at=_unix(instance.get("LaunchTime")),
        spot=instance.get("InstanceLifecycle") == "spot",
        **_marks(tags.as_map(instance.get("Tags"))),
    )


def _unix(at: Any) -> float | None:
    return at.timestamp() if isinstance(at, datetime) else None


def _marks(found: Mapping[str, str]) -> dict[str, Any]:
    return {
        "run": found.get(tags.RUN, ""),
        "token": found.get(tags.TOKEN, ""),
        "owner": found.get(tags.OWNER, ""),
        "expires_at": tags.utc_seconds(found.get(tags.EXPIRES_AT)),
    }


def to_instance(
    found: Mapping[str, Any],
    clients: Clients,
    notes: Ec2Notes,
    *,
    run: str,
    price: float | None,
    owned: bool = True,
    gpu: str = "",
) -> Instance:
    """Our `Instance` of EC2's description of it; `notes`: with who logs in, by which address, and the pinned key.

    `gpu` is what its type has. A machine that says of itself that it is a process of this computer has none.
    """
    marks = tags.as_map(found.get("Tags"))
    life = life_of(found)
    port = marks.get(tags.EMULATOR_PORT, "") if clients.loopback else ""
    return Instance(
        id=str(found["InstanceId"]),
        provider=Target.EC2,
        owned=owned,
        workdir=WORKDIR,
        address=address_of(found, private=notes.private),
        port=int(port) if port.isdigit() else network.SSH_PORT,
        user=notes.user or "ubuntu",
        host_key=notes.host_key,
        type=str(found.get("InstanceType", "")),
        zone=str(found.get("Placement", {}).get("AvailabilityZone", "")) or None,
        price_per_hour=price,
        life=life if owned else InstanceLife.NONE,
        details=Details(
            run=run,
            region=clients.region,
            token=marks.get(tags.TOKEN, ""),
            expires_at=tags.utc_seconds(marks.get(tags.EXPIRES_AT)),
            began_at=_unix(found.get("LaunchTime")),
            spot=found.get("InstanceLifecycle") == "spot",
            gpu="" if port else gpu,
        ),
    )
