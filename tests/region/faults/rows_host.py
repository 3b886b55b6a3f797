"""Rows 22, 25 to 27, 31, 32, 34 and 38: a job or a machine that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.region.faults.matrix import TERMINATED, Case
from tests.region.faults.rows_link import ODD, heavy_job
from tests.region.faults.scene import NAME, Scene

Play = Callable[[Scene], None]


def _full_push(scene: Scene) -> None:
    scene.run(job=heavy_job(scene, 600_000))


def _full_training(scene: Scene) -> None:
    scene.run("--fill", "600000", job=ODD)


def _burst(scene: Scene) -> None:
    """50 MB/s and more, in front of a terminal that takes 200 kB/s at first."""
    argv = scene.toy("--burst", "8", job=ODD)
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudtrain", *argv],
        cwd=scene.place.cwd,
        env=scene.place.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    pieces = []
    assert process.stdout is not None
    try:
        while piece := process.stdout.read1(20_000):
            pieces.append(piece)
            if len(pieces) < 30:
                time.sleep(0.1)
        process.wait(60)
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
    text = b"".join(pieces).decode(errors="replace")
    kept = [line for line in text.splitlines(True) if "0123456789abcdef" not in line]
    scene.shown("".join(kept), process.returncode)
    assert scene.log.stat().st_size > 8_000_000


def _text(scene: Scene) -> None:
    said = scene.run("--text", job=ODD)
    assert "\x1b" not in said and "\x07" not in said and "�" not in said
    assert b"\x1b]0;title\x07\x1b[31m \n\xc5\xbe 50%\r\xc5\xbe 100%\n" in scene.log.read_bytes()


def _shorten(scene: Scene) -> None:
    scene.run("--shorten", job=ODD)
    assert b"told before the cut\n" * 100 in (scene.folder / "console-before.log").read_bytes()
    assert b"told after the cut\n" * 3 in scene.log.read_bytes()


def _silent(scene: Scene) -> None:
    scene.run("--silent", "600", flags=("--max-time", "20s"), job=ODD)


def _forged(kind: str) -> Play:
    def play(scene: Scene) -> None:
        scene.run("--forge", kind, job=ODD)
        assert (scene.folder / "good.txt").read_bytes() == b"good\n" and not (scene.folder / "bad.txt").exists()
        assert not list(scene.place.cwd.rglob("outside.txt")) and not list(scene.place.home.parent.glob("*outside.txt"))

    return play


def _link(scene: Scene) -> None:
    scene.run("--link", job=ODD)
    assert (scene.folder / "good.txt").read_bytes() == b"good\n"
    assert not (scene.folder / "bad.txt").exists()


def _without_it(scene: Scene) -> None:
    scene.cli("stop", NAME, "--no-pull", "--yes")
    assert not (scene.folder / "bad.txt").exists()


def _clean(scene: Scene) -> None:
    scene.cli("clean", "--all", "--yes")


def _ended_outside(scene: Scene) -> None:
    with scene.started(*scene.toy("--lines", "20", "--pause", "0.1", "--epochs", "500")) as command:
        scene.until(lambda: scene.here(500))
        scene.region.core.lives.terminate(scene.instance())
        command.wait(100)


def _ends(*args: str) -> Play:
    def play(scene: Scene) -> None:
        scene.run(*args)

    return play


FORGED: dict[str, Any] = {
    "code": 6,
    "money": "may be running at $0.536 an hour",
    "alive": "it parks itself, with its disk, by",
    "mend": _without_it,
    "then": "`cloudtrain stop --no-pull` ends it without that file; `cloudtrain pull` tries again",
    "also": ("tests/unit/transfer/test_pull.py",),
}

CASES = (
    Case(
        row=22,
        way="push",
        fault="The machine's disk is full while the job's files arrive",
        how="`disk-full:200k` with 600 kB to send",
        script=("disk-full:200k",),
        play=_full_push,
        sees=("disk of the host is full",),
        code=6,
        money=TERMINATED,
        log="",
        also=("tests/host/onhost/test_receive.py::test_a_full_disk_is_said_and_leaves_nothing",),
    ),
    Case(
        row=22,
        way="training",
        fault="The machine's disk is full in mid-training",
        how="`disk-full:300k`, a job that writes 600 kB",
        script=("disk-full:300k",),
        play=_full_training,
        sees=("training failed",),
        code=3,
        money=TERMINATED,
        also=("tests/host/onhost/test_verbs.py::test_the_record_fits_on_a_disk_that_the_job_filled",),
    ),
    Case(
        row=25,
        fault="The job prints 8 MB of log at once, the terminal is slow",
        how="a job that prints as fast as it can, a reader that takes 200 kB/s at first",
        play=_burst,
        sees=(),
        code=0,
        money=TERMINATED,
        also=("tests/host/onhost/test_follow.py::test_a_burst_arrives_whole_while_it_is_written",),
    ),
    Case(
        row=26,
        fault="The log has half letters, redrawn lines, escape sequences and [markup]",
        how="a job that prints them; a letter comes in two halves",
        play=_text,
        sees=("[bold]line 19[/bold]", "ž 100%"),
        code=0,
        money=TERMINATED,
        also=("tests/unit/console/test_text.py",),
    ),
    Case(
        row=27,
        fault="The log is cut on the machine",
        how="a job that shortens its own log",
        play=_shorten,
        sees=(
            "console.log on the host was cut to",
            "what had arrived and is not in the host's log any more is kept: console-before.log",
        ),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=31,
        way="exit 1",
        fault="The training fails",
        how="a job that ends with exit code 1",
        play=_ends("--crash", "out of luck"),
        sees=("training failed in epoch 2 with exit code 1", "out of luck"),
        code=3,
        money=TERMINATED,
    ),
    Case(
        row=31,
        way="killed",
        fault="The training is killed, as by lack of memory",
        how="a job that ends by SIGKILL",
        play=_ends("--kill", "9"),
        sees=("training failed in epoch 2 with signal 9",),
        code=3,
        money=TERMINATED,
    ),
    Case(
        row=31,
        way="segfault",
        fault="The training ends by a segmentation fault",
        how="a job that ends by SIGSEGV",
        play=_ends("--kill", "11"),
        sees=("training failed in epoch 2 with signal 11",),
        code=3,
        money=TERMINATED,
    ),
    Case(
        row=32,
        fault="The training hangs without a word",
        how="a job that is silent, `--max-time 20s`; silence is told after 5 min, here 3 s",
        hurried=True,
        play=_silent,
        sees=("the training has said nothing for", "it may hang", "was ended by its time limit"),
        code=7,
        money=TERMINATED,
    ),
    Case(
        row=34,
        fault="Somebody terminates the instance in mid-training",
        how="TerminateInstances by somebody else, once the log comes",
        play=_ended_outside,
        sees=(f"{NAME} was ended with its machine", "had already ended: Client.UserInitiatedShutdown"),
        code=7,
        money="had already ended",
    ),
    Case(
        row=38,
        way="sum",
        fault="A result is not what the machine's list says",
        how="a job that has its supervisor tell of another sha256",
        play=_forged("sum"),
        sees=("'bad.txt' was not taken: its sha256 is not the one in the manifest",),
        **FORGED,
    ),
    Case(
        row=38,
        way="name",
        fault="The machine's list has a name that leads out of the run's folder",
        how="a job that has its supervisor tell of `../../outside.txt`",
        play=_forged("name"),
        sees=("left there: ../../outside.txt, it leads out of the folder",),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=38,
        way="size",
        fault="The machine's list has a file of 1 PB",
        how="a job that has its supervisor tell of it, and a `results_limit` beyond it; without one its machine parks",
        environment=(("CLOUDTRAIN_RESULTS_LIMIT", "1e9"),),
        play=_forged("size"),
        sees=("'bad.txt' has 1,125,899,906.8 MB, and", "are free here", "free space on this computer and pull again"),
        **{**FORGED, "mend": _clean, "then": "`cloudtrain clean --all --yes` ends it"},
    ),
    Case(
        row=38,
        way="link",
        fault="The job leaves a link to another file among its results",
        how="a link to `/etc/passwd`",
        play=_link,
        sees=("left there: bad.txt, a link to /etc/passwd", "1 file"),
        code=0,
        money=TERMINATED,
        also=("tests/host/onhost/test_read.py::test_links_and_devices_are_refused",),
    ),
)
