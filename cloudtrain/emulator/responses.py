"""The EC2 and SSM calls that moto answers wrongly or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.responses import EC2Response
from moto.ec2.utils import parse_user_data
from moto.ssm.models import Parameter
from moto.ssm.responses import SimpleSystemManagerResponse

from cloudtrain.emulator import catalogue
from cloudtrain.emulator.core import Core
from cloudtrain.emulator.models import REGIONS, LaunchedSpotRequest, stock
from cloudtrain.emulator.replies import ApiError

USER_DATA_LIMIT = 16384


class EmulatedEC2(EC2Response):  # type: ignore[misc]
    """EC2 with real launch checks, idempotent launches and timed states."""

    @property
    def core(self) -> Core | None:
        """The region behind this account."""
        return REGIONS.get(self.current_account)

    @property
    def ec2_backend(self) -> Any:
        """moto's state of this account and Region, stocked."""
        backend = super().ec2_backend
        core = self.core
        if core is not None:
            with core.lock:
                stock(backend, core)
        return backend

    def run_instances(self) -> ActionResult:
        """Launch, or answer again what an earlier call with this ClientToken launched."""
        core = self.core
        if core is None:
            return super().run_instances()
        with core.lock:
            launch = _Launch(self, core)
            key = (self.region, launch.token, launch.zone_asked)
            told = core.tokens.get(key) if launch.token else None
            if told is not None:
                if told[0] != launch.fingerprint:
                    raise ApiError(
                        "IdempotentParameterMismatch",
                        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
                    )
                core.replayed.value = True
                return ActionResult(told[1])
            launch.check()
            self.error_on_dryrun()
            launch.check_room()
            self.params["Placement"] = {**(self.params.get("Placement") or {}), "AvailabilityZone": launch.zone}
            result = super().run_instances()
            reservation = result.result
            for instance in reservation.instances:
                if launch.spot:
                    tags = self._parse_tag_specification()
                    request = LaunchedSpotRequest(
                        instance, {"spot-instances-request": tags.get("spot-instances-request", {})}
                    )
                    self.ec2_backend.spot_instance_requests[request.id] = request
                    instance.spot_instance_request_id = request.id
                instance.core.lives.launched(instance)
            if launch.token:
                core.tokens[key] = (launch.fingerprint, reservation)
            return result

    def _parse_block_device_mapping(self) -> list[dict[str, Any]]:
        """What a mapping leaves out comes from the image, as in EC2."""
        core, image = self.core, self.ec2_backend.amis.get(self._get_param("ImageId"))
        if core is None or image is None:
            return super()._parse_block_device_mapping()  # type: ignore[no-any-return]
        root = image.block_device_mappings[0]
        for mapping in self._get_param("BlockDeviceMappings", []):
            disk = mapping.get("Ebs")
            if disk is not None and mapping.get("DeviceName") == root["DeviceName"]:
                for name in ("VolumeSize", "SnapshotId", "DeleteOnTermination", "VolumeType"):
                    disk.setdefault(name, root["Ebs"][name])
        return super()._parse_block_device_mapping()  # type: ignore[no-any-return]

    def describe_instances(self) -> ActionResult:
        """As moto's, less what is not visible yet."""
        result = super().describe_instances()
        core = self.core
        late = core.faults.find("not-found") if core else None
        if late is None:
            return result
        hidden = lambda i: time.monotonic() - i.born < late.number(0, 0)  # noqa: E731
        for reservation in result.result["Reservations"]:
            for instance in reservation.instances:
                if hidden(instance) and instance.id in self._get_param("InstanceIds", []):
                    raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{instance.id}' does not exist")
            reservation.instances = [i for i in reservation.instances if not hidden(i)]
        result.result["Reservations"] = [r for r in result.result["Reservations"] if r.instances]
        return result

    def modify_instance_attribute(self) -> ActionResult:
        """Knows the shutdown behaviour, and that user data changes only while stopped."""
        behaviour = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if behaviour is None:
            if self._get_param("UserData.Value") is not None:
                return self._modify_user_data()
            return super().modify_instance_attribute()
        self.error_on_dryrun()
        if behaviour not in ("stop", "terminate"):
            raise ApiError(
                "InvalidParameterValue", f"Value ({behaviour}) for parameter value is invalid. Unknown value"
            )
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if instance.lifecycle == "spot" and behaviour == "stop":
            raise ApiError(
                "UnsupportedOperation", "The shutdown behavior of a one-time Spot Instance cannot be changed to stop."
            )
        instance.instance_initiated_shutdown_behavior = behaviour
        return EmptyResult()

    def _modify_user_data(self) -> ActionResult:
        self.error_on_dryrun()
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if self.core is not None and instance.state != "stopped":
            raise ApiError(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' must be in the 'stopped' state to change its user data.",
            )
        instance.user_data = parse_user_data(self._get_param("UserData.Value"))
        return EmptyResult()

    def delete_security_group(self) -> ActionResult:
        """Refuses a group that an instance or a rule still uses."""
        backend, core = self.ec2_backend, self.core
        wanted = self._get_param("GroupId")
        if core is not None and wanted:
            for instance in backend.all_instances():
                used = {g.id for nic in instance.nics.values() for g in nic.group_set} | {
                    g.id for g in instance.security_groups
                }
                if instance.state != "terminated" and wanted in used:
                    raise ApiError("DependencyViolation", f"resource {wanted} has a dependent object")
        return super().delete_security_group()

    def create_security_group(self) -> ActionResult:
        """Needs a VPC."""
        if self.core is not None and not self._get_param("VpcId") and self.ec2_backend.get_default_vpc() is None:
            raise ApiError("VPCIdNotSpecified", "No default VPC for this user")
        return super().create_security_group()

    def get_console_output(self) -> ActionResult:
        """What the machine really printed."""
        core = self.core
        if core is None:
            return super().get_console_output()
        self.error_on_dryrun()
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        text = core.lives.console(instance)
        return ActionResult(
            {
                "InstanceId": instance.id,
                "Timestamp": datetime.now(UTC),
                "Output": Base64EncodedString.from_raw_string(text),
            }
        )

    def describe_spot_price_history(self) -> ActionResult:
        """A plausible current price for each zone that offers the type."""
        filters = self._filters_from_querystring()
        types = self._get_param("InstanceTypes", []) or filters.get("instance-type", [])
        zone_wanted = self._get_param("AvailabilityZone")
        zones = [zone_wanted] if zone_wanted else filters.get("availability-zone")
        products = self._get_param("ProductDescriptions", []) or ["Linux/UNIX"]
        rows = [
            {"InstanceType": o["InstanceType"], "ProductDescription": product, "SpotPrice": f"{price:.6f}",
             "AvailabilityZone": o["Location"], "Timestamp": datetime.now(UTC)}
            for o in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(self.region, [])
            for product in products
            if (not types or o["InstanceType"] in types)
            and (not zones or o["Location"] in zones)
            and (price := catalogue.spot_price(o["InstanceType"], o["Location"])) is not None
        ]  # fmt: skip
        return ActionResult({"SpotPriceHistory": rows})


