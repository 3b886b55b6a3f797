"""Keys and fingerprints, compared with OpenSSH's own tools."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.transport.ssh_keys import (
    check_fingerprint,
    fingerprint,
    new_key,
    private_key,
    public_key,
)
from cloudtrain.transport.ssh_login import paramiko_key

needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")


@needs_keygen
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_openssh_agrees(tmp_path, kind, form):
    path = tmp_path / "key"
    options = ["-m", "PEM"] if form == "PEM" else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", *options, "-f", str(path)], check=True)
    public = path.with_suffix(".pub").read_text()
    shown = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout.split()[
        1
    ]
    assert fingerprint(public) == fingerprint(public_key(path)) == shown == check_fingerprint(shown)


@needs_keygen
def test_openssh_reads_a_new_key(tmp_path):
    public = new_key(tmp_path / "key")
    read = subprocess.run(["ssh-keygen", "-y", "-f", str(tmp_path / "key")], capture_output=True, text=True, check=True)
    assert read.stdout.split()[:2] == public.split()


def _mark(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


def _text(data: bytes) -> bytes:
    return b"Bag Attributes\n    friendlyName: key\nKey Attributes: <No Attributes>\n" + data


def _indented(data: bytes) -> bytes:
    return b"".join(b"  " + line for line in data.splitlines(keepends=True))


def _windows(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


@needs_keygen
@pytest.mark.parametrize("change", [_text, _indented, _windows, lambda data: data + b"\nx"])
@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_of_a_key_with_text_around_it_openssh_and_we_take_the_same(
    kind: str, form: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-m", form, "-f", str(path)], check=True)
    path.write_bytes(change(path.read_bytes()))
    reads = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True)
    if reads.returncode == 0:
        assert (
            public_key(path).split()[1] == reads.stdout.split()[1] == str(paramiko_key(private_key(path)).get_base64())
        )
    elif change is _windows:  # OpenSSH takes such line ends in PEM alone, we also in its own format
        assert public_key(path).endswith(paramiko_key(private_key(path)).get_base64())
    else:
        with pytest.raises(UsageError) as caught:
            public_key(path)
        assert caught.value.code == "bad_identity"


@needs_keygen
@pytest.mark.parametrize("form", ["PEM", "PKCS8"])
def test_a_byte_order_mark_is_no_part_of_a_key(form: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-m", form, "-f", str(path)], check=True)
    public = public_key(path)
    path.write_bytes(_mark(path.read_bytes()))
    assert public_key(path) == public and public.endswith(paramiko_key(private_key(path)).get_base64())
