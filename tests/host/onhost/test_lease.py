"""The run's own end on its host: a deadline that moves, a machine that goes off once nobody looks any more."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.host.onhost.conftest import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="machines that park are Linux machines")


@pytest.fixture
def powered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that holds the words of each `sudo` of the host."""
    told, folder = tmp_path / "told", tmp_path / "bin"
    folder.mkdir()
    (folder / "sudo").write_text(f'#!/bin/sh\nprintf "%s " "$@" >> {told}\n')
    (folder / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return told


def test_a_deadline_moves_while_the_job_runs(host: Any) -> None:
    host.start("import time\ntime.sleep(60)\n", deadline=time.time() + 3, grace=1)
    moved = time.time() + 6
    assert host.ask("lease", "--deadline", str(moved))["deadline"] == moved
    record = host.finished()
    assert record["stop"] == "deadline" and record["at"] >= moved


def test_a_deadline_is_never_moved_forward(host: Any) -> None:
    """What was promised at the start holds, whatever a late command says."""
    host.start("import time\ntime.sleep(2)\n", deadline=time.time() + 60)
    host.ask("lease", "--deadline", str(time.time() - 60))
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
    assert powered.read_text().split() == ["-n", "systemctl", "--no-block", "poweroff"]


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
