"""moto's models with what they lack, patched in once a process. Accounts of no region keep moto's own behaviour."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from datetime import UTC, datetime
from typing import Any

import moto.ec2.models.amis as moto_amis
import moto.ec2.models.instances as moto_instances
import moto.ec2.urls
import moto.ec2.utils
import moto.ssm.urls

from cloudtrain.emulator.aws import responses
from cloudtrain.emulator.aws.state import REGIONS, EmulatedImage

_patched = False


class EmulatedInstance(moto_instances.Instance):  # type: ignore[misc]
    """An instance whose states take time and that has a machine under it."""

    def __init__(
        self, ec2_backend: Any, image_id: str, user_data: Any, security_groups: list[Any], **kwargs: Any
    ) -> None:
        super().__init__(ec2_backend, image_id, user_data, security_groups, **kwargs)
        self.core = REGIONS.get(ec2_backend.account_id)
        self.epoch = 0
        self.born = 0.0
        self.down_at: datetime | None = None
        self.history: list[tuple[str, float]] = []
        self.marks: dict[str, str] = {}
        self.spot_instance_request_id: str | None = None
        image = ec2_backend.amis.get(self.image_id)
        self.login_user = getattr(image, "login_user", "ubuntu")
        if self.core is None:
            return
        self._state.name, self._state.code = "pending", 0
        self.client_token: str | None = kwargs.get("client_token")
        if self.client_token == "ABCDE":
            self.client_token = None
        # A public address comes with `running`.
        self.wants_address = any(nic.public_ip for nic in self.nics.values())
        self.set_address(None)

    def setup_defaults(self) -> None:
        """Root volume as the image has it."""
        image = self.ec2_backend.amis.get(self.image_id)
        if self.core is None or not isinstance(image, EmulatedImage):
            super().setup_defaults()
            return
        volume = self.ec2_backend.create_volume(
            size=image.size_gib, zone_name=self._placement.zone, snapshot_id=image.ebs_snapshot.id, volume_type="gp3"
        )
        self.ec2_backend.attach_volume(volume.id, self.id, image.root_device_name, True)

    def set_address(self, address: str | None) -> None:
        """Give or take the address at which the machine answers: the public one, else the private one, which stays."""
        for nic in self.nics.values():
            nic.public_ip = address if self.wants_address else None
            if address and not self.wants_address:
                nic.private_ip_address = address

    def set_reason(self, why: tuple[str, str] | None) -> None:
        """Why the instance ended or stopped; None: it did not."""
        self.down_at = datetime.now(UTC) if why is not None else None
        if why is None:
            self._reason, self.state_reason = "", moto_instances.StateReason()
            return
        code, words = why
        self._reason = words if code.startswith("Server.") else ""
        if code.startswith("Client.UserInitiated"):
            self._reason = f"User initiated ({datetime.now(UTC):%Y-%m-%d %H:%M:%S} GMT)"
        self.state_reason = moto_instances.StateReason(f"{code}: {words}", code)

    def drop_tag(self, key: str) -> None:
        """Remove one tag."""
        self.ec2_backend.tags.get(self.id, {}).pop(key, None)

    def release(self) -> None:
        """Free volumes and addresses of a terminated instance."""
        self.teardown_defaults()
        for nic in list(self.nics.values()):
            self.ec2_backend.enis.pop(nic.id, None)
        if request := self.ec2_backend.spot_instance_requests.get(self.spot_instance_request_id):
            taken = str(self.state_reason.code).startswith("Server.Spot")
            request.state = "closed"
            request._status_code = "instance-terminated-no-capacity" if taken else "instance-terminated-by-user"

    def fade(self) -> None:
        """AWS drops the tags of a terminated instance before it forgets the instance."""
        self.ec2_backend.tags.pop(self.id, None)

    def vanish(self) -> None:
        """AWS forgets a terminated instance after about an hour."""
        for key, reservation in list(self.ec2_backend.reservations.items()):
            reservation.instances = [i for i in reservation.instances if i is not self]
            if not reservation.instances:
                del self.ec2_backend.reservations[key]
        self.fade()

    def user_data_bytes(self) -> bytes:
        """Decoded user data as it is now."""
        return base64.b64decode(self.user_data.as_bytes()) if self.user_data else b""

    def key_material(self) -> str | None:
        """Public key of the launch's key pair."""
        pair = self.ec2_backend.key_pairs.get(self.key_name) if self.key_name else None
        return pair.public_key if pair else None

    def admits(self, peer: str, port: int) -> bool:
        """Whether a security group of this instance lets `peer` in on tcp `port`."""
        address = ipaddress.ip_address(peer)
        # A group is named at launch or on the interface.
        groups = {id(g): g for g in [*self.security_groups, *(g for nic in self.nics.values() for g in nic.group_set)]}
        for group in groups.values():
            for rule in group.ingress_rules:
                covers = rule.ip_protocol == "-1" or (
                    rule.ip_protocol == "tcp" and rule.from_port <= port <= rule.to_port
                )
                for cidr in (rule.ip_range or {}).values() if covers else ():
                    with contextlib.suppress(ValueError, TypeError):
                        if address in ipaddress.ip_network(cidr, strict=False):
                            return True
        return False

    def start(self) -> Any:
        """As moto's; timed."""
        return super().start() if self.core is None else self._moved("start")

    def stop(self) -> Any:
        """As moto's; timed."""
        return super().stop() if self.core is None else self._moved("stop")

    def terminate(self) -> Any:
        """As moto's; timed."""
        return super().terminate() if self.core is None else self._moved("terminate")

    def reboot(self) -> None:
        """As moto's; the machine really goes down and up."""
        if self.core is None:
            super().reboot()
        else:
            self._moved("reboot")

    def _moved(self, how: str) -> Any:
        assert self.core is not None
        before = moto_instances.InstanceState(self._state.name, self._state.code)
        getattr(self.core.lives, how)(self)
        return before


def patch() -> None:
    """Put the emulated models and responses where moto looks for its own. Idempotent."""
    global _patched
    if _patched:
        return
    _patched = True
    moto_instances.Instance = EmulatedInstance
    moto.ec2.urls.url_paths["{0}/"] = responses.EmulatedEC2.dispatch
    moto.ssm.urls.url_paths["{0}/$"] = responses.EmulatedSSM.dispatch
    moto.ec2.utils.filter_dict_attribute_mapping["client-token"] = "client_token"
    moto.ec2.utils.filter_dict_attribute_mapping["instance-lifecycle"] = "lifecycle"
    load = moto_amis.AmiBackend._load_amis

    def load_amis(backend: Any) -> None:
        # moto's 1177 old images cost two seconds at the first call; a region brings its own.
        if backend.account_id not in REGIONS:
            load(backend)

    moto_amis.AmiBackend._load_amis = load_amis