class _Launch:
    """One RunInstances call, looked at before anything is made."""

    def __init__(self, call: EmulatedEC2, core: Core) -> None:
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
                f"The architecture '{','.join(architectures)}' of the specified instance type does not match the architecture "
                f"'{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have matching "
                "architectures, and try again.",
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
                    f"Your requested instance type ({self.type}) is not supported in your requested Availability Zone ({self.zone_asked}). "
                    f"Please retry your request by not specifying an Availability Zone or choosing {', '.join(sorted(offered)) or 'another Region'}.",
                )
        elif not offered:
            raise ApiError(
                "Unsupported",
                f"The requested configuration is currently not supported. {self.type} is not offered in {self.call.region}.",
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
                f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the instance bucket "
                "that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request "
                "an adjustment to this limit.",
            )
        if self.core.faults.no_capacity(self.zone, self.type):
            free = [z for z in self.offered if not self.core.faults.no_capacity(z, self.type)]
            where = (
                f" You can currently get {self.type} capacity by not specifying an Availability Zone in your request or choosing {', '.join(free)}."
                if free
                else ""
            )
            raise ApiError(
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {self.type} capacity in the Availability Zone you requested ({self.zone}). "
                f"Our system will be working on provisioning additional capacity.{where}",
                500,
            )


class EmulatedSSM(SimpleSystemManagerResponse):  # type: ignore[misc]
    """Parameter Store with the public image parameters."""

    @property
    def ssm_backend(self) -> Any:
        """moto's state of this account and Region, stocked."""
        backend = super().ssm_backend
        core = REGIONS.get(self.current_account)
        if core is not None and not getattr(backend, "stocked", False):
            backend.stocked = True
            for image in catalogue.images(self.region):
                for name in image.parameters:
                    if "/deeplearning/" in name and core.faults.find("ssm-missing"):
                        continue
                    dict.setdefault(backend._parameters, name, []).append(
                        Parameter(
                            self.current_account, name, image.id, "String", None, None, None, image.created, 1, "text"
                        )
                    )
        return backend
