"""The soak: it finds what does not hold, and a short one with a fixed seed finds nothing."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core import crash
from cloudtrain.emulator.faults import parse
from tests.region.crash.points import TAKEOVER
from tests.region.soak import job
from tests.region.soak import judge as judging
from tests.region.soak.troubles import POINTS, TROUBLES

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def good(tmp_path: Path) -> Any:
    """What a run leaves whose job came to its end, and of which nothing was lost."""
    log, files = job.log_of("soak-1", 2, 5), job.files_of("soak-1", 2)
    folder = tmp_path / "soak-1"
    for name, data in {**files, "console.log": log}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    ending = {"state": "exited", "code": 0, "log_bytes": len(log), "log_sha256": hashlib.sha256(log).hexdigest()}
    launch = {
        "action": "RunInstances",
        "effect": True,
        "parameters": {
            "ClientToken": "ct-1",
            "TagSpecification.1.Tag.2.Key": "cloudtrain:token",
            "TagSpecification.1.Tag.2.Value": "abc",
        },
    }
    return judging.Evidence(
        "soak-1",
        log,
        files,
        folder,
        finished=True,
        starts=1,
        row={"state": "succeeded", "ending": ending},
        calls=[launch],
    )


def kinds(breaches: Any) -> list[tuple[str, int]]:
    return [(one.kind, one.count) for one in breaches]


def test_what_is_right_is_found_right(good: Any) -> None:
    assert judging.judge(good) == []


def test_lost_bytes_and_results_are_found(good: Any) -> None:
    log = good.folder / "console.log"
    log.write_bytes(good.log[:-7])
    found = kinds(judging.judge(good))
    assert found and {kind for kind, _ in found} == {judging.BYTES} and {count for _, count in found} == {7}
    # Of a machine that was taken away the beginning is enough, if it is the beginning.
    good.row, good.finished, good.destroyed = {"state": "lost", "ending": None}, False, "terminated:3s"
    assert judging.judge(good) == []
    log.write_bytes(good.log[3:])
    assert kinds(judging.judge(good)) == [(judging.BYTES, 1)]
    log.write_bytes(good.log)
    good.finished, good.destroyed = True, None
    (good.folder / "weights" / "best.bin").write_bytes(b"half")
    assert kinds(judging.judge(good)) == [(judging.RESULTS, 1)]
    (good.folder / "weights" / "best.bin").unlink()
    assert "is not here" in judging.judge(good)[0].told
    good.destroyed = "terminated:3s"
    assert judging.judge(good) == []


def test_a_second_launch_and_a_second_start_are_found(good: Any) -> None:
    good.starts = 2
    assert kinds(judging.judge(good)) == [(judging.STARTS, 1)]
    (good.folder / "console.1.log").write_bytes(good.log[:9])
    assert judging.judge(good) == []  # a spot run that went on
    good.starts = 1
    [launch] = good.calls
    other = {**launch, "parameters": {**launch["parameters"], "ClientToken": "ct-2"}}
    good.calls = [launch, {**other, "effect": False}]
    assert judging.judge(good) == []
    good.calls = [launch, other]
    assert kinds(judging.judge(good)) == [(judging.LAUNCHES, 1)]
    good.extra_launches = 1
    assert judging.judge(good) == []
    good.calls = [launch, launch]
    assert (judging.LAUNCHES, 1) in kinds(judging.judge(good))


def test_machines_that_nobody_would_find_are_leaks() -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    tags = {"cloudtrain:managed": "true", "cloudtrain:token": "a", "cloudtrain:run": "x", "cloudtrain:expires-at": soon}
    one = {"id": "i-1", "state": "running", "tags": tags}
    assert list(judging.unseen([one], time.time())) == []
    assert kinds(judging.unseen([one], time.time() + 7200)) == [(judging.LEAKED, 1)]
    for missing in ("cloudtrain:managed", "cloudtrain:token", "cloudtrain:expires-at"):
        bare = {**one, "tags": {k: v for k, v in tags.items() if k != missing}}
        assert kinds(judging.unseen([bare], time.time())) == [(judging.LEAKED, 1)]
    assert kinds(judging.unseen([one, {**one, "id": "i-2"}], time.time())) == [(judging.LAUNCHES, 1)]
    told = "WHAT         ID   RUN\ng4dn.xlarge  i-1  x  running  2m  ends in 9m\n  keep: it may be training\n"
    assert list(judging.explained([one], told)) == []
    for silent in (told.replace("ends in 9m", "-"), told.replace("keep: ", ""), ""):
        assert kinds(judging.explained([one], silent)) == [(judging.LEAKED, 1)]


def test_screens_are_read() -> None:
    documented = frozenset({0, 2, 6})

    def seen(code: int, said: bytes, *, killed: bool = False) -> list[tuple[str, int]]:
        return kinds(judging.screen(["logs"], code, said, killed=killed, documented=documented))

    assert seen(0, b"done") == seen(6, b"error: gone") == seen(-9, b"", killed=True) == []
    assert seen(1, b"") == seen(-9, b"") == [(judging.CODES, 1)]
    assert seen(0, b"Traceback (most recent call last):\n") == [(judging.TRACEBACKS, 1)]
    assert (judging.TRACEBACKS, 1) in seen(1, b"error: something unexpected happened: KeyError: 'x'")


def test_its_faults_and_crash_points_exist() -> None:
    for one in TROUBLES:
        parse([one.text])
    for names in POINTS.values():
        for name in names:
            point, _, nth = name.partition(":")
            assert int(nth or 1) <= max(1, len(crash.POINTS[point].passages))
    assert {name for names in POINTS.values() for name in names} >= set(crash.POINTS) - {case.name for case in TAKEOVER}


@pytest.mark.timeout(600)
def test_a_short_soak_loses_and_leaks_nothing(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("an emulated machine needs a POSIX shell")
    page = tmp_path / "page.md"
    page.write_text("<!-- soak: begin -->\nold\n<!-- soak: end -->\n")
    # Of this seed the first command of each run is killed at a crash point. A busy computer may come to one run alone.
    argv = [sys.executable, "-m", "tests.region.soak", "--seed", "165", "--runs", "2", "--minutes", "0.8"]
    argv += ["--parallel", "1", "--folder", str(tmp_path / "soak"), "--write", str(page)]
    done = subprocess.run(argv, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    told = page.read_text()
    zeros = re.findall(r"\| \*\*(.+)\*\* \| \*\*(\d+)\*\* \|", told)
    assert len(zeros) >= 9 and {count for _, count in zeros} == {"0"}, told
    done_what = {
        row: int(re.findall(rf"\| {row} \| (\d+)", told)[0]) for row in ("runs", "commands", "kill -9 of a command")
    }
    assert all(done_what.values()), told
    assert not list((tmp_path / "soak").iterdir())
