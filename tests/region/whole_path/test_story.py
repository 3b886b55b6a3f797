"""Tiers 3 to 5: the whole story in every place, well and badly ended, with real processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.region.whole_path.place import Place

# One place for what plays alike in all of them. On an emulated machine most are cases of the fault matrix, too
# (tests/region/faults), and what the story makes of it is shown in tests/unit/lifecycle/test_story.py.
LOCAL = pytest.mark.parametrize("place", ["local"], indirect=True)
SSHD = pytest.mark.parametrize("place", [pytest.param("sshd", marks=pytest.mark.sshd)], indirect=True)


def sums_hold(folder: Path) -> None:
    """Every file is what SHA256SUMS says, and nothing half-written is there."""
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert not list(folder.rglob("*.part"))


def log_of(epochs: int, lines: int) -> bytes:
    """What the toy prints."""
    text = "epoch {} line {} [bold]žluť[/bold] \x1b]0;title\x07 \r 50%\r100%|███|\n"
    return "".join(text.format(e, n) for e in range(1, epochs + 1) for n in range(lines)).encode()


def test_a_run_from_start_to_end(place: Place) -> None:
    done = place.cli(*place.toy("good-run", "--lines", "30"))
    folder = place.folder("good-run")
    assert (folder / "console.log").read_bytes() == log_of(2, 30)
    assert (folder / "weights" / "best with space é.bin").read_bytes() == b"\0" * 300_000
    assert json.loads((folder / "metrics.jsonl").read_text())["epoch"] == 2
    sums_hold(folder)
    assert b"Best Test Accuracy: 98.20 (2nd Epoch)" in done.stdout
    receipt = json.loads((folder / "run.json").read_text())
    assert (receipt["status"], receipt["exit"]["code"]) == ("succeeded", 0)
    assert receipt["log"]["sha256"] == hashlib.sha256(log_of(2, 30)).hexdigest()
    shown = json.loads(place.cli("show", "good-run", "--json").stdout)
    assert shown["state"] == "succeeded" and shown.items() >= place.shown("good-run").items()
    assert not place.processes("good-run")
    # What was printed cannot act on the terminal; piped logs are the file's own bytes.
    assert b"\x1b]0;" not in done.stderr + done.stdout
    assert place.cli("logs", "good-run").stdout == log_of(2, 30)
    assert place.cli("logs", "-n", "1").stdout == log_of(2, 30).split(b"\n")[-2] + b"\n"
    place.after()


@LOCAL
def test_a_training_that_fails_is_pulled_and_says_why(place: Place) -> None:
    done = place.cli(*place.toy("bad-run", "--crash", "out of luck"), code=3)
    told = done.stderr.decode()
    assert "training failed in epoch 2 with exit code 1" in told and "out of luck" in told and "try again" in told
    folder = place.folder("bad-run")
    assert (folder / "console.log").read_bytes() == log_of(2, 20) + b"out of luck\n"
    sums_hold(folder)
    assert place.shown("bad-run")["status"] == "failed (exit 1)"
    place.after()


@LOCAL
def test_a_training_that_is_killed_by_a_signal(place: Place) -> None:
    done = place.cli(*place.toy("killed-run", "--kill", str(int(signal.SIGSEGV))), code=3)
    assert f"signal {int(signal.SIGSEGV)}" in done.stderr.decode()
    sums_hold(place.folder("killed-run"))
    place.after()


@LOCAL
def test_stop_ends_every_process_and_pulls_what_there_is(place: Place) -> None:
    place.cli(*place.toy("hung-run", "--hang", "--epochs", "5000", "--pause", "0.4", "--lines", "5", flags=("-d",)))
    place.wait_for(lambda: len(place.processes("hung-run")) >= 3)
    place.wait_for(lambda: bool(list(place.home.parent.rglob("runs/hung-run*/out/weights/last.bin"))))
    place.cli("pull", "hung-run")
    began = time.monotonic()
    done = place.cli("stop", "hung-run", "--yes", "--json")
    assert time.monotonic() - began < 60
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["type"], result["state"]) == ("result", "stopped")
    assert not place.processes("hung-run")
    sums_hold(place.folder("hung-run"))
    assert "has already ended" in place.cli("stop", "hung-run", "--yes").stderr.decode()
    place.after()


@SSHD
def test_two_computers_have_a_run_of_one_name_on_one_host(place: Place, tmp_path: Path) -> None:
    """Each trains and pulls its own, and ends its own."""
    other = replace(place, home=tmp_path / "other home", cwd=tmp_path / "other")
    other.cwd.mkdir()
    go = tmp_path / "go"
    place.cli(*place.toy("nightly", "--lines", "3", "--until", str(go), flags=("-d",)))
    other.cli(*other.toy("nightly", "--lines", "5"))
    assert (other.folder("nightly") / "console.log").read_bytes() == log_of(2, 5)
    other.cli("pull", "nightly")
    assert "has already ended" in other.cli("stop", "nightly", "--yes").stderr.decode()
    assert place.shown("nightly")["state"] == "running" and place.processes("nightly")
    go.touch()
    assert place.cli("logs").stdout == log_of(2, 3)
    for one in (place, other):
        receipt = json.loads((one.folder("nightly") / "run.json").read_text())
        assert receipt["status"] == "succeeded"
        sums_hold(one.folder("nightly"))


@SSHD
def test_a_command_killed_in_mid_training_loses_nothing(place: Place) -> None:
    argv = place.toy("left-run", "--lines", "40", "--pause", "0.03", "--epochs", "3")
    with place.started(*argv) as command:
        log = place.folder("left-run") / "console.log"
        place.wait_for(lambda: log.exists() and log.stat().st_size > 500)
        command.send_signal(signal.SIGKILL)
        command.wait(30)
    seen = log.stat().st_size
    assert place.processes("left-run"), "the training went down with the command"
    assert 0 < seen < len(log_of(3, 40))
    done = place.cli("logs")
    assert done.stdout == log_of(3, 40)
    assert log.read_bytes() == log_of(3, 40)
    sums_hold(place.folder("left-run"))
    assert place.shown("left-run")["state"] == "succeeded"
    place.after()


@LOCAL
def test_a_killed_supervisor_is_reported_as_lost_with_what_could_be_saved(place: Place) -> None:
    argv = place.toy("lost-run", "--lines", "10", "--pause", "0.05", "--epochs", "200")
    with place.started(*argv) as command:
        place.wait_for(lambda: b'"epoch": 2' in _read(place.folder("lost-run") / "events.jsonl"))
        os.kill(place.supervisor("lost-run"), signal.SIGKILL)
        began = time.monotonic()
        _, told = command.communicate(timeout=60)
        assert time.monotonic() - began < 30
    assert command.returncode == 6, told.decode()
    assert b"was lost" in told
    assert place.shown("lost-run")["state"] == "lost"
    assert (place.folder("lost-run") / "weights" / "last.bin").stat().st_size == 1001
    place.wait_for(lambda: not place.processes("lost-run"), seconds=15)
    sums_hold(place.folder("lost-run"))
    place.after()


@LOCAL
def test_detach_and_come_back(place: Place) -> None:
    done = place.cli(*place.toy("quiet-run", "--pause", "0.02", flags=("--detach",)))
    assert b"cloudtrain logs quiet-run" in done.stderr
    assert place.cli("ls", "-q").stdout == b"quiet-run\n"
    assert place.cli("logs", "quiet").stdout == log_of(2, 20)
    sums_hold(place.folder("quiet-run"))
    place.after()


@LOCAL
def test_two_commands_watch_one_run_and_only_one_acts(place: Place) -> None:
    argv = place.toy("shared-run", "--lines", "30", "--pause", "0.05", "--epochs", "2")
    with place.started(*argv) as first:
        log = place.folder("shared-run") / "console.log"
        place.wait_for(lambda: log.exists() and log.stat().st_size > 100)
        second = place.cli("logs", "shared-run")
        first.communicate(timeout=60)
    assert first.returncode == 0
    assert second.stdout == log_of(2, 30)
    assert log.read_bytes() == log_of(2, 30)
    sums_hold(place.folder("shared-run"))
    place.after()


@LOCAL
def test_sigterm_detaches(place: Place) -> None:
    argv = place.toy("calm-run", "--lines", "40", "--pause", "0.05", "--epochs", "2")
    with place.started(*argv) as command:
        log = place.folder("calm-run") / "console.log"
        place.wait_for(lambda: log.exists() and log.stat().st_size > 100)
        command.send_signal(signal.SIGTERM)
        _, told = command.communicate(timeout=30)
    assert command.returncode == 8 and b"goes on" in told, told.decode()
    assert place.cli("logs", "calm-run").stdout == log_of(2, 40)
    place.after()


@LOCAL
def test_json_is_one_object_a_line_and_one_result_last(place: Place) -> None:
    done = place.cli(*place.toy("json-run", flags=("--json",)))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "plan" and lines[-1]["type"] == "result"
    assert [line["type"] for line in lines].count("result") == 1
    assert {line["run"] for line in lines} == {"json-run"}
    assert [line["epoch"] for line in lines if line["type"] == "epoch"] == [1, 2]
    assert lines[-1]["ok"] is True and lines[-1]["exit"] == 0
    assert {artifact["name"] for artifact in lines[-1]["artifacts"]} >= {"metrics.jsonl", "weights/last.bin"}
    place.after()
    # Its results are pulled again when they are spoilt.
    weights = place.folder("json-run") / "weights" / "last.bin"
    good = weights.read_bytes()
    place.cli("pull", "json-run")
    weights.write_bytes(b"spoilt")
    place.cli("pull", "json-run")
    assert weights.read_bytes() == good
    sums_hold(place.folder("json-run"))


def _read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
