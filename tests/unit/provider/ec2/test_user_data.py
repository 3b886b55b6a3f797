"""What a machine is told at its first boot."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cloudtrain.core.errors import Refused
from cloudtrain.provider.ec2.trust import client_key, new_host_key
from cloudtrain.provider.ec2.user_data import LIMIT_BYTES, render
from cloudtrain.transport.ssh_keys import public_key

EXPIRY = 1795437296  # 2026-11-23 12:34:56 UTC
LASTS = 3600


def config(**changes: Any) -> dict[str, Any]:
    private, public = new_host_key("brave-otter")
    client = public_key(client_key("brave-otter"))
    text = render(
        **{
            "host_private": private,
            "host_public": public,
            "client_public": client,
            "expires_at": EXPIRY,
            "lasts_s": LASTS,
            **changes,
        }
    )
    assert text.startswith("#cloud-config\n") and len(text.encode()) < LIMIT_BYTES / 2
    read: dict[str, Any] = yaml.safe_load(text)
    assert read["ssh_keys"]["ed25519_private"] == changes.get("host_private", private)
    assert read["ssh_keys"]["ed25519_public"] == public
    assert read["ssh_authorized_keys"] == [client]
    return read


def test_it_holds_keys_and_lease_and_nothing_else() -> None:
    read = config()
    assert set(read) == {"ssh_deletekeys", "ssh_keys", "ssh_authorized_keys", "bootcmd"}
    assert read["ssh_deletekeys"] is True
    ((program, flag, script),) = read["bootcmd"]
    assert (program, flag) == ("sh", "-c") and f"end={EXPIRY} limit={LASTS} " in script


def test_a_login_of_its_own_has_key_and_sudo_beside_the_images_user() -> None:
    read = config(login="cloudtrain")
    default, own = read["users"]
    assert default == "default" and own["name"] == "cloudtrain" and "NOPASSWD" in own["sudo"]
    assert own["ssh_authorized_keys"] == read["ssh_authorized_keys"] and own["lock_passwd"] is True


def test_what_ec2_would_refuse_is_refused_here() -> None:
    with pytest.raises(Refused) as caught:
        config(host_private="x" * LIMIT_BYTES)
    assert caught.value.code == "user_data"
