"""Keys and fingerprints, compared with OpenSSH's own tools."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cloudtrain.transport.ssh_keys import (
    check_fingerprint,
    fingerprint,
    new_key,
    public_key,
)

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
