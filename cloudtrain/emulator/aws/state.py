"""What moto's state of an account has beside its own: the region behind it, its images and its spot requests."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.amis import Ami
from moto.ec2.models.spot_requests import SpotInstanceRequest
from moto.ec2.utils import random_spot_request_id

from cloudtrain.emulator.aws.core import Core

REGIONS: dict[str, Core] = {}
"""Open regions by account."""


class EmulatedImage(Ami):  # type: ignore[misc]
    """An image with a root snapshot of its own size, and a login user."""

    size_gib = 8
    login_user = "ubuntu"

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """The root device."""
        disk = {"SnapshotId": self.ebs_snapshot.id, "VolumeSize": self.size_gib, "DeleteOnTermination": True,
                "VolumeType": "gp3", "Iops": 3000, "Throughput": 125, "Encrypted": False}  # fmt: skip
        return [{"DeviceName": self.root_device_name, "Ebs": disk}]


class LaunchedSpotRequest(SpotInstanceRequest):  # type: ignore[misc]
    """The request that RunInstances makes beside a spot instance."""

    def __init__(self, instance: Any, tags: dict[str, Any]) -> None:
        self._launched = instance
        super().__init__(
            instance.ec2_backend, random_spot_request_id(), "", instance.image_id, "one-time", None, None, None, None,
            instance.key_name, [], None, instance.instance_type, instance.availability_zone, None, None, False,
            instance.subnet_id, tags, None, "terminate",
        )  # fmt: skip
        self.launch_specification.groups = list(instance.security_groups)

    def launch_instance(self) -> Any:
        """It runs already."""
        return self._launched
