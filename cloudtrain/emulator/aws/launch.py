"""One RunInstances call, looked at before anything is made."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from cloudtrain.emulator.aws import catalogue
from cloudtrain.emulator.aws.core import Core
from cloudtrain.emulator.aws.replies import ApiError

USER_DATA_LIMIT = 16384
"""Bytes of user data before base64."""


class Launch:
    """What one call asks for; `check` and `check_room` raise what EC2 answers instead of launching."""

    def __init__(self, call: Any, core: Core) -> None:
        self.call = call
        self.core = core
        get = call._get_param
        self.type = str(get("InstanceType", "m1.small"))
        self.image = str(get("ImageId", ""))
        self.token = str(get("ClientToken", "") or "")
        self.spot = get("InstanceMarketOptions.MarketType") == "spot"
        subnet = get("SubnetId") or next((n["SubnetId"] for n in get("NetworkInterfaces", []) if "SubnetId" in n), None)
        # Idempotency is zonal as soon as a zone is named.
        self.zone_asked = get("Placement.AvailabilityZone") or (
            call.ec2_backend.get_subnet(subnet).availability_zone if subnet else None
        )
        plain = {k: v for k, v in call.querystring.items() if k not in ("ClientToken", "DryRun")}
        self.fingerprint = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
        self.zone = self.zone_asked or f"{call.region}a"

    def check(self) -> None:
        """What EC2 checks before it looks for room.

        Raises:
            ApiError: the request is wrong.
        """
        backend = self.call.ec2_backend
        if len(self.token) > 64:
            raise ApiError("InvalidParameterValue", "Client token can be at most 64 ASCII characters.")
        self._check_organization()
        if not self.image.startswith("ami-"):
            raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{self.image}" (expecting "ami-...")')
        image = backend.amis.get(self.image)
        if image is None:
            raise ApiError("InvalidAMIID.NotFound", f"The image id '[{self.image}]' does not exist")
        if self.type not in INSTANCE_TYPES:
            raise ApiError("InvalidParameterValue", f"Invalid value '{self.type}' for InstanceType.")
        architectures = INSTANCE_TYPES[self.type]["ProcessorInfo"]["SupportedArchitectures"]
        if image.architecture not in architectures:
            raise ApiError(
                "InvalidParameterValue",
                f"The architecture '{','.join(architectures)}' of the specified instance type does not match the "
                f"architecture '{image.architecture}' of the specified AMI. Specify an instance type and an AMI "
                "that have matching architectures, and try again.",
            )
        if len(base64.b64decode(self.call._get_param("UserData") or "")) > USER_DATA_LIMIT:
            raise ApiError("InvalidUserData.Malformed", f"User data is limited to {USER_DATA_LIMIT} bytes")
        name = self.call._get_param("KeyName")
        if name and name not in backend.key_pairs:
            raise ApiError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
        for mapping in self.call._get_param("BlockDeviceMappings", []):
            root = image.block_device_mappings[0]
            size = (mapping.get("Ebs") or {}).get("VolumeSize")
            if mapping.get("DeviceName") == root["DeviceName"] and size and int(size) < root["Ebs"]["VolumeSize"]:
                raise ApiError(
                    "InvalidBlockDeviceMapping",
                    f"Volume of size {size}GB is smaller than snapshot '{root['Ebs']['SnapshotId']}', expect size >= "
                    f"{root['Ebs']['VolumeSize']}GB",
                )
        if not self.zone_asked and backend.get_default_vpc() is None:
            raise ApiError(
                "VPCIdNotSpecified",
                "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.",
            )
        self._choose_zone()

    def _check_organization(self) -> None:
        demanded, tags = self.core.faults.find("tags-demanded"), self.call._parse_tag_specification()
        if demanded is None:
            return
        for kind in ("instance", "volume", "network-interface"):
            if not set(demanded.values) <= set(tags.get(kind, {})):
                of = f"arn:aws:ec2:{self.call.region}:{self.core.account}:{kind}/*"
                raise ApiError(
                    "UnauthorizedOperation",
                    "You are not authorized to perform this operation. User: "
                    f"arn:aws:iam::{self.core.account}:user/you is not authorized to perform: ec2:RunInstances on "
                    f"resource: {of} with an explicit deny in a service control policy. Encoded authorization failure "
                    "message: EMULATED",
                    403,
                )

    def _choose_zone(self) -> None:
        offered = [
            o["Location"]
            for o in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(self.call.region, [])
            if o["InstanceType"] == self.type
        ]
        if self.zone_asked:
            known = {zone.name for zone in self.call.ec2_backend.describe_availability_zones()}
            if self.zone_asked not in known:
                raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{self.zone_asked}]")
            if self.zone_asked not in offered:
                raise ApiError(
                    "Unsupported",
                    f"Your requested instance type ({self.type}) is not supported in your requested Availability Zone "
                    f"({self.zone_asked}). Please retry your request by not specifying an Availability Zone or "
                    f"choosing {', '.join(sorted(offered)) or 'another Region'}.",
                )
        elif not offered:
            raise ApiError(
                "Unsupported",
                f"The requested configuration is currently not supported: {self.type} in {self.call.region}.",
            )
        else:
            self.zone = next(
                (z for z in sorted(offered) if not self.core.faults.no_capacity(z, self.type)), sorted(offered)[0]
            )
        self.offered = sorted(offered)

    def check_room(self) -> None:
        """Quota, then capacity.

        Raises:
            ApiError: one of them is used up.
        """
        quota = catalogue.quota_of(self.type, spot=self.spot)
        limit = self.core.quotas[quota.code]
        used = sum(
            int(INSTANCE_TYPES[i.instance_type]["VCpuInfo"]["DefaultVCpus"])
            for i in self.call.ec2_backend.all_instances()
            if i.state in ("pending", "running")
            and catalogue.quota_of(i.instance_type, spot=i.lifecycle == "spot") == quota
        )
        if used + int(INSTANCE_TYPES[self.type]["VCpuInfo"]["DefaultVCpus"]) > limit:
            if self.spot:
                raise ApiError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
            raise ApiError(
                "VcpuLimitExceeded",
                f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the "
                "instance bucket that the specified instance type belongs to. Please visit "
                "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
            )
        if self.core.faults.no_capacity(self.zone, self.type):
            free = [z for z in self.offered if not self.core.faults.no_capacity(z, self.type)]
            where = ""
            if free:
                where = f" You can currently get {self.type} capacity by choosing {', '.join(free)}."
            raise ApiError(
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {self.type} capacity in the Availability Zone you requested "
                f"({self.zone}). Our system will be working on provisioning additional capacity.{where}",
                500,
            )
