"""OpenSSH reads the entry of a run as it was meant."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cloudtrain.core.instance import Login
from cloudtrain.lifecycle import openssh
from cloudtrain.lifecycle.openssh import Way


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


def a_way(home: Path, port: int = 22) -> Way:
    login = Login((home / "keys" / "id",), "ssh-ed25519 AAAA")
    return Way("203.0.113.20", port, "ubuntu", login, "ct-brave-otter", home / "keys" / "known_hosts")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client")
def test_openssh_reads_the_entry_as_it_was_meant(home: Path) -> None:
    openssh.write({"brave-otter": a_way(home, 2222), "wide-heron": a_way(home)})
    shown = subprocess.run(
        ["ssh", "-F", str(openssh.our_file()), "-G", "ct-brave-otter"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.splitlines()
    for line in (
        "hostname 203.0.113.20",
        "port 2222",
        "user ubuntu",
        "stricthostkeychecking true",
        "forwardagent no",
        "identitiesonly yes",
        f"identityfile {home / 'keys' / 'id'}",
    ):
        assert line in shown
    openssh.write({})
    assert "Host" not in openssh.our_file().read_text()
