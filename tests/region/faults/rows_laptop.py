"""Rows 20, 28 to 30 and 42 to 44: what happens to the computer that watches, and to what it knows."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from tests.region.faults.matrix import TERMINATED, Case
from tests.region.faults.rows_launch import NO_INSTANCE
from tests.region.faults.rows_link import ODD
from tests.region.faults.scene import NAME, Command, Scene

LONG = ("--pause", "0.05", "--lines", "20", "--epochs", "500")
SHORT = ("--pause", "0.05", "--lines", "40", "--epochs", "2")

SMALL_DISK = """
import shutil, subprocess, sys
runs, kept, *argv = sys.argv[1:]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", runs]).returncode:
    sys.exit("cannot mount")
with open(runs + "/ballast", "wb") as file:
    file.write(bytes(2_500_000))
code = subprocess.run(argv).returncode
shutil.copytree(runs, kept)
subprocess.run(["umount", runs], check=True)
shutil.copytree(kept, runs, dirs_exist_ok=True)
sys.exit(code)
"""


def _killed(scene: Scene) -> None:
    with scene.started(*scene.toy(*SHORT)) as command:
        scene.until(lambda: scene.here(500))
        command.signal(signal.SIGKILL)
        command.wait(30)
    scene.cli("logs", NAME)


def _moved(scene: Scene) -> None:
    scene.run(*SHORT, "--epochs", "6", flags=("-d",))
    scene.inject("caller-moves:0s")
    scene.place.environment["FAULTS_ADDRESS"] = "203.0.113.7"
    scene.cli("logs", NAME)
    told = [str(call["parameters"]) for call in scene.calls("AuthorizeSecurityGroupIngress") if call["effect"]]
    assert "127.0.0.1/32" in told[0] and "203.0.113.7/32" in told[1] and len(told) == 2
    assert [call["effect"] for call in scene.calls("RevokeSecurityGroupIngress")] == [True]


def _once(scene: Scene) -> None:
    scene.typed(scene.toy(*LONG), [("train acc", signal.SIGINT), ("[d]etach", "d\n")])


def _twice(scene: Scene) -> None:
    scene.typed(scene.toy(*LONG), [("train acc", signal.SIGINT), ("[d]etach", signal.SIGINT)])


def _to_stop(scene: Scene) -> None:
    scene.typed(scene.toy(*LONG), [("train acc", signal.SIGINT), ("[d]etach", "s\n")])


def _while_it_boots(scene: Scene) -> None:
    scene.typed(scene.toy(), [("host key pinned", signal.SIGINT), ("Terminate i-", "y\n")])


def _asleep(scene: Scene) -> None:
    with scene.started(*scene.toy(*SHORT)) as command:
        scene.until(lambda: scene.here(500))
        command.signal(signal.SIGSTOP)
        size = scene.log.stat().st_size
        time.sleep(4)
        assert scene.log.stat().st_size == size
        command.signal(signal.SIGCONT)
        command.wait(100)


def _asleep_for_long(scene: Scene) -> None:
    with scene.started(*scene.toy(*LONG, flags=("--max-time", "20s"))) as command:
        scene.until(lambda: scene.here(500))
        command.signal(signal.SIGSTOP)
        scene.until(lambda: scene.region.inventory()["instances"][0]["state"] == "stopped")
        command.signal(signal.SIGCONT)
        command.wait(100)


def _torn(scene: Scene) -> None:
    scene.run(*LONG, flags=("-d",))
    (scene.place.home / "state" / "registry.sqlite").write_bytes(b"not a registry" * 100)
    scene.cli("ls")
    assert scene.code == 2
    scene.cli("clean")


def _clean(scene: Scene) -> None:
    scene.cli("clean", "--all", "--yes")


def _lost(scene: Scene) -> None:
    scene.run("--pause", "0.02", "--lines", "30", "--epochs", "10", flags=("-d",))
    shutil.rmtree(scene.place.home)
    shutil.rmtree(scene.place.cwd / "runs")
    (instance,) = [row["id"] for row in scene.region.inventory()["instances"]]
    scene.cli("ls", "--remote")
    scene.cli("adopt", instance)
    scene.cli("logs", NAME)


def _full(scene: Scene) -> None:
    runs = scene.place.cwd / "runs"
    runs.mkdir()
    kept = scene.place.home.parent / "kept"
    screen = scene.place.home.parent / "screen"
    argv = [sys.executable, "-m", "tests.region.faults.hurried", *scene.toy("--burst", "1", job=ODD)]
    with screen.open("wb") as told:
        process = subprocess.Popen(
            ["unshare", "--mount", "--", sys.executable, "-c", SMALL_DISK, str(runs), str(kept), *argv],
            cwd=scene.place.cwd,
            env=scene.place.env(),
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
        )
    try:
        scene.until(lambda: b"this disk is full" in screen.read_bytes() or process.poll() is not None)
        if any(words in screen.read_bytes() for words in (b"cannot mount", b"unshare")):
            pytest.skip("no right to mount a small disk")
        subprocess.run(["nsenter", f"--mount=/proc/{process.pid}/ns/mnt", "rm", str(runs / "ballast")], check=True)
        process.wait(100)
    finally:
        process.kill()
        process.wait(30)
        text = screen.read_text(errors="replace")
        scene.shown(
            "".join(line for line in text.splitlines(True) if "0123456789abcdef" not in line), process.returncode
        )


def _stopped_between_writes(scene: Scene, command: Command) -> None:
    """Stop `command` at a moment at which it does not hold the registry, nor reads it, for which others would wait."""

    def stopped() -> bool:
        command.signal(signal.SIGSTOP)
        time.sleep(0.1)  # its threads stop one after the other
        registry = scene.place.home / "state" / "registry.sqlite"
        with contextlib.closing(sqlite3.connect(registry, timeout=0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                command.signal(signal.SIGCONT)
                return False
            db.execute("ROLLBACK")
            return True

    scene.until(stopped)


def _two(scene: Scene) -> None:
    with scene.started(*scene.toy("--pause", "0.1", "--lines", "40", "--epochs", "2")) as first:
        scene.until(lambda: scene.here(100))
        _stopped_between_writes(scene, first)
        said = scene.cli("clean", "--yes")
        first.signal(signal.SIGCONT)
        assert "another command is acting on" in said
        scene.cli("logs", NAME)
        assert scene.code == 0, (scene.code, first.process.poll())
        first.wait(100)
    assert len(scene.calls("TerminateInstances")) == 1


def _overtaken(scene: Scene) -> None:
    with scene.started(*scene.toy(*SHORT)) as first:
        scene.until(lambda: scene.here(100))
        with scene.started("logs", NAME) as second:
            scene.until(lambda: "epoch 1 line 0" in second.said)
            _stopped_between_writes(scene, second)
            first.wait(100)
            second.signal(signal.SIGCONT)
            second.wait(100)
        assert scene.code == 0 and all(f"epoch {e} line {n} " in second.said for e in (1, 2) for n in range(40))


CASES = (
    Case(
        row=20,
        fault="This computer's address changes in mid-training",
        how="`run -d`, then `caller-moves`, then `cloudtrain logs` on a computer whose address is 203.0.113.7: it is "
        "let in, the old address no more",
        hurried=True,
        play=_moved,
        sees=("this computer's address has changed; port 22 is open for the new one",),
        code=0,
        money=NO_INSTANCE,
        also=("tests/region/ec2/test_provider.py::test_this_computers_new_address_is_let_in_and_the_old_one_no_more",),
    ),
    Case(
        row=28,
        fault="The command is killed while it shows the log",
        how="`kill -9`, then `cloudtrain logs`",
        play=_killed,
        sees=(),
        code=0,
        money=NO_INSTANCE,
        also=("tests/region/whole_path/test_story.py::test_a_command_killed_in_mid_training_loses_nothing",),
    ),
    Case(
        row=29,
        way="once",
        fault="Ctrl-C, and `d` at the question",
        how="a terminal",
        play=_once,
        sees=("[d]etach (default)",),
        code=8,
        money="$0.536 an hour",
        alive=f"detached; {NAME} goes on",
        mend=_clean,
        then="`cloudtrain logs` returns to it, `cloudtrain stop` ends it",
        log="part",
    ),
    Case(
        row=29,
        way="twice",
        fault="Ctrl-C, and Ctrl-C again at the question",
        how="a terminal; it detaches, since the other meaning would destroy results",
        play=_twice,
        sees=("[d]etach (default)",),
        code=8,
        money="$0.536 an hour",
        alive=f"detached; {NAME} goes on",
        mend=_clean,
        then="`cloudtrain logs` returns to it, `cloudtrain stop` ends it",
        log="part",
    ),
    Case(
        row=29,
        way="to stop",
        fault="Ctrl-C, and `s` at the question",
        how="a terminal",
        play=_to_stop,
        sees=("[d]etach (default)",),
        code=130,
        money=TERMINATED,
    ),
    Case(
        row=29,
        way="while it boots",
        fault="Ctrl-C while the machine boots, and `y` at the question",
        how="a terminal, `slow-boot:20s`",
        script=("slow-boot:20s",),
        play=_while_it_boots,
        sees=("Nothing has trained yet.", "ended; nothing is running"),
        code=130,
        money=TERMINATED,
        log="",
    ),
    Case(
        row=30,
        way="for a while",
        fault="The laptop sleeps in mid-training",
        how="SIGSTOP, SIGCONT after 4 s",
        play=_asleep,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=30,
        way="past the limit",
        fault="The laptop sleeps until the run's limit is over: the machine has parked",
        how="SIGSTOP, `--max-time 20s`, SIGCONT once it has parked; it is started again for the results",
        hurried=True,
        play=_asleep_for_long,
        sees=("is parked; starting it for 30 min at most", "was ended by its time limit"),
        code=7,
        money=TERMINATED,
    ),
    Case(
        row=42,
        way="torn",
        fault="The registry of runs on this computer is torn",
        how="garbage in `registry.sqlite` in mid-training; `cloudtrain ls` refuses with exit code 2, "
        "`cloudtrain clean` goes on without it",
        play=_torn,
        sees=("going on without it",),
        code=0,
        money="1 security group; $0.536 an hour",
        alive="may be training",
        mend=_clean,
        then="`cloudtrain adopt` takes it back, `cloudtrain clean --all --yes` ends it",
        log="any",
    ),
    Case(
        row=42,
        way="lost",
        fault="The whole state folder and the run's folder are lost",
        how="both deleted in mid-training; `cloudtrain ls --remote`, `cloudtrain adopt`, `cloudtrain logs`",
        play=_lost,
        sees=("no run is known on this computer", "orphan", "EC2 Instance Connect"),
        code=0,
        money=NO_INSTANCE,
    ),
    Case(
        row=43,
        fault="This computer's disk is full while the log comes",
        how="a small disk under `runs/`, with space made after a while",
        hurried=True,
        play=_full,
        sees=("this disk is full", "the log on the host is whole"),
        code=0,
        money=TERMINATED,
        also=("tests/unit/transfer/test_follow.py", "tests/unit/transfer/test_pull.py"),
    ),
    Case(
        row=44,
        way="at once",
        fault="Two commands on one run",
        how="`cloudtrain clean` and `cloudtrain logs` beside a `cloudtrain run`: one is refused, the other reads only",
        play=_two,
        sees=("another command is acting on",),
        code=0,
        money=TERMINATED,
        also=("tests/region/whole_path/test_story.py::test_two_commands_watch_one_run_and_only_one_acts",),
    ),
    Case(
        row=44,
        way="one is asleep",
        fault="Two commands on one run, and the one that only reads is asleep until the other has ended the machine",
        how="SIGSTOP of `cloudtrain logs` beside a `cloudtrain run`; it shows the rest of the log from this disk",
        play=_overtaken,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
)
