"""How a run ends when it does not end by itself: nothing of it survives, and its record says why."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by /proc")

SLEEPER = "import time\nprint('ready', flush=True)\ntime.sleep(600)"

# A job that does all that processes do to escape: a child that ignores SIGTERM, one in a session of its own, a daemon
# that forked twice and closed everything, and one that also emptied its environment.
TREE = """\
import os, signal, subprocess, sys, time

def daemon(environment):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 256)
            os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], environment)
        os._exit(0)
    os.wait()

stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
stubborn += "; print('stubborn', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", stubborn])
subprocess.Popen(["sleep", "600"], start_new_session=True)
daemon(os.environ)
daemon({"SPOT": os.environ["CLOUDTRAIN_RUN"]})
print("ready", flush=True)
signal.signal(signal.SIGTERM, lambda *_: (print("saving", flush=True), time.sleep(0.3), sys.exit(143)))
if "leave" not in sys.argv:
    while True:
        time.sleep(1)
"""


def started(host: Any, script: str, *arguments: str, **changes: Any) -> None:
    host.start(script, *arguments, **changes)
    host.wait_for_log(b"ready")
    if script is TREE:
        host.wait_for_log(b"stubborn")
        assert len(host.processes()) >= (5 if arguments else 6)


def test_stop_ends_every_process_and_lets_the_job_save(host: Any) -> None:
    started(host, TREE)
    answer = host.ask("stop", "--reason", "user", "--grace", "5")
    assert answer["state"] == "exited"
    record = answer["exit"]
    assert (record["code"], record["stop"]) == (143, "user")
    log = host.log()
    assert log.endswith(b"saving\n")
    assert record["log_sha256"] == hashlib.sha256(log).hexdigest()
    assert (record["events_bytes"], record["events_sha256"]) == (0, hashlib.sha256(b"").hexdigest())
    host.nothing_left()


def test_the_record_names_the_events_too(host: Any) -> None:
    host.start("import os\nopen(os.environ['CLOUDTRAIN_EVENTS'], 'w').write('{}\\n{')")
    record = host.finished()
    assert (record["events_bytes"], record["events_sha256"]) == (4, hashlib.sha256(b"{}\n{").hexdigest())
    # A job that takes its own file away, too.
    host.start("import os\nos.unlink(os.environ['CLOUDTRAIN_EVENTS'])", run="calm-otter")
    assert host.finished("calm-otter")["events_bytes"] == 0


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(host: Any) -> None:
    script = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
    started(host, script)
    began = time.monotonic()
    answer = host.ask("stop", "--grace", "1.5")
    assert time.monotonic() - began >= 1.5
    assert (answer["exit"]["code"], answer["exit"]["signal"], answer["exit"]["stop"]) == (-9, 9, "user")
    host.nothing_left()


def test_what_the_job_leaves_behind_ends_with_it(host: Any) -> None:
    host.start(TREE, "leave")
    record = host.finished()
    assert (record["code"], record["stop"]) == (0, None)
    assert record["log_sha256"] == hashlib.sha256(host.log()).hexdigest()
    host.nothing_left()


def test_the_first_reason_stands(host: Any) -> None:
    started(host, "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER)
    argv = host.argv("stop", "--reason", "cost", "--grace", "3")
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as first:
        path = host.run_dir() / "stop.json"
        while not path.exists():
            time.sleep(0.01)
        second = host.ask("stop", "--reason", "user", "--grace", "0")
        assert json.loads(first.communicate(timeout=60)[0])["exit"]["stop"] == "cost"
    assert second["exit"]["stop"] == "cost"
    assert second["stop"] == "cost"
    host.nothing_left()


def test_the_wish_to_stop_is_enough(host: Any) -> None:
    # A stop that is killed right after it has written its intent.
    started(host, SLEEPER)
    (host.run_dir() / "stop.json").write_text(json.dumps({"reason": "user", "at": time.time(), "grace": 1}))
    record = host.finished()
    assert (record["signal"], record["stop"]) == (signal.SIGTERM, "user")


def test_the_deadline_ends_it(host: Any) -> None:
    started(host, TREE, lasts=4, grace=3)
    record = host.finished()
    assert (record["code"], record["stop"]) == (143, "deadline")
    assert host.poll()["stop"] == "deadline"
    host.nothing_left()


def test_a_deadline_that_has_passed_ends_it_at_once(host: Any) -> None:
    host.start(SLEEPER, lasts=-3600, grace=1)
    assert host.finished()["stop"] == "deadline"


def test_a_killed_supervisor_is_lost_and_leaves_nothing(host: Any) -> None:
    script = "import os\nif os.fork() == 0:\n    os.setsid()\n" + SLEEPER
    started(host, script)
    os.kill(host.supervisor(), signal.SIGKILL)
    began = time.monotonic()
    while host.poll()["state"] != "lost":
        assert time.monotonic() - began < 30
    host.nothing_left()
    assert host.ask("stop") == {"ok": True, "state": "lost", "exit": None, "stop": None}
    assert host.ask("start", stdin=host.spec(script))["state"] == "lost"
    assert host.ask("start", stdin=host.spec(SLEEPER))["code"] == "another_run"
    assert host.call("read", "--name", "console.log").stdout.count(b"ready") == 2
    assert not (host.run_dir() / "exit.json").exists()


def test_the_job_dies_with_its_supervisor_though_nobody_looks(host: Any) -> None:
    started(host, SLEEPER)
    os.kill(host.supervisor(), signal.SIGKILL)
    host.nothing_left()


def test_a_follower_tells_of_a_lost_run(host: Any) -> None:
    started(host, TREE)
    with subprocess.Popen(host.argv("follow", "--beat", "1"), stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()
        os.kill(host.supervisor(), signal.SIGKILL)
        last = follower.communicate(timeout=60)[0].splitlines()[-1]
    end = json.loads(last)
    assert (end["k"], end["state"], end["exit"]) == ("end", "lost", None)


def test_stop_while_the_supervisor_and_the_job_are_frozen(host: Any) -> None:
    started(host, TREE)
    for pid in host.processes():
        os.kill(pid, signal.SIGSTOP)
    answer = host.ask("stop", "--grace", "2")
    assert (answer["state"], answer["exit"]["stop"]) == ("exited", "user")
    host.nothing_left()


def test_sigterm_to_the_supervisor_is_the_machine_going_down(host: Any) -> None:
    started(host, TREE)
    os.kill(host.supervisor(), signal.SIGTERM)
    record = host.finished()
    assert (record["code"], record["stop"]) == (143, "shutdown")
    host.nothing_left()


@pytest.mark.parametrize(("told", "stop"), [(True, "shutdown"), (False, None)])
def test_a_job_that_ends_by_sigterm_a_moment_before_its_supervisor_hears_of_it(
    host: Any, told: bool, stop: str | None
) -> None:
    """A machine that goes down tells all its programs at once; alone, the signal is somebody's wish about the job."""
    started(host, SLEEPER)
    job = json.loads((host.run_dir() / "job.json").read_text())["job"]
    supervisor = host.supervisor()
    os.kill(job, signal.SIGTERM)
    if told:
        time.sleep(0.3)
        os.kill(supervisor, signal.SIGTERM)
    record = host.finished()
    assert (record["code"], record["signal"], record["stop"]) == (-15, 15, stop)
    host.nothing_left()


