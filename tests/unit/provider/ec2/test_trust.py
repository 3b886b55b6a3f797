"""Keys: of this computer, and of hosts."""

from __future__ import annotations

import os
import stat

from cloudtrain.provider.ec2 import trust
from cloudtrain.transport.ssh_keys import public_key


def test_the_client_key_is_made_once_and_is_private() -> None:
    path = trust.client_key("brave-otter")
    first = public_key(path)
    assert public_key(trust.client_key("brave-otter")) == first
    assert public_key(trust.client_key("calm-raven")) != first
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_torn_client_key_is_made_anew() -> None:
    path = trust.client_key("brave-otter")
    path.write_bytes(path.read_bytes()[:100])
    assert public_key(trust.client_key("brave-otter"))


def test_host_keys_are_fresh_each_time_and_kept_nowhere() -> None:
    first, second = trust.new_host_key("brave-otter"), trust.new_host_key("brave-otter")
    assert first != second and "OPENSSH PRIVATE KEY" in first[0] and first[1].startswith("ssh-ed25519 ")
    assert list(trust.keys_folder("brave-otter").iterdir()) == []
    trust.forget("brave-otter")
    trust.forget("brave-otter")
    assert not trust.keys_folder("brave-otter").exists()
