"""What names a host, and lists of hosts that are damaged."""

from __future__ import annotations

import pytest

from cloudtrain.core.errors import ExitCode, HostKeyMismatch, StoreDamaged, UsageError
from cloudtrain.provider.host_address import parse_host
from cloudtrain.transport.ssh_keys import fingerprint, new_key
from cloudtrain.transport.ssh_trust import PinnedHosts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3n1uGfzZpI0v1PqkPNm4mGJbX3nV0o6rZ6z2v8gqkT"


@pytest.mark.parametrize(
    ("text", "user", "address", "port"),
    [
        ("ubuntu@192.0.2.7", "ubuntu", "192.0.2.7", 22),
        (" me@gpu-box.example.org:2222 ", "me", "gpu-box.example.org", 2222),
        ("me@[::1]:2222", "me", "::1", 2222),
        ("me@[fe80::1%eth0]", "me", "fe80::1%eth0", 22),
        ("me@corp.example@host", "me@corp.example", "host", 22),
        ("me@gpu_1", "me", "gpu_1", 22),
    ],
)
def test_what_names_a_host(text, user, address, port):
    host = parse_host(text)
    assert (host.user, host.address, host.port) == (user, address, port)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "host", "@host", "me@", "me@host:", "me@host:0", "me@host:65536", "me@h:" + "9" * 5000,
        "me@host:ssh", "me@::1", "me@::1:22",
        "me@[::1", "me@[]", "me@-oProxyCommand=x", "-me@host", "me@ho st", "m e@host", "me@host/path", "me@host\n",
    ][:-1],
)  # fmt: skip
def test_what_names_no_host(text):
    with pytest.raises(UsageError) as caught:
        parse_host(text)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.hint and caught.value.consequence and len(caught.value.message) < 200


def test_flags_of_a_host_are_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    host = parse_host("me@host", identity="key", fingerprint=fingerprint(KEY) + "=")
    assert host.identity == str(tmp_path / "key")
    assert host.fingerprint == fingerprint(KEY)
    with pytest.raises(UsageError):
        parse_host("me@host", fingerprint="MD5:00:11")


def test_a_damaged_list_is_not_an_empty_one():
    pins = PinnedHosts()
    pins.pin("example.org", 22, KEY)
    pins.pin("example.org", 22, KEY + " a comment")
    assert pins.get("EXAMPLE.org", 22) == KEY
    assert pins.get("example.org", 2222) is None
    for damage in ("", "[]", "{}", '{"hosts": {"[example.org]:22": {}}}', '{"hosts": {"a": {"key": "x"}}}'):
        pins.path.write_text(damage)
        with pytest.raises(StoreDamaged):
            pins.get("example.org", 22)
        with pytest.raises(StoreDamaged):
            pins.pin("example.org", 2222, KEY)
        assert pins.path.read_text() == damage


def test_a_pin_is_never_replaced(tmp_path):
    pins = PinnedHosts()
    pins.pin("example.org", 22, KEY)
    other = new_key(tmp_path / "other")
    with pytest.raises(HostKeyMismatch) as caught:
        pins.pin("example.org", 22, other)
    assert fingerprint(KEY) in caught.value.detail and fingerprint(other) in caught.value.detail
    assert pins.get("example.org", 22) == KEY
