"""The cloud-config: read back as YAML, its script and the lease that it leaves run by a real shell."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from cloudtrain.provider.ec2 import machine_lease
from cloudtrain.provider.ec2.reach.existing import host_keys_in
from cloudtrain.provider.ec2.trust import new_host_key
from cloudtrain.provider.ec2.user_data import lease_only
from tests.unit.provider.ec2.test_user_data import EXPIRY, LASTS, config

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the script runs on the instance's sh")

# Told apart by name. `sleep` ends the program that called it once there are enough calls.
SHIM = """\
#!/bin/sh
name=${0##*/}
case $name in
  sync) exit ;;
  date) cat "$CLOUDTRAIN_ROOT/clock"; exit ;;
  timeout) shift; exec "$@" ;;
esac
echo "$name $*" >> "$CLOUDTRAIN_ROOT/calls"
[ "$name" = systemctl ] && [ -e "$CLOUDTRAIN_ROOT/refuses" ] && { echo 'Access denied' >&2; exit 1; }
[ "$name" = systemctl ] || [ "$(wc -l < "$CLOUDTRAIN_ROOT/calls")" -lt 9 ] || kill "$PPID"
exit 0
"""


class Box:
    """A machine that is a folder, with a clock, an uptime and a `systemctl` of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shims = root / "usr" / "local" / "shims"
        for name in ("etc/ssh", "dev", "proc", "run", "usr/local/shims"):
            (root / name).mkdir(parents=True)
        for name in ("systemctl", "sleep", "sync", "date", "timeout"):
            (self.shims / name).write_text(SHIM)
            (self.shims / name).chmod(0o755)
        self.at(clock=EXPIRY - LASTS, up=20.0)

    def at(self, *, clock: int, up: float) -> None:
        (self.root / "clock").write_text(f"{clock}\n")
        (self.root / "proc" / "uptime").write_text(f"{up:.2f} 1.00\n")

    def sh(self, *words: str) -> tuple[int, str]:
        environment = {"CLOUDTRAIN_ROOT": str(self.root), "PATH": f"{self.shims}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", *words], env=environment, timeout=20, capture_output=True)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def boot(self, script: str) -> None:
        """A boot whose start-up data says `script`: what is below `/run` is gone, it prints nothing."""
        for path in (self.root / "run").iterdir():
            path.unlink()
        assert self.sh("-c", script) == (0, "")

    def calls(self) -> list[str]:
        """What was called since the last look."""
        log = self.root / "calls"
        found = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def look(self) -> list[str]:
        """Run the lease until it has slept often enough; what it did."""
        self.calls()
        self.sh(str(self.root / "etc" / "cloudtrain" / "lease.sh"))
        return self.calls()

    def end(self) -> str:
        """The end and the limit of this boot's lease, and what was up before."""
        return (self.root / "run" / "cloudtrain-lease").read_text().strip()

    def console(self) -> str:
        time.sleep(0.1)  # It is written in the background.
        path = self.root / "dev" / "console"
        return path.read_text() if path.exists() else ""


SCRIPT = machine_lease.script(EXPIRY, LASTS)


def test_the_script_is_what_the_start_up_data_runs() -> None:
    assert config()["bootcmd"][0][2] == SCRIPT


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path / "the root")
    made.boot(SCRIPT)
    return made


def waits(calls: list[str]) -> bool:
    return bool(calls) and all(call.startswith("sleep") for call in calls)


def test_a_lease_waits_in_looks_of_half_a_minute_and_the_last_is_shorter(box: Box) -> None:
    assert set(box.look()) == {"sleep 30"}
    box.at(clock=EXPIRY - 7, up=20)
    assert set(box.look()) == {"sleep 7"}
    box.at(clock=EXPIRY - 100, up=LASTS - 3.5)
    assert set(box.look()) == {"sleep 4"}


@pytest.mark.parametrize(
    ("clock", "up"),
    [
        (EXPIRY, LASTS - 60),
        (EXPIRY + 3 * 3600, 20),  # The clock is hours ahead at the boot, or the boot has outlasted the lease.
        (EXPIRY - 3 * 3600, LASTS),  # It is hours behind.
        (0, LASTS + 1),
    ],
)
def test_it_ends_the_machine_when_clock_or_uptime_says_so(box: Box, clock: int, up: float) -> None:
    box.at(clock=clock, up=up)
    assert box.look()[:2] == ["systemctl poweroff", "sleep 90"]


