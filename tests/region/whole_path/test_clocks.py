"""A host whose clock is wrong, over SSH: all that runs there sees another time than all that runs here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cloudtrain.run_folder.log_times import LogTimes
from cloudtrain.store import Store
from cloudtrain.transport.ssh_keys import fingerprint
from tests.host.transport.sshd import Sshd, missing
from tests.region.whole_path.place import Place

DAY, LIMIT_S = 86400.0, 5.0
# What libfaketime does, for one clock alone: with the monotonic one left as it is, its 0.9.10 breaks `time.sleep`.
WRONG_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, at);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
    long off = 0;
    FILE *file = fopen(getenv("CLOCK_IS_OFF_BY"), "r");
    if (file) { if (fscanf(file, "%ld", &off) != 1) abort(); fclose(file); }
    at->tv_sec += off;
  }
  return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  int failed = clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return failed;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""

pytestmark = [
    pytest.mark.sshd,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a library is put before others as on Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: apt-get install gcc"),
]


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """How many seconds the host's clock is ahead, read at each look at it."""
    return tmp_path / "clock"


@pytest.fixture
def place(tmp_path: Path, clock: Path) -> Iterator[Place]:
    """Such a host. How long it is up, and its files' times, are the kernel's, as on a host whose clock is set."""
    if reason := missing():
        pytest.skip(reason)
    library, text = tmp_path / "wrong-clock.so", tmp_path / "wrong-clock.c"
    text.write_text(WRONG_CLOCK)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, text, "-ldl"], check=True, timeout=60)
    settings = (
        f'ForceCommand export LD_PRELOAD={library} CLOCK_IS_OFF_BY={clock}; cd "$HOME" && eval "$SSH_ORIGINAL_COMMAND"'
    )
    (tmp_path / "cwd").mkdir()
    with Sshd(tmp_path / "sshd", settings=(settings,)) as server:
        flags = ["--host", f"{server.user}@127.0.0.1:{server.port}", "--identity", str(server.identity)]
        flags += ["--host-key", fingerprint(server.host_key)]
        made = Place("sshd", flags, tmp_path / "home", tmp_path / "cwd")
        yield made
        made.cleanup()


def set_to(clock: Path, off_s: float) -> None:
    """Set the host's clock: written aside and renamed, as it is read all the time."""
    aside = clock.with_name("aside")
    aside.write_text(f"{off_s:.0f}\n")
    aside.replace(clock)


@pytest.mark.parametrize(
    ("offs", "says"),
    [
        ([-3 * DAY], "3 days behind"),
        ([DAY / 12], "2h 00m ahead of"),
        # By that clock its end comes never, and then at once.
        ([0.0, -3 * DAY, DAY / 12], ""),
    ],
    ids=["behind", "ahead", "jumps"],
)
def test_a_run_on_a_host_whose_clock_is_wrong_is_told_and_ended_by_ours(
    place: Place, clock: Path, offs: list[float], says: str
) -> None:
    set_to(clock, offs[0])
    began, log = time.time(), place.folder("run") / "console.log"
    talks = ("--lines", "5000", "--pause", "0.25")
    with place.started(*place.toy("run", *talks, flags=("--max-time", f"{LIMIT_S}s"))) as command:
        for off in offs[1:]:
            size = log.stat().st_size if log.exists() else 0
            place.wait_for(lambda size=size: log.exists() and log.stat().st_size > size + 200)  # type: ignore[misc]
            set_to(clock, off)
        assert command.wait(60) == 7, command.communicate(timeout=10)[1].decode()
        told = command.communicate(timeout=10)[1].decode()
    run = Store(place.home / "state" / "registry.sqlite").get("run")
    assert run.ending is not None and run.ended_at is not None
    assert began <= run.created_at < run.created_at + LIMIT_S - 0.5 <= run.ending.at <= run.ended_at <= time.time()
    assert run.ended_at - run.created_at < LIMIT_S + 20
    assert re.findall("the clock of this machine is (.*) this computer's", told) == ([says] if says else [])
    shown = place.shown("run")
    assert (shown["status"], shown["cost"]) == ("ended by its limit", None)
    assert [datetime.fromisoformat(shown[key]).timestamp() for key in ("created", "ended")] == [
        int(run.created_at),
        int(run.ended_at),
    ]

    written = log.read_bytes()
    assert place.cli("logs", "run", "--since", "1h").stdout == written
    stamped = place.cli("logs", "run", "-t").stdout.decode()
    times = LogTimes.read(place.folder("run") / "console.times")
    first, last = times.at(1), times.at(len(written))
    assert first is not None and last is not None and run.created_at < first < last - 1 < last <= run.ending.at + 1
    assert stamped.startswith(time.strftime("%H:%M:%S ", time.localtime(first)))
    # Of this moment its last lines alone, and soon none.
    part = place.cli("logs", "run", "--since", f"{time.time() - last + 1:.0f}s").stdout
    assert part and len(part) < len(written) and written.endswith(part)
    time.sleep(max(0.0, run.ended_at + 1.5 - time.time()))
    assert place.cli("logs", "run", "--since", "1s").stdout == b""
