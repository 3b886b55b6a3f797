"""The EC2 and SSM calls that moto answers wrongly or not at all."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.utils import parse_user_data
from moto.ssm.models import Parameter
from moto.ssm.responses import SimpleSystemManagerResponse

from cloudtrain.emulator.aws import catalogue
from cloudtrain.emulator.aws.account import stock
from cloudtrain.emulator.aws.core import Core
from cloudtrain.emulator.aws.launch import Launch
from cloudtrain.emulator.aws.replies import ApiError
from cloudtrain.emulator.aws.state import REGIONS, LaunchedSpotRequest


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

    def call_action(self) -> Any:
        """One call at a time: states also change from the machines' event loop."""
        if self.core is None:
            return super().call_action()
        with self.core.lock:
            return super().call_action()

    def run_instances(self) -> ActionResult:
        """Launch, or answer again what an earlier call with this ClientToken launched."""
        core = self.core
        if core is None:
            return super().run_instances()
        with core.lock:
            launch = Launch(self, core)
            key = (self.region, launch.token, launch.zone_asked)
            told = core.tokens.get(key) if launch.token else None
            if told is not None:
                if told[0] != launch.fingerprint:
                    raise ApiError(
                        "IdempotentParameterMismatch",
                        "Arguments on this idempotent request are inconsistent with those of previous requests.",
                    )
                core.replayed.value = True
                return ActionResult(told[1])
            launch.check()
            self.error_on_dryrun()
            launch.check_room()
            self.params["Placement"] = {**(self.params.get("Placement") or {}), "AvailabilityZone": launch.zone}
            result = super().run_instances()
            reservation = result.result
            tags = self._parse_tag_specification()
            for instance in reservation.instances:
                for nic in instance.nics.values():
                    nic.add_tags(tags.get("network-interface", {}))
                if launch.spot:
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
        result: Any = super().describe_instances()
        core = self.core
        late = core.faults.find("not-found") if core else None
        if late is None:
            return result
        limit = time.monotonic() - late.number(0, 0)
        for reservation in result.result["Reservations"]:
            for instance in reservation.instances:
                if instance.born > limit and instance.id in self._get_param("InstanceIds", []):
                    raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{instance.id}' does not exist")
            reservation.instances = [i for i in reservation.instances if i.born <= limit]
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
        value = self._get_param("UserData.Value")
        # Here, unlike at a launch, the request's parser has already undone the base64.
        instance.user_data = parse_user_data(base64.b64encode(value) if isinstance(value, bytes) else value)
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
        output = Base64EncodedString.from_raw_string(core.lives.console(instance))
        return ActionResult(
            {"InstanceId": instance.id, "Timestamp": instance.down_at or datetime.now(UTC), "Output": output}
        )

    def get_ebs_default_kms_key_id(self) -> ActionResult:
        """The account's own key, or that of AWS."""
        own = self.core.faults.find("default-key") if self.core else None
        key = f"arn:aws:kms:{self.region}:{self.current_account}:key/{own.values[0]}" if own else "alias/aws/ebs"
        return ActionResult({"KmsKeyId": key})

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


class EmulatedSSM(SimpleSystemManagerResponse):  # type: ignore[misc]
    """Parameter Store with the public image parameters."""

    @property
    def ssm_backend(self) -> Any:
        """moto's state of this account and Region, stocked."""
        backend = super().ssm_backend
        core = REGIONS.get(self.current_account)
        if core is not None and not getattr(backend, "stocked", False):
            backend.stocked = True
            for image in () if core.faults.find("ssm-missing") else catalogue.images(self.region):
                for name in image.parameters:
                    dict.setdefault(backend._parameters, name, []).append(
                        Parameter(
                            self.current_account, name, image.id, "String", None, None, None, image.created, 1, "text"
                        )
                    )
        return backend
