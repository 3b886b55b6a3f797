"""Keys and fingerprints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.transport.ssh_keys import (
    check_fingerprint,
    new_key,
    parse_public_key,
    private_key,
    public_key,
)


def test_a_new_key_is_private_and_durable_and_never_replaced(tmp_path):
    path = tmp_path / "keys" / "run" / "client"
    public = new_key(path)
    assert public.startswith("ssh-ed25519 AAAA")
    assert public_key(path) == public
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        new_key(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    ["", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 !!!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "hello world", "ü ü"],
)
def test_what_is_no_public_key(text):
    with pytest.raises(UsageError):
        parse_public_key(text)


@pytest.mark.parametrize("text", ["", "SHA256:", "MD5:aa:bb", "SHA256:" + "a" * 42, "sha256:" + "a" * 43])
def test_what_is_no_fingerprint(text):
    with pytest.raises(UsageError) as caught:
        check_fingerprint(text)
    assert "ssh-keygen" in (caught.value.hint or "")


def test_a_torn_key_is_refused(tmp_path: Path):
    new_key(tmp_path / "key")
    whole = (tmp_path / "key").read_bytes()
    for size in (0, 1, 40, len(whole) // 2, len(whole) - 40):
        (tmp_path / "key").write_bytes(whole[:size])
        with pytest.raises(UsageError):
            private_key(tmp_path / "key")