def test_a_poweroff_that_is_refused_is_tried_harder_and_each_try_is_on_the_console(box: Box) -> None:
    (box.root / "refuses").touch()
    box.at(clock=EXPIRY, up=20)
    ways = ["poweroff", "--check-inhibitors=no poweroff", "--force poweroff", "--force --force poweroff"]
    calls = box.look()
    assert calls[:8:2] == [f"systemctl {way}" for way in ways] and calls[1:8:2] == ["sleep 5"] * 4
    assert calls[8] == "systemctl poweroff", "and again from the start"
    lines = box.console()
    assert lines.count("Access denied") >= 4 and all(f"systemctl {way}\n" in lines for way in ways)


def test_what_cannot_be_understood_counts_as_over(box: Box) -> None:
    (box.root / "run" / "cloudtrain-lease").write_text("soon\n")
    assert box.look()[0] == "systemctl poweroff"


def test_a_boot_without_start_up_data_goes_by_the_disk_after_ten_minutes(box: Box) -> None:
    (box.root / "run" / "cloudtrain-lease").unlink()
    box.at(clock=EXPIRY + 60, up=599)
    assert set(box.look()) == {"sleep 5"}, "a machine that was woken may be about to be told its new lease"
    box.at(clock=EXPIRY + 60, up=600)
    assert box.look()[0] == "systemctl poweroff"
    (box.root / "etc" / "cloudtrain" / "lease").unlink()
    assert box.look()[0] == "systemctl poweroff"
    box.at(clock=EXPIRY - 60, up=700)
    box.boot(SCRIPT)
    assert waits(box.look())


def test_no_systemctl_but_the_machines_own_is_ever_called(box: Box, tmp_path: Path) -> None:
    box.at(clock=EXPIRY, up=20)
    (box.shims / "systemctl").rename(tmp_path / "systemctl")
    environment = {"CLOUDTRAIN_ROOT": str(box.root), "PATH": f"{box.shims}:{tmp_path}:{os.environ['PATH']}"}
    box.calls()
    program = str(box.root / "etc" / "cloudtrain" / "lease.sh")
    assert subprocess.run(["sh", program], env=environment, timeout=20).returncode == 1 and box.calls() == []


def test_a_moved_end_survives_a_boot_but_not_a_new_lease(box: Box) -> None:
    assert box.end() == f"{EXPIRY} {LASTS} 0"
    box.at(clock=EXPIRY - 100, up=3000)
    assert waits(box.look()), "and notes how long it was up"
    assert box.sh("-c", machine_lease.move(EXPIRY + 600, 700.0)) == (0, "")
    assert box.end() == f"{EXPIRY + 600} 3700 0"
    assert box.calls() == ["systemctl restart cloudtrain-lease.service",
                           "systemctl is-active --quiet cloudtrain-lease.service"]  # fmt: skip
    box.at(clock=EXPIRY, up=20)
    box.boot(SCRIPT)
    assert box.end() == f"{EXPIRY + 600} 3700 3000"
    box.at(clock=EXPIRY + 10, up=650)
    assert waits(box.look())
    box.at(clock=EXPIRY + 10, up=700)
    assert box.look()[0] == "systemctl poweroff"
    # Moved to an earlier end, as for a machine that is kept up after its pull.
    assert box.sh("-c", machine_lease.move(EXPIRY - 60, 5.0)) == (0, "")
    assert box.end() == f"{EXPIRY - 60} 3705 3000"
    # Parked and woken: a lease of its own, also at later boots, and its own moves hold.
    woken = yaml.safe_load(lease_only(EXPIRY + 60, 1800.0))["bootcmd"][0][2]
    box.at(clock=EXPIRY, up=10)
    box.boot(woken)
    assert box.end() == f"{EXPIRY + 60} 1800 0" and waits(box.look())
    box.boot(woken)
    assert box.end() == f"{EXPIRY + 60} 1800 10"
    assert box.sh("-c", machine_lease.move(EXPIRY + 90, 90.0)) == (0, "")
    box.boot(woken)
    assert box.end().startswith(f"{EXPIRY + 90} ")


