"""What an instance is told at birth: its host key, who may log in, and when it ends itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudtrain.core.errors import Refused
from cloudtrain.provider.ec2 import machine_lease

# EC2's limit on user data before base64 (EC2 User Guide, "user data is limited to 16 KB").
LIMIT_BYTES = 16 * 1024
# Of a user that no image has.
LOGIN = "cloudtrain"


def render(
    *,
    host_private: str,
    host_public: str,
    client_public: str,
    expires_at: float,
    lasts_s: float,
    login: str | None = None,
) -> str:
    """The cloud-config of an instance. The private host key in it serves the first login only (`trust.rotate`).

    Args:
        host_private, host_public: ed25519 host key in OpenSSH format.
        client_public: the one key that may log in.
        login: a user that the machine is to have beside its image's own; both are let in by that key, and may use sudo.
        expires_at: unix seconds at which the instance powers itself off; `lasts_s`: seconds from now to then.

    Raises:
        Refused: it is larger than EC2 takes.
    """
    key = client_public.strip()
    config: dict[str, Any] = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public.strip()},
        # cloud-init gives these to the image's own user, whatever its name.
        "ssh_authorized_keys": [key],
        "bootcmd": _lease(expires_at, lasts_s),
    }
    if login:
        user = {"name": login, "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True, "ssh_authorized_keys": [key]}
        config["users"] = ["default", user]
    text = _text(config)
    if len(text.encode()) > LIMIT_BYTES:
        raise Refused(
            f"the instance's start-up data is {len(text.encode())} bytes, EC2 takes {LIMIT_BYTES}",
            consequence="nothing was created",
            code="user_data",
        )
    return text


def lease_only(expires_at: float, lasts_s: float) -> str:
    """The cloud-config for the next boot of a machine that was stopped: a new lease. It knows its keys already."""
    return _text({"bootcmd": _lease(expires_at, lasts_s)})


def _lease(expires_at: float, lasts_s: float) -> list[list[str]]:
    return [["sh", "-c", machine_lease.script(expires_at, lasts_s)]]


def _text(config: Mapping[str, Any]) -> str:
    # JSON is YAML, and its quoting has no surprises.
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"
