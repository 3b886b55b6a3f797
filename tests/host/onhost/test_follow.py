"""The stream of a run: every byte once, at once, and no follower that outlives its reader."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.program import put_program

BURST = 20_000_000


def frames(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The whole frames at the start of `data`."""
    found = []
    while b"\n" in data:
        line, _, rest = data.partition(b"\n")
        head = json.loads(line)
        size = head.get("n", 0)
        if len(rest) < size:
            break
        found.append((head, rest[:size]))
        data = rest[size:]
    return found


def collect(heads: list[tuple[dict[str, Any], bytes]], kind: str, start: int = 0) -> bytes:
    """The bytes of a file, after checking that each frame goes on where the last one ended."""
    data = b""
    for head, payload in heads:
        if head["k"] == kind:
            assert head["o"] == start + len(data)
            assert 0 < len(payload) <= 256 * 1024
            data += payload
    return data


def test_from_any_offset_it_equals_the_file(host: Any) -> None:
    host.start(
        "import os\nprint('é' * 1000)\n"
        "open(os.environ['CLOUDTRAIN_EVENTS'], 'w').write('{\"kind\": 1}\\n' * 100 + 'half a line')"
    )
    host.finished()
    log, events = host.log(), (host.run_dir() / "events.jsonl").read_bytes()
    assert not events.endswith(b"\n")
    for at in (0, 1, 999, len(log) - 1, len(log)):
        event_at = min(at // 12 * 12, len(events))
        done = host.call("follow", "--log", str(at), "--events", str(event_at))
        got = frames(done.stdout)
        assert collect(got, "log", at) == log[at:]
        assert collect(got, "events", event_at) == events[event_at:]
        assert got[-1][0] == {
            "k": "end",
            "state": "exited",
            "exit": json.loads((host.run_dir() / "exit.json").read_bytes()),
            "log": len(log),
            "events": len(events),
        }


def test_a_burst_arrives_whole_while_it_is_written(host: Any) -> None:
    script = f"""
import os, sys
line = b"%07d " + b"x" * 91 + b"\\n"
for i in range(0, {BURST} // 100, 80):
    os.write(1, b"".join(line % j for j in range(i, i + 80)))
"""
    host.start(script)
    done = host.call("follow", "--beat", "1")
    got = frames(done.stdout)
    assert collect(got, "log") == host.log()
    assert len(host.log()) == BURST // 100 * 100
    assert got[-1][0]["state"] == "exited"


def test_cut_streams_resume_without_a_byte_lost_or_doubled(host: Any) -> None:
    script = """
import os, random, time
chance = random.Random(1)
events = open(os.environ["CLOUDTRAIN_EVENTS"], "ab", 0)
for i in range(3000):
    os.write(1, b"first half of line %d, " % i)
    os.write(1, b"second half\\n" if i % 3 else b"\\xff\\r\\x1b[31m second half\\n")
    events.write(b'{"kind": "step", ')
    events.write(b'"step": %d}\\n' % i)
    if chance.random() < 0.2:
        time.sleep(0.002)
"""
    host.start(script)
    chance = random.Random(2)
    log = events = b""
    cuts = 0
    while True:
        argv = host.argv("follow", "--log", str(len(log)), "--events", str(len(events)), "--beat", "1")
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            # Cut at an arbitrary byte: in a head, in a payload, between frames.
            limit = chance.randrange(1, 60_000) if cuts < 20 else -1
            data = follower.stdout.read(limit)
            if limit > 0:
                follower.kill()
                cuts += 1
        got = frames(data)
        log += collect(got, "log", len(log))
        events += collect(got, "events", len(events))
        assert not events or events.endswith(b"\n")
        if got and got[-1][0]["k"] == "end":
            break
    assert cuts > 0
    assert log == host.log()
    assert events == (host.run_dir() / "events.jsonl").read_bytes()


def test_a_line_comes_through_at_once_and_in_silence_a_heartbeat(host: Any) -> None:
    host.start(
        "import os, time\nfor i in range(30):\n    os.write(1, b'%r\\n' % time.time())\n    time.sleep(0.05)\n"
        "time.sleep(2)"
    )
    delays, beats = [], 0
    with subprocess.Popen(host.argv("follow", "--beat", "0.5"), stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        while True:
            head = json.loads(follower.stdout.readline())
            payload = follower.stdout.read(head.get("n", 0))
            if head["k"] == "log" and payload.count(b"\n") == 1:
                delays.append(time.time() - float(payload))
            beats += head["k"] == "beat"
            if head["k"] == "end":
                break
    assert beats >= 2
    # The first ones were written before the follower came. A generous cap: the machine may be busy.
    assert sorted(delays)[len(delays) // 2] < 0.25


def test_it_ends_with_its_reader(host: Any) -> None:
    host.start("import time; time.sleep(600)")
    with subprocess.Popen(host.argv("follow", "--beat", "2"), stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()
        follower.stdout.close()
        assert follower.wait(20) != 0
    host.ask("stop", "--grace", "0")


def test_a_file_that_was_cut_is_told(host: Any) -> None:
    host.start(
        # One write a line: print writes the line and its end apart, which may come in two frames.
        "import os, time\nos.write(1, b'x' * 99 + b'\\n')\n"
        "while not os.path.exists('../seen'):\n    time.sleep(0.05)\n"
        "os.truncate('../console.log', 10)\n"
        "while not os.path.exists('../told'):\n    time.sleep(0.05)\n"
        "os.write(1, b'after\\n')"
    )
    data = b""
    with subprocess.Popen(host.argv("follow"), stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        for awaited, answer in ((b"x" * 99, "seen"), (b"shrunk", "told")):
            while awaited not in data:
                new = os.read(follower.stdout.fileno(), 65536)
                assert new, data
                data += new
            (host.run_dir() / answer).touch()
        data += follower.stdout.read()
    got = frames(data)
    kinds = [head["k"] for head, _ in got if head["k"] in ("log", "shrunk", "end")]
    assert kinds == ["log", "shrunk", "log", "end"]
    assert {"k": "shrunk", "file": "console.log", "size": 10} in [head for head, _ in got]
    assert got[-2][0]["o"] == 10
    assert got[-2][1] == b"after\n"
    late = frames(host.call("follow", "--log", "5000").stdout)
    assert late[0][0] == {"k": "shrunk", "file": "console.log", "size": 16}


def test_an_endless_line_of_events_does_not_hold_back_the_rest(host: Any) -> None:
    host.start(
        "import os\nwith open(os.environ['CLOUDTRAIN_EVENTS'], 'w') as file:\n"
        "    file.write('x' * 3000000 + '\\n{\"kind\": 1}\\n')"
    )
    got = frames(host.call("follow").stdout)
    assert collect(got, "events") == b"x" * 3000000 + b'\n{"kind": 1}\n'


def test_no_run_ends_at_once(host: Any) -> None:
    (head, _), *rest = frames(host.call("follow").stdout)
    assert head == {"k": "end", "state": "absent", "exit": None, "log": 0, "events": 0}
    assert not rest


def test_a_frozen_follower_goes_on_where_it_was(host: Any) -> None:
    host.start("import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.05)")
    with subprocess.Popen(host.argv("follow"), stdout=subprocess.PIPE) as follower:
        os.kill(follower.pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(follower.pid, signal.SIGCONT)
        data = follower.communicate(timeout=60)[0]
    assert collect(frames(data), "log") == host.log()


def test_without_inotify_it_polls(host: Any, tmp_path: Path) -> None:
    # As on macOS: the C library has no such call.
    polling = put_program(tmp_path / "polling")
    module = polling.parent / "onhost" / "follow.py"
    source = module.read_text(encoding="utf-8")
    assert "inotify_init1(" in source
    module.write_text(source.replace("inotify_init1(", "no_such_call("), encoding="utf-8")
    host.start("import time\nfor i in range(20):\n    print(i, flush=True)\n    time.sleep(0.05)")
    argv = [sys.executable, str(polling), "follow", "--run", str(host.run_dir())]
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=60, check=True)
    assert collect(frames(done.stdout), "log") == host.log()