@pytest.mark.parametrize("kept", ["", "nonsense\n", f"{EXPIRY + 600} 2026-11-23 12:44:56 UTC\n"])
def test_what_is_no_lease_of_ours_on_the_disk_is_not_honoured(box: Box, kept: str) -> None:
    """The last is that of a machine which an earlier release launched, and this one wakes."""
    (box.root / "etc" / "cloudtrain" / "lease").write_text(kept)
    box.boot(SCRIPT)
    assert box.end() == f"{EXPIRY} {LASTS} 0"


def test_a_full_disk_takes_a_new_lease_and_keeps_the_program(box: Box) -> None:
    program = (box.root / "etc" / "cloudtrain" / "lease.sh").read_text()
    woken = yaml.safe_load(lease_only(EXPIRY + 60, 1800.0))["bootcmd"][0][2]
    # What `cat` writes below etc fails, as on a full disk; /run is memory.
    (box.shims / "cat").write_text(
        "#!/bin/sh\ncase $(readlink /proc/$$/fd/1) in */etc/*) exit 1 ;; esac\nexec /bin/cat\n"
    )
    (box.shims / "cat").chmod(0o755)
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell where an output goes")
    box.boot(woken)
    assert box.end() == f"{EXPIRY + 60} 1800 0"
    assert (box.root / "etc" / "cloudtrain" / "lease.sh").read_text() == program
    assert not list(box.root.rglob("*.new"))


def test_the_age_is_written_in_place(box: Box) -> None:
    box.look()
    age = box.root / "etc" / "cloudtrain" / "age"
    before = age.stat().st_ino
    box.at(clock=EXPIRY - LASTS, up=1234.9)
    box.look()
    assert age.stat().st_ino == before and age.read_text().split() == ["1234"]


def test_an_end_that_cannot_be_moved_is_said_and_nothing_is_moved(box: Box) -> None:
    before = box.end()
    (box.root / "refuses").touch()
    code, _ = box.sh("-c", machine_lease.move(EXPIRY + 600, 700.0))
    assert code != 0
    (box.root / "refuses").unlink()
    box.boot(SCRIPT)
    assert box.end() == before


def test_the_host_key_is_told_at_each_boot_but_the_first(box: Box) -> None:
    root = box.root
    (root / "etc" / "ssh" / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAC3Nz of-the-image\n")
    box.boot(SCRIPT)
    assert not (root / "dev" / "console").exists(), "a key of the image is nobody's"
    (root / "var" / "lib" / "cloud" / "instance" / "sem").mkdir(parents=True)
    (root / "var" / "lib" / "cloud" / "instance" / "sem" / "config_ssh").touch()
    _, public = new_host_key("brave-otter")
    (root / "etc" / "ssh" / "ssh_host_ed25519_key.pub").write_text(public + "\n")
    box.boot(SCRIPT)
    assert host_keys_in((root / "dev" / "console").read_text()) == {"ssh-ed25519": public}
    (root / "dev" / "console").unlink()
    (root / "dev").rmdir()
    box.boot(SCRIPT)  # A machine without a console boots all the same.


def test_the_script_writes_the_units_and_starts_them(box: Box) -> None:
    box.calls()
    box.boot(SCRIPT)
    units = box.root / "etc" / "systemd" / "system"
    assert sorted(path.name for path in units.iterdir()) == ["cloudtrain-lease.service", "cloudtrain-lease.timer"]
    service, timer = ((units / f"cloudtrain-lease.{kind}").read_text() for kind in ("service", "timer"))
    assert f'ExecStart=/bin/sh "{box.root}/etc/cloudtrain/lease.sh"\nRestart=always\n' in service
    assert all("IgnoreOnIsolate=yes\n" in unit for unit in (service, timer))
    assert "OnBootSec=30\nOnUnitInactiveSec=30\n" in timer and "WantedBy=timers.target" in timer
    assert box.calls() == [
        "systemctl daemon-reload",
        "systemctl enable cloudtrain-lease.service cloudtrain-lease.timer",
        "systemctl --no-block restart cloudtrain-lease.service cloudtrain-lease.timer",
    ]
