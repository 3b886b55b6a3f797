"""Units, timers and `systemctl` of an emulated machine, against what systemd 252 does."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudtrain.emulator.machine import cloudinit
from cloudtrain.emulator.machine.systemd import Systemd, calendar, read_unit, span


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("5min 20s", 320), ("2h", 7200), ("1.5 h", 5400), ("100ms", 0.1), ("1d", 86400)]
)
def test_time_spans(text, seconds):
    assert span(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-3"])
def test_what_is_no_time_span(text):
    with pytest.raises(ValueError):
        span(text)


def test_calendar_takes_the_form_of_a_lease_and_refuses_iso():
    at = datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC).timestamp()
    assert calendar("2026-11-23 12:34:56 UTC") == at == calendar("Mon 2026-11-23 12:34:56 UTC")
    for text in ("2026-11-23T12:34:56", "2026-11-23 12:34:56Z", "tomorrow"):
        with pytest.raises(ValueError):
            calendar(text)


class Box:
    """An init system in a folder, and what it did."""

    def __init__(self, root: Path) -> None:
        self.ran: list[list[str]] = []
        self.power: list[str] = []
        self.reloads = 0
        self.journal: list[str] = []
        self.folder = root / "etc" / "systemd" / "system"
        self.folder.mkdir(parents=True)
        self.root = root
        self.ctl = self.new()

    def new(self) -> Systemd:
        return Systemd(
            self.root, execute=self.execute, power=self.power.append, reload_ssh=self.reload, log=self.journal.append
        )

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
        box.timer("OnActiveSec=200ms")
        assert box.do("start lease.timer") == 5, "not loaded yet"
        assert box.do("daemon-reload") == 0 and box.do("--no-block start lease.timer") == 0
        assert box.do("is-active lease.timer") == 0 and not box.ran
        await until(lambda: box.ran)
        assert box.ran == [["echo", "lease", "two words"]] and box.do("is-active lease.timer") == 3

    in_box(tmp_path, story)


def test_a_past_time_fires_only_if_persistent(tmp_path):
    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(-60)}", name="lost")
        box.timer(f"OnCalendar={at(-60)}", "Persistent=true", name="kept")
        box.do("daemon-reload")
        assert box.do("start lost.timer kept.timer") == 0
        await until(lambda: box.ran)
        await asyncio.sleep(0.1)
        assert [argv[1] for argv in box.ran] == ["kept"]

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
        box.do("stop lease.timer")
        assert not box.ctl.timers()

    in_box(tmp_path, story)


def test_only_enabled_units_come_back_after_a_boot(tmp_path):
    async def story(box: Box) -> None:
        box.timer(f"OnCalendar={at(600)}", name="kept")
        box.timer(f"OnCalendar={at(600)}", name="lost")
        box.timer(f"OnCalendar={at(600)}", name="bare", install=False)
        assert (
            box.do("enable kept.timer") == 0 and box.do("enable bare.timer") == 0 and box.do("enable none.timer") == 1
        )
        assert [box.do(f"is-enabled {n}.timer") for n in ("kept", "lost", "bare")] == [0, 1, 1]
        box.do("daemon-reload")
        box.do("start kept.timer lost.timer")
        await box.ctl.stop_all()
        box.ctl = box.new()
        box.ctl.boot()
        assert list(box.ctl.timers()) == ["kept.timer"]
        assert box.do("disable --now kept.timer") == 0 and not box.ctl.timers()

    in_box(tmp_path, story)


def test_bad_units_are_reported_and_do_no_harm(tmp_path):
    async def story(box: Box) -> None:
        box.timer("OnCalendar=2026-11-23T12:34:56Z", name="iso")
        (box.folder / "torn.service").write_text("ExecStart=echo\n")
        (box.folder / "fails.service").write_text("[Service]\nExecStart=false\n")
        box.do("daemon-reload")
        assert box.do("start iso.timer") == 1 and any("torn.service" in line for line in box.journal)
        assert box.do("start fails") == 0
        await until(lambda: any("status=1" in line for line in box.journal))
        assert box.ctl.systemctl(["is-active", "fails"]) == (3, "failed\n")
        assert box.do("frobnicate iso.timer") == 1 and box.do("start") == 1

    in_box(tmp_path, story)


def test_power_and_ssh(tmp_path):
    async def story(box: Box) -> None:
        for words in ("poweroff", "--no-block poweroff", "reboot", "shutdown -h now", "shutdown -r now", "halt"):
            assert box.do(words) == 0
        assert box.power == ["poweroff", "poweroff", "reboot", "poweroff", "reboot", "halt"]
        assert box.do("shutdown +5") == 1 and len(box.power) == 6
        assert box.do("reload ssh") == 0 and box.do("restart sshd.service") == 0 and box.reloads == 2

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
