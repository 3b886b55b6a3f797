"""Host keys are read from a machine's console."""

from __future__ import annotations

from cloudtrain.provider.ec2 import trust
from cloudtrain.provider.ec2.reach import existing


def test_host_keys_are_read_from_the_last_whole_block() -> None:
    old, new = trust.new_host_key("a")[1], trust.new_host_key("b")[1]
    block = (
        "-----BEGIN SSH HOST KEY KEYS-----\r\n{} root@ip-10-0-0-1\r\nnonsense\r\n-----END SSH HOST KEY KEYS-----\r\n"
    )
    console = "boot\r\n" + block.format(old) + "<14>Nov 23 cloud-init: x\r\n" + block.format(new) + "login: "
    assert existing.host_keys_in(console) == {"ssh-ed25519": new}
    assert existing.host_keys_in("") == {} == existing.host_keys_in("-----BEGIN SSH HOST KEY KEYS-----\n" + new)
