"""The cloud-config: read back as YAML, its script run by a real shell, its expiry read by systemd where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudtrain.errors import Refused
from cloudtrain.provider.ec2.trust import client_key, new_host_key
from cloudtrain.provider.ec2.user_data import LIMIT_BYTES, render
from cloudtrain.transport.ssh_keys import public_key

EXPIRY = 1795437296  # 2026-11-23 12:34:56 UTC


def config(**changes: Any) -> dict[str, Any]:
    private, public = new_host_key("brave-otter")
    client = public_key(client_key("brave-otter"))
    text = render(
        **{"host_private": private, "host_public": public, "client_public": client, "expires_at": EXPIRY, **changes}
    )
    assert text.startswith("#cloud-config\n") and len(text.encode()) < 4096
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
    assert (program, flag) == ("sh", "-c") and "OnCalendar=2026-11-23 12:34:56 UTC" in script


@pytest.mark.skipif(os.name == "nt", reason="the script runs on the instance's sh")
def test_the_script_writes_the_units_and_arms_the_timer(tmp_path: Path) -> None:
    script = config()["bootcmd"][0][2]
    log = tmp_path / "calls"
    shim = tmp_path / "bin" / "systemctl"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    shim.chmod(0o755)
    environment = {"CLOUDTRAIN_ROOT": str(tmp_path / "root"), "PATH": f"{shim.parent}:{os.environ['PATH']}"}
    for _ in range(2):  # bootcmd runs at every boot
        subprocess.run(["sh", "-c", script], env=environment, check=True, timeout=20)
    units = tmp_path / "root" / "etc" / "systemd" / "system"
    assert sorted(path.name for path in units.iterdir()) == ["cloudtrain-lease.service", "cloudtrain-lease.timer"]
    service, timer = ((units / f"cloudtrain-lease.{kind}").read_text() for kind in ("service", "timer"))
    assert "ExecStart=systemctl --no-block poweroff\n" in service
    assert "OnCalendar=2026-11-23 12:34:56 UTC\nPersistent=true\n" in timer and "WantedBy=timers.target" in timer
    assert log.read_text().splitlines()[:3] == [
        "daemon-reload",
        "enable cloudtrain-lease.timer",
        "--no-block start cloudtrain-lease.timer",
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_reads_the_time() -> None:
    script = config()["bootcmd"][0][2]
    when = next(line for line in script.splitlines() if line.startswith("OnCalendar=")).removeprefix("OnCalendar=")
    read = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, timeout=20)
    assert read.returncode == 0, read.stderr


def test_what_ec2_would_refuse_is_refused_here() -> None:
    with pytest.raises(Refused) as caught:
        config(host_private="x" * LIMIT_BYTES)
    assert caught.value.code == "user_data"
