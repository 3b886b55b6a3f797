"""The cloud-config: read back as YAML, its script run by a real shell, its expiry read by systemd where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cloudtrain.provider.ec2.reach.existing import host_keys_in
from cloudtrain.provider.ec2.trust import new_host_key
from cloudtrain.provider.ec2.user_data import calendar, lease_only
from tests.unit.provider.ec2.test_user_data import EXPIRY, config


@pytest.fixture
def boot(tmp_path: Path) -> Callable[[str], str]:
    """Runs a boot command on a machine that is a folder; what it printed."""
    shim = tmp_path / "bin" / "systemctl"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "calls"}\n')
    shim.chmod(0o755)
    environment = {"CLOUDTRAIN_ROOT": str(tmp_path / "root"), "PATH": f"{shim.parent}:{os.environ['PATH']}"}

    def run(script: str) -> str:
        done = subprocess.run(["sh", "-c", script], env=environment, check=True, timeout=20, capture_output=True)
        return done.stdout.decode() + done.stderr.decode()

    return run


def timer(tmp_path: Path) -> str:
    return (tmp_path / "root" / "etc" / "systemd" / "system" / "cloudtrain-lease.timer").read_text()


@pytest.mark.skipif(os.name == "nt", reason="the script runs on the instance's sh")
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (None, "2026-11-23 12:34:56 UTC"),
        (f"{EXPIRY + 600} {calendar(EXPIRY + 600)}", "2026-11-23 12:44:56 UTC"),
        (f"{EXPIRY - 600} {calendar(EXPIRY - 600)}", "2026-11-23 12:24:56 UTC"),
        ("nonsense 2030-01-01 00:00:00 UTC", "2026-11-23 12:34:56 UTC"),
        ("", "2026-11-23 12:34:56 UTC"),
    ],
)
def test_an_end_that_was_moved_survives_a_boot_but_not_a_new_lease(
    tmp_path: Path, boot: Callable[[str], str], kept: str | None, expected: str
) -> None:
    file = tmp_path / "root" / "etc" / "cloudtrain" / "lease"
    if kept is not None:
        file.parent.mkdir(parents=True)
        file.write_text(kept + "\n" if kept else "")
    assert boot(config()["bootcmd"][0][2]) == ""
    assert f"OnCalendar={expected}\n" in timer(tmp_path)
    # Parked and woken: the new lease is the shorter one, and stays so at every boot from then on.
    woken = yaml.safe_load(lease_only(EXPIRY + 60))["bootcmd"][0][2]
    for script in (woken, woken):
        assert boot(script) == ""
        assert "OnCalendar=2026-11-23 12:35:56 UTC\n" in timer(tmp_path) and not file.exists()


@pytest.mark.skipif(os.name == "nt", reason="the script runs on the instance's sh")
def test_the_host_key_is_told_at_each_boot_but_the_first(tmp_path: Path, boot: Callable[[str], str]) -> None:
    root = tmp_path / "root"
    (root / "etc" / "ssh").mkdir(parents=True)
    (root / "dev").mkdir()
    (root / "etc" / "ssh" / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAC3Nz of-the-image\n")
    script = config()["bootcmd"][0][2]
    boot(script)
    assert not (root / "dev" / "console").exists(), "a key of the image is nobody's"
    (root / "var" / "lib" / "cloud" / "instance" / "sem").mkdir(parents=True)
    (root / "var" / "lib" / "cloud" / "instance" / "sem" / "config_ssh").touch()
    _, public = new_host_key("brave-otter")
    (root / "etc" / "ssh" / "ssh_host_ed25519_key.pub").write_text(public + "\n")
    boot(script)
    assert host_keys_in((root / "dev" / "console").read_text()) == {"ssh-ed25519": public}
    (root / "dev" / "console").unlink()
    (root / "dev").rmdir()
    assert boot(script) == "", "a machine without a console boots all the same"


@pytest.mark.skipif(os.name == "nt", reason="the script runs on the instance's sh")
def test_the_script_writes_the_units_and_arms_the_timer(tmp_path: Path, boot: Callable[[str], str]) -> None:
    script = config()["bootcmd"][0][2]
    log = tmp_path / "calls"
    for _ in range(2):  # bootcmd runs at every boot
        assert boot(script) == ""
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
    when = next(line for line in script.splitlines() if line.startswith("expiry=")).removeprefix("expiry=").strip("'")
    read = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, timeout=20)
    assert read.returncode == 0, read.stderr
