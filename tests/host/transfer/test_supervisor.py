"""The client of the verbs: frames however they are cut, and a whole run on a real host folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed, RunLost
from cloudtrain.core.notes import FileEntry
from cloudtrain.transfer.answers import Manifest
from cloudtrain.transfer.frames import Beat, End, EventsFrame, Frame, LogFrame
from cloudtrain.transfer.supervisor import Following, Supervisor
from cloudtrain.transport.local import LocalTransport
from tests.program import put_program

# --- a host ----------------------------------------------------------------------------------------------------------


class Host:
    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.run_dir = workdir / "runs" / "brave-otter"
        self.run_dir.mkdir(parents=True)
        put_program(self.run_dir)
        self.transport = LocalTransport(workdir)
        # Relative, as on a host that is logged in to.
        self.supervisor = Supervisor(self.transport, sys.executable, "runs/brave-otter", ".")

    def spec(self, script: str, **changes: Any) -> dict[str, Any]:
        body = script.encode()
        entry = [len(body), hashlib.sha256(body).hexdigest(), 0o644]
        digest = hashlib.sha256(b"job.py\0%d\0%s\0%d\n" % (entry[0], str(entry[1]).encode(), 0o644)).hexdigest()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            info = tarfile.TarInfo("job.py")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        header = {"v": 1, "base": None, "digest": digest, "files": {"job.py": entry}, "delete": []}
        argv = [sys.executable, "runs/brave-otter/supervise.py", "receive", "--workdir", ".", "--tree", "t"]
        done = self.transport.run(argv, stdin=[json.dumps(header).encode() + b"\n", archive.getvalue()])
        assert done.exit_code == 0, done
        spec = {"v": 1, "run": "brave-otter", "tree": "t", "digest": digest, "argv": [sys.executable, "job.py"]}
        return {**spec, "env": {}, "lasts": None, "grace": 5, **changes}

    def clean(self) -> None:
        subprocess.run(
            [sys.executable, str(self.run_dir / "supervise.py"), "stop", "--run", str(self.run_dir), "--grace", "0"],
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
        self.transport.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "wörk dir")
    yield made
    made.clean()


JOB = """\
import os, time
open(os.environ["CLOUDTRAIN_OUT"] + "/metrics.csv", "w").write("epoch,acc")
events = open(os.environ["CLOUDTRAIN_EVENTS"], "a", 1)
for i in range(50):
    print("line", i, flush=True)
    events.write('{"kind": "step", "step": %d}\\n' % i)
    time.sleep(0.01)
"""


def test_a_run_from_start_to_end(host: Host) -> None:
    supervisor = host.supervisor
    assert supervisor.poll().state == "absent"
    started = supervisor.start(host.spec(JOB))
    assert (started.state, started.started) == ("running", True)
    log = events = b""
    with supervisor.follow() as frames:
        for value in frames:
            match value:
                case LogFrame(offset, data):
                    assert offset == len(log)
                    log += data
                case EventsFrame(offset, data):
                    assert offset == len(events)
                    events += data
                case End() as end:
                    break
    assert end.state == "exited"
    assert end.exit is not None
    assert (end.exit.code, end.log, end.events) == (0, len(log), len(events))
    assert log == (host.run_dir / "console.log").read_bytes()
    assert events == (host.run_dir / "events.jsonl").read_bytes()
    assert end.exit.log_sha256 == hashlib.sha256(log).hexdigest()
    status = supervisor.poll(len(log) - 3, 0)
    assert (status.state, status.exit, status.log, status.events) == ("exited", end.exit, log[-3:], events)
    metrics = FileEntry("metrics.csv", 9, hashlib.sha256(b"epoch,acc").hexdigest())
    assert supervisor.manifest() == Manifest((metrics,))
    with supervisor.read("out/metrics.csv", 6) as stream:
        assert stream.read(30) == b"acc"
        assert stream.read(30) == b""
        assert stream.finish(30).exit_code == 0
    assert supervisor.start(host.spec(JOB)).started is False
    assert supervisor.stop().exit == end.exit


def test_stop_says_how_it_ended(host: Host) -> None:
    host.supervisor.start(host.spec("import time; time.sleep(600)"))
    status = host.supervisor.stop("user", grace=5)
    assert status.state == "exited"
    assert status.exit is not None
    assert (status.exit.signal, status.exit.stop, status.stop) == (signal.SIGTERM, "user", "user")


def test_a_lost_run_ends_the_stream(host: Host) -> None:
    host.supervisor.start(host.spec("import time; time.sleep(600)"))
    pid = json.loads((host.run_dir / "job.json").read_bytes())["supervisor"]
    with host.supervisor.follow(beat=0.5) as frames:
        got: list[Frame] = []
        for value in frames:
            if not got:
                os.kill(pid, signal.SIGKILL)
            got.append(value)
    assert got[-1] == End("lost", None, 0, 0)


def test_probe_needs_nothing_on_the_host(tmp_path: Path) -> None:
    with LocalTransport(tmp_path) as transport:
        facts = Supervisor(transport, sys.executable, "runs/none", "none").probe()
    assert facts.python == sys.executable
    assert facts.python_version == ".".join(map(str, sys.version_info[:3]))
    assert facts.torch
    assert facts.disk_free > 0
    assert f"torch {facts.torch}" in facts.summary()
    assert list(tmp_path.iterdir()) == [] or [p.name for p in tmp_path.iterdir()] == ["cloudtrain-home"]


def test_refusals_are_errors_with_consequence(host: Host) -> None:
    spec = host.spec("pass")
    with pytest.raises(ConnectionFailed) as caught:
        host.supervisor.start({**spec, "digest": "0" * 64})
    assert caught.value.code == "tree_changed"
    assert caught.value.consequence == "training has not started"
    assert caught.value.hint
    with host.supervisor.read("out/../lock") as stream:
        assert stream.read(30) == b""
        done = stream.finish(30)
    assert done.exit_code == 1
    assert done.stderr.decode() == "refused: 'out/../lock' is not a plain relative path"


def test_a_run_directory_that_is_gone_is_a_lost_run(tmp_path: Path) -> None:
    with LocalTransport(tmp_path) as transport:
        supervisor = Supervisor(transport, sys.executable, "runs/none", ".")
        with pytest.raises(RunLost):
            supervisor.poll()
        with pytest.raises(RunLost), supervisor.follow() as frames:
            list(frames)


def test_a_host_without_python(tmp_path: Path) -> None:
    with LocalTransport(tmp_path) as transport:
        supervisor = Supervisor(transport, "/no/such/python", "runs/none", ".")
        with pytest.raises(ConnectionFailed) as caught:
            supervisor.probe()
        assert "Python 3.8" in str(caught.value.hint)


def test_silence_of_three_beats_is_a_dead_link(tmp_path: Path) -> None:
    script = (
        'import sys, time\nsys.stdout.buffer.write(b\'{"k": "beat", "t": 1, "log": 0, "events": 0}\\n'
        '{"k": "log", "o": 0, "n": 10}\\nhalf\')\nsys.stdout.flush()\ntime.sleep(600)'
    )
    with LocalTransport(tmp_path) as transport:
        stream = transport.stream([sys.executable, "-c", script])
        got: list[Frame] = []
        began = time.monotonic()
        with Following(stream, beat=0.3) as frames, pytest.raises(ConnectionFailed) as caught:
            got.extend(iter(frames))
        assert caught.value.code == "silent"
        assert time.monotonic() - began < 30
        assert got == [Beat(1.0, 0, 0)] or got == []
