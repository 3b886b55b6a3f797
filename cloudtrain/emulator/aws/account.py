"""What an account of the emulated region holds: stocked at the first look, listed at any time."""

from __future__ import annotations

from typing import Any

from moto.ec2.models import ec2_backends
from moto.ssm.models import ssm_backends

from cloudtrain.emulator.aws import catalogue
from cloudtrain.emulator.aws.core import Core
from cloudtrain.emulator.aws.state import EmulatedImage


def stock(backend: Any, core: Core) -> None:
    """Fill a fresh EC2 backend: images, a way to the internet, and what the faults took away."""
    if getattr(backend, "stocked", False):
        return
    backend.stocked = True
    for image in catalogue.images(backend.region_name):
        made = EmulatedImage(
            backend,
            image.id,
            name=image.name,
            description=image.description,
            owner_id=catalogue.AMAZON,
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture=image.architecture,
            creation_date=image.created.replace(tzinfo=None),
            image_location=f"amazon/{image.name}",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name="/dev/sda1" if image.user == "ubuntu" else "/dev/xvda",
            region_name=f"{backend.region_name}a",
        )
        made.size_gib, made.login_user = image.size_gib, image.user
        made.ebs_snapshot.volume.size = image.size_gib
        backend.amis[image.id] = made
    vpc = backend.get_default_vpc()
    gateway = backend.create_internet_gateway()
    backend.attach_internet_gateway(gateway.id, vpc.id)
    for table in [t for t in backend.route_tables.values() if t.vpc_id == vpc.id and t.main_association_id]:
        backend.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
    backend.ebs_encryption_by_default = core.faults.find("default-key") is not None
    if core.faults.find("no-public-ip"):
        for zones in backend.subnets.values():
            for subnet in zones.values():
                subnet.map_public_ip_on_launch = False
    if core.faults.find("no-default-vpc"):
        backend.detach_internet_gateway(gateway.id, vpc.id)
        backend.delete_internet_gateway(gateway.id)
        for zones in list(backend.subnets.values()):
            for subnet in list(zones.values()):
                backend.delete_subnet(subnet.id)
        backend.delete_vpc(vpc.id)


def inventory(account: str) -> dict[str, list[dict[str, Any]]]:
    """What exists in all Regions of an account, JSON-ready; terminated instances and default groups are not in it."""
    kinds = ("instances", "volumes", "security_groups", "key_pairs", "addresses")
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for region, backend in list(ec2_backends[account].items()):
        for one in backend.all_instances():
            if one.state != "terminated":
                place = {"type": one.instance_type, "zone": one.availability_zone, "address": one.public_ip}
                spot = one.lifecycle == "spot"
                found["instances"].append(_tagged(backend, one.id, state=one.state, **place, spot=spot))
        found["volumes"] += [_tagged(backend, each.id, size_gib=each.size) for each in backend.volumes.values()]
        groups = [group for by_id in backend.groups.values() for group in by_id.values() if group.name != "default"]
        found["security_groups"] += [_tagged(backend, group.id, name=group.name) for group in groups]
        found["key_pairs"] += [{"region": region, "name": name} for name in backend.key_pairs]
        found["addresses"] += [{"region": region, "address": a.public_ip} for a in backend.addresses]
    return found


def histories(account: str) -> list[dict[str, Any]]:
    """What each instance of the account has been, with the unix time of each change of its state and its last tags."""
    every = [one for backend in list(ec2_backends[account].values()) for one in backend.all_instances()]
    return [{"id": one.id, "tags": one.marks, "states": one.history} for one in every]


def _tagged(backend: Any, id: str, **values: Any) -> dict[str, Any]:
    return {"region": backend.region_name, "id": id, **values, "tags": dict(backend.tags.get(id, {}))}


def forget(account: str) -> None:
    """Drop moto's state of an account; its region has closed."""
    for backends in (ec2_backends, ssm_backends):
        backends.pop(account, None)
