"""Units, timers and `systemctl` of an emulated machine as systemd 252 has them; no more than cloudtrain asks."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudtrain.emulator.machine import cloudinit
from cloudtrain.emulator.machine.systemd import Systemd, calendar, read_unit


def test_calendar_takes_the_form_of_a_lease_and_refuses_iso():
    at = datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC).timestamp()
    assert calendar("2026-11-23 12:34:56 UTC") == at
    for text in ("2026-11-23T12:34:56", "2026-11-23 12:34:56Z", "tomorrow"):
        with pytest.raises(ValueError):
            calendar(text)


class Box:
    """An init system in a folder, and what it did."""

    def __init__(self, root: Path) -> None:
        self.ran: list[list[str]] = []
        self.powered_off = self.reloads = 0
        self.journal: list[str] = []
        self.folder = root / "etc" / "systemd" / "system"
        self.folder.mkdir(parents=True)
        self.root = root
        self.ctl = self.new()

    def new(self) -> Systemd:
        return Systemd(
            self.root, execute=self.execute, power=self.power, reload_ssh=self.reload, log=self.journal.append
        )

    def power(self) -> None:
        self.powered_off += 1

    def reload(self) -> None:
        self.reloads += 1

    async def execute(self, argv: list[str]) -> int:
        self.ran.append(argv)
        return 0 if argv[0] != "false" else 1

    def timer(self, *lines: str, name: str = "lease", install: bool = True) -> None:
        (self.folder / f"{name}.service").write_text(f"[Service]\nType=oneshot\nExecStart=echo {name} 'two words'\n")
        text = "[Timer]\n" + "\n".join(lines) + ("\n[Install]\nWantedBy=timers.target\n" if install else "\n")
        (self.folder / f"{name}.timer").write_text(text)

    def do(self, words: str) -> int:
        return self.ctl.systemctl(words.split())[0]


def at(seconds: float) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} UTC"


async def until(holds, limit: float = 10.0) -> None:
    async with asyncio.timeout(limit):
        while not holds():
            await asyncio.sleep(0.01)


def in_box(tmp_path, story):
    async def main() -> None:
        box = Box(tmp_path)
        await story(box)
        await box.ctl.stop_all()

    asyncio.run(main())


def test_a_timer_fires_its_service_once(tmp_path):
    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(2)}")
        assert box.do("start lease.timer") == 5, "not loaded yet"
        assert box.do("daemon-reload") == 0 and box.do("--no-block start lease.timer") == 0
        assert box.do("is-active lease.timer") == 0 and not box.ran
        await until(lambda: box.ran)
        assert box.ran == [["echo", "lease", "two words"]]
        assert box.do("is-active lease.timer") == 0 and box.ctl.timers() == {}, "active, elapsed, without a next time"

    in_box(tmp_path, story)


def test_a_past_time_fires_only_if_persistent_and_begun_before_it_was_past(tmp_path):
    """systemd 252 and 257: the very first start of a persistent timer counts as a run, as its stamp file says."""

    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(-60)}", name="lost")
        for name in ("first", "kept"):
            box.timer(f"OnCalendar={at(-60)}", "Persistent=true", name=name)
        stamp = box.root / "var" / "lib" / "systemd" / "timers" / "stamp-kept.timer"
        stamp.parent.mkdir(parents=True)
        stamp.touch()
        os.utime(stamp, (time.time() - 3600,) * 2)
        box.do("daemon-reload")
        assert box.do("start lost.timer first.timer kept.timer") == 0
        await until(lambda: box.ran)
        await asyncio.sleep(0.1)
        assert [argv[1] for argv in box.ran] == ["kept"]
        assert box.do("is-active first.timer") == 0 and box.ctl.timers() == {}

    in_box(tmp_path, story)


def test_a_changed_file_needs_a_reload_and_a_restart(tmp_path):
    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(600)}")
        box.do("daemon-reload")
        box.do("start lease.timer")
        first = box.ctl.timers()
        box.timer(f"OnCalendar={at(1200)}")
        box.do("restart lease.timer")
        assert box.ctl.timers() == first, "the old file is still the loaded one"
        box.do("daemon-reload")
        box.do("start lease.timer")
        assert box.ctl.timers() == first, "start leaves an active timer alone"
        box.do("restart lease.timer")
        assert box.ctl.timers()["lease.timer"] > first["lease.timer"] + 500

    in_box(tmp_path, story)


def test_only_enabled_units_come_back_after_a_boot(tmp_path):
    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(600)}", name="kept")
        box.timer(f"OnCalendar={at(600)}", name="lost")
        box.timer(f"OnCalendar={at(600)}", name="bare", install=False)
        assert (
            box.do("enable kept.timer") == 0 and box.do("enable bare.timer") == 0 and box.do("enable none.timer") == 1
        )
        box.do("daemon-reload")
        assert [box.do(f"start {name}.timer") for name in ("kept", "lost", "bare")] == [0, 0, 0]
        await box.ctl.stop_all()
        box.ctl = box.new()
        box.ctl.boot()
        assert list(box.ctl.timers()) == ["kept.timer"]

    in_box(tmp_path, story)


def test_bad_units_are_reported_and_do_no_harm(tmp_path):
    async def story(box: Box) -> None:
        box.timer("OnCalendar=2026-11-23T12:34:56Z", name="iso")
        (box.folder / "torn.service").write_text("ExecStart=echo\n")
        (box.folder / "fails.service").write_text("[Service]\nExecStart=false\n")
        box.do("daemon-reload")
        assert box.do("start iso.timer") == 1 and any("torn.service" in line for line in box.journal)
        assert box.do("start fails.service") == 0
        await until(lambda: any("status=1" in line for line in box.journal))
        assert box.ctl.systemctl(["is-active", "fails.service"]) == (3, "inactive\n")

    in_box(tmp_path, story)


def test_a_service_that_always_restarts_is_back_and_a_timer_revives_one_that_is_not(tmp_path):
    async def story(box: Box) -> None:
        lasting = "[Service]\nExecStart=false\nRestart=always\nRestartSec=0.2\n"
        (box.folder / "lasting.service").write_text(lasting)
        box.timer("OnBootSec=0.1", "OnUnitInactiveSec=0.2", name="again")
        box.do("daemon-reload")
        assert box.do("enable lasting.service again.timer") == 0
        assert box.do("start lasting.service again.timer") == 0 and box.do("is-active lasting.service") == 0
        await until(lambda: len(box.ran) >= 6)
        assert box.ran.count(["false"]) >= 2 and box.ran.count(["echo", "again", "two words"]) >= 2
        assert box.ctl.timers() == {} and box.do("is-active again.timer") == 0
        assert box.do("restart lasting.service") == 0 and box.do("is-active lasting.service") == 0

    in_box(tmp_path, story)


def test_power_and_ssh(tmp_path):
    async def story(box: Box) -> None:
        assert box.do("poweroff") == 0 and box.do("--no-block poweroff") == 0 and box.powered_off == 2
        box.ctl.inhibited = lambda: True
        code, text = box.ctl.systemctl(["poweroff"])
        assert code == 1 and "Access denied" in text and box.powered_off == 2
        for how in ("--check-inhibitors=no", "--force", "--force --force"):
            assert box.do(f"{how} poweroff") == 0
        assert box.powered_off == 5
        assert box.do("reload ssh") == 0 and box.do("reload sshd") == 0 and box.reloads == 2

    in_box(tmp_path, story)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "start",
        "reboot",
        "shutdown -h now",
        "stop lease.timer",
        "list-timers",
    ],
)
def test_what_no_lease_needs_is_refused(tmp_path, words):
    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(600)}")
        box.do("daemon-reload")
        code, text = box.ctl.systemctl(words.split())
        assert code == 1 and text.startswith("an emulated machine does not understand") and words in text
        assert not box.powered_off and not box.ran

    in_box(tmp_path, story)


def test_a_unit_keeps_what_follows_the_first_equals_sign(tmp_path):
    path = tmp_path / "a.service"
    path.write_text("# note\n[Service]\nEnvironment=A=b\nExecStart=sh -c 'x=1; echo $x'\n")
    assert read_unit(path).get("Service", "ExecStart") == "sh -c 'x=1; echo $x'"


def test_timers_go_by_the_wall_clock(tmp_path, monkeypatch):
    """A laptop that slept through the expiry fires at once when it wakes."""

    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(3600)}")
        box.do("daemon-reload")
        box.do("start lease.timer")
        await asyncio.sleep(0.05)
        assert not box.ran
        real = time.time
        monkeypatch.setattr("cloudtrain.emulator.machine.systemd.time.time", lambda: real() + 7200)
        await until(lambda: box.ran)
        monkeypatch.undo()

    in_box(tmp_path, story)


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"", None), (b"#!/bin/sh\ntrue\n", None), (b"#cloud-config\n{}", None), (b"hello", "unhandled"),
     (b"#cloud-config\n[1]", "mapping"), (b"#cloud-config\n: [", "yaml"), (b"\x1f\x8bnope", "decoded"),
     (b"\xff\xfe", "decoded")],
)  # fmt: skip
def test_user_data_never_raises(data, problem):
    found = cloudinit.parse(data).problem
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_user_data_is_read_as_cloud_init_does():
    import gzip

    keys = "ssh_keys: {ed25519_private: PRIVATE, ed25519_public: PUBLIC}\nssh_authorized_keys: [KEY]\n"
    text = f"#cloud-config\n{keys}bootcmd: [[sh, -c, a], b c]\n".encode()
    found = cloudinit.parse(gzip.compress(text))
    assert found.host_keys == {"ed25519": "PRIVATE"} and found.authorized_keys == ("KEY",)
    assert found.bootcmd == (["sh", "-c", "a"], ["sh", "-c", "b c"])
