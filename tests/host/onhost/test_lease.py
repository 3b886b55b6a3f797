"""The run's own end on its host: a deadline that moves, a machine that goes off once nobody looks any more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.onhost import files, lease
from cloudtrain.onhost.base import uptime
from tests.host.onhost.conftest import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="machines that park are Linux machines")


@pytest.fixture
def powered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that holds the words of each `sudo` of the host."""
    told, folder = tmp_path / "told", tmp_path / "bin"
    folder.mkdir()
    # Without the script, whose words are what is asked of root in it.
    text = f'#!/bin/sh\necho "$1 $2 $3 $5 $6 $7" >> {told}\n'
    (folder / "sudo").write_text(text)
    (folder / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return told


def test_a_deadline_moves_while_the_job_runs(host: Any) -> None:
    host.start("import time\ntime.sleep(60)\n", lasts=3, grace=1)
    moved = time.time() + 6
    assert host.ask("lease", "--lasts", "6")["ends"] == pytest.approx(uptime() + 6, abs=2.0)
    record = host.finished()
    assert record["stop"] == "deadline" and record["at"] >= moved - 0.1


def test_a_deadline_is_never_moved_forward(host: Any) -> None:
    """What was promised at the start holds, whatever a late command says."""
    host.start("import time\ntime.sleep(2)\n", lasts=60)
    host.ask("lease", "--lasts", "-60")
    assert host.finished()["stop"] is None


def test_the_machine_goes_off_when_the_grace_is_over(host: Any, powered: Path) -> None:
    host.start("print('done')\n", lingers=True)
    ended = host.finished()["at"]
    time.sleep(1.5)
    assert not powered.exists(), "no grace was set: it may not keep its disk"
    assert host.ask("lease", "--grace", "2")["state"] == "exited"
    asked = time.time()
    wait_until(powered.exists, "poweroff")
    assert time.time() >= max(ended, asked) + 1.5
    assert [words.split() for words in powered.read_text().splitlines()] == [["-n", "sh", "-c", "sh"]]


@pytest.mark.parametrize("off", [-86400.0, 86400.0])
def test_a_grace_is_counted_by_uptime_whatever_the_clock_is_set_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    run, real, began = files.Run(str(tmp_path)), time.time, time.monotonic()
    files.save(run.path("exit.json"), {"at": real()})
    files.save(run.path("lease.json"), {"grace": 1.0})
    offs: list[float] = []

    def off_it_goes(how: list[str]) -> bool:
        (tmp_path / "exit.json").unlink()  # then nothing is waited for any more
        offs.append(time.monotonic() - began)
        return True

    def sleep(seconds: float, real: Any = time.sleep) -> None:
        assert time.monotonic() - began < 20, "it waits for ever"
        if not (tmp_path / "touched").exists():
            files.touch(run)
        real(min(seconds, 0.1))

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "time", lambda: real() + (off if time.monotonic() > began + 0.3 else 0.0))
    monkeypatch.setattr(lease, "_power_off", off_it_goes)
    lease.power_off_unless_wanted(run, 0.0)
    assert [0.9 <= after < 10 for after in offs] == [True]


def test_a_poweroff_that_is_refused_is_tried_again_and_harder(host: Any, powered: Path) -> None:
    """As root refuses one since systemd 257, while a package manager works."""
    sudo = powered.parent / "bin" / "sudo"
    sudo.write_text(sudo.read_text() + "exit 1\n")
    host.start("print('done')\n", lingers=True)
    host.ask("lease", "--grace", "0.1")
    wait_until(lambda: powered.exists() and powered.read_text().count("\n") >= 3, "three tries")
    assert [words.split()[4:] for words in powered.read_text().splitlines()[:3]] == [
        [],
        ["--check-inhibitors=no"],
        ["--force"],
    ]


def test_the_poweroff_goes_to_the_console_and_never_to_another_machines_systemctl(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    (root / "bin").mkdir()
    told = tmp_path / "told"
    shim = root / "bin" / "systemctl"
    shim.write_text(f'#!/bin/sh\necho "$@" > {told}\n')
    shim.chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(shim, elsewhere)
    environment = {"CLOUDTRAIN_ROOT": str(root), "PATH": f"{shim.parent}:{elsewhere}:/usr/bin:/bin"}
    words = ["sh", "-c", lease._POWEROFF, "sh", "--force"]
    assert subprocess.run(words, env=environment).returncode == 0
    assert told.read_text() == "--no-block --force poweroff\n"
    console = root / "dev" / "console"
    wait_until(lambda: console.exists() and "systemctl --force poweroff" in console.read_text(), "the console")
    told.unlink()
    shim.unlink()
    assert subprocess.run(words, env=environment).returncode == 1 and not told.exists()


def test_a_client_that_looks_begins_the_grace_anew(host: Any, powered: Path) -> None:
    host.start("print('done')\n", lingers=True)
    host.ask("lease", "--grace", "3")
    host.finished()
    for verb in ("poll", "manifest", "poll", "manifest", "poll"):
        time.sleep(1)
        host.ask(verb)
    assert not powered.exists()
    wait_until(powered.exists, "poweroff")


def test_a_run_that_does_not_linger_leaves_nothing(host: Any, powered: Path) -> None:
    host.start("print('done')\n")
    host.ask("lease", "--grace", "0.1")
    host.finished()
    host.nothing_left()
    assert not powered.exists()


def test_a_run_without_a_lease_is_only_read(host: Any) -> None:
    host.start("print('done')\n")
    host.finished()
    host.ask("poll")
    assert not (host.run_dir() / "touched").exists()


def test_a_run_that_was_never_started_has_no_lease(host: Any) -> None:
    answer = host.ask("lease", "--grace", "1")
    assert (answer["ok"], answer["code"]) == (False, "absent")
    assert not host.run_dir().exists()


def test_lingering_is_a_yes_or_no(host: Any) -> None:
    answer = host.ask("start", stdin=host.spec("print()", lingers="10m"))
    assert answer["code"] == "bad_spec"