def test_hangup_of_the_session_that_started_it_changes_nothing(host: Any) -> None:
    spec = host.spec(SLEEPER)
    with subprocess.Popen(
        host.argv("start"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as start:
        assert json.loads(start.communicate(spec, timeout=60)[0])["started"]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(start.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert host.poll()["state"] == "running"
    host.ask("stop", "--grace", "0")
    host.nothing_left()


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -11, 11),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, 9),
        ("raise SystemExit(137)", 137, None),
    ],
)
def test_the_code_says_how_it_ended(host: Any, script: str, code: int, number: int | None) -> None:
    host.start(script)
    record = host.finished()
    assert (record["code"], record["signal"]) == (code, number)


def test_ending_one_run_leaves_the_other_alone(host: Any) -> None:
    started(host, SLEEPER)
    host.start(SLEEPER, run="other")
    host.wait_for_log(b"ready", run="other")
    host.ask("stop", "--grace", "1")
    assert host.poll()["state"] == "exited"
    assert host.poll(run="other")["state"] == "running"
    os.kill(host.supervisor("other"), signal.SIGKILL)
    host.nothing_left()
    assert host.poll(run="other")["state"] == "lost"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGBUS", "SIGSEGV"])
def test_the_record_names_the_signal(host: Any, name: str) -> None:
    number = getattr(signal, name)
    host.start(f"import os\nos.kill(os.getpid(), {int(number)})")
    record = host.finished()
    assert (record["code"], record["signal"], record["signal_name"]) == (-number, number, name)
    assert record["oom_kills"] == 0


def test_the_record_counts_what_the_kernel_ends_for_lack_of_memory(host: Any) -> None:
    group = Path("/sys/fs/cgroup/memory") / f"cloudtrain-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"needs a group of processes with a limit of memory: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
        joins = f"import os\nopen({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        host.start(joins + "held = [bytearray(1 << 20) for _ in range(512)]")
        record = host.finished()
        assert record["signal_name"] == "SIGKILL" and record["oom_kills"] >= 1
    finally:
        host.nothing_left()
        group.rmdir()
