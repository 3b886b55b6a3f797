"""The client of the verbs: frames however they are cut, and a whole run on a real host folder."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core.errors import ArtifactRefused, Busy, CloudtrainError, ConnectionFailed, RunLost
from cloudtrain.run_folder.artifacts import FileEntry
from cloudtrain.transfer.frames import Beat, End, EventsFrame, ExitRecord, Frame, FrameParser, LogFrame, Notice, Shrunk
from cloudtrain.transfer.supervisor import Following, Supervisor
from cloudtrain.transport.base import Completed, Stream, Transport
from cloudtrain.transport.local import LocalTransport
from tests.program import put_program

# --- frames ----------------------------------------------------------------------------------------------------------

record = st.builds(
    ExitRecord,
    code=st.integers(-64, 255),
    signal=st.none() | st.integers(1, 64),
    at=st.floats(0, 2e9),
    log_bytes=st.integers(0, 2**40),
    log_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    events_bytes=st.integers(0, 2**40),
    stop=st.none() | st.sampled_from(["user", "deadline"]),
    events_sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
)
size = st.integers(0, 2**50)
frame: st.SearchStrategy[Frame] = st.one_of(
    st.builds(LogFrame, size, st.binary(min_size=1, max_size=300)),
    st.builds(EventsFrame, size, st.binary(min_size=1, max_size=300)),
    st.builds(Beat, st.floats(0, 2e9), size, size),
    st.builds(Shrunk, st.sampled_from(["console.log", "events.jsonl"]), size),
    st.builds(Notice, st.sampled_from(["spot", "rebalance"]), st.floats(0, 2e9), st.none() | st.floats(0, 2e9)),
    st.builds(End, st.sampled_from(["exited", "lost", "absent"]), st.none() | record, size, size),
)


def encode(value: Frame) -> bytes:
    """As docs/protocol.md, "Frames", writes frames."""
    payload = b""
    match value:
        case LogFrame(offset, data):
            head: dict[str, Any] = {"k": "log", "o": offset, "n": len(data)}
            payload = data
        case EventsFrame(offset, data):
            head = {"k": "events", "o": offset, "n": len(data)}
            payload = data
        case Beat(t, log, events):
            head = {"k": "beat", "t": t, "log": log, "events": events}
        case Shrunk(file, to):
            head = {"k": "shrunk", "file": file, "size": to}
        case Notice(kind, t, ends):
            head = {"k": "notice", "kind": kind, "t": t, "ends": ends}
        case End(state, ending, log, events):
            told = {"v": 1, **ending.to_dict()} if ending else None
            head = {"k": "end", "state": state, "exit": told, "log": log, "events": events}
    return json.dumps(head).encode() + b"\n" + payload


@pytest.mark.parametrize("ends", [None, -1.0, 1e300, float("nan")])
def test_a_notice_reads_well_whatever_time_it_names(ends: float | None) -> None:
    (told,) = FrameParser().feed(encode(Notice("spot", 0.0, ends)))
    assert isinstance(told, Notice) and told.ends is None
    assert told.text() == "EC2 takes this spot instance back soon; the job is told to save"


def test_a_notice_of_a_kind_that_is_not_known_is_passed_over() -> None:
    assert FrameParser().feed(b'{"k": "notice", "kind": "\\u001b[2J", "t": 0, "ends": null}\n') == []


@given(st.lists(frame, max_size=12), st.lists(st.integers(0, 5000), max_size=30), st.booleans())
def test_any_cut_of_the_stream_gives_the_same_frames(frames: list[Frame], cuts: list[int], noise: bool) -> None:
    # A login script may print before the first frame.
    stream = (b"Welcome!\n{}\n" if noise else b"") + b"".join(encode(value) for value in frames)
    parser, got = FrameParser(), []
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in itertools.pairwise(edges):
        got += parser.feed(stream[start:end])
    assert got == frames


@given(st.lists(frame, min_size=1, max_size=5), st.integers(1, 10_000))
def test_a_frame_that_is_cut_is_never_delivered(frames: list[Frame], missing: int) -> None:
    stream = b"".join(encode(value) for value in frames)
    got = FrameParser().feed(stream[: max(0, len(stream) - missing)])
    assert got == frames[: len(got)]
    assert len(got) < len(frames)


@given(st.binary(max_size=2000))
def test_nothing_but_frames_or_a_clear_error_comes_of_garbage(garbage: bytes) -> None:
    parser = FrameParser()
    try:
        parser.feed(encode(Beat(1.0, 2, 3)) + garbage + b"\n")
    except ConnectionFailed as error:
        assert error.code == "protocol"


def test_frames_of_a_later_version_are_passed_over() -> None:
    stream = b'{"k": "weather", "n": 3}\nxyz' + encode(Beat(1.0, 2, 3))
    assert FrameParser().feed(stream) == [Beat(1.0, 2, 3)]


@pytest.mark.parametrize(
    "head", [b'{"k": "log", "o": 0, "n": -1}', b'{"k": "log", "o": 0, "n": 9999999999}', b'{"k":"beat"}']
)
def test_impossible_heads_are_refused(head: bytes) -> None:
    with pytest.raises(ConnectionFailed):
        FrameParser().feed(encode(Beat(1.0, 2, 3)) + head + b"\n" + b"x" * 10)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(ConnectionFailed):
        FrameParser().feed(b"x" * 100_000)


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
        return {**spec, "env": {}, "deadline": None, "grace": 5, **changes}

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
    assert supervisor.manifest() == [FileEntry("metrics.csv", 9, hashlib.sha256(b"epoch,acc").hexdigest())]
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


class Canned(Transport):
    """Answers with what it was given: stands for hosts that misbehave."""

    def __init__(self, stdout: bytes = b"", exit_code: int = 1, stderr: bytes = b"") -> None:
        self.done = Completed(exit_code, stdout, stderr)

    def run(self, argv: Sequence[str], *, stdin: Any = b"", timeout: float = 60.0) -> Completed:
        return self.done

    def stream(self, argv: Sequence[str]) -> Stream:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("disk_full", ConnectionFailed),
        ("not_writable", ConnectionFailed),
        ("tree_busy", Busy),
        ("refused", ArtifactRefused),
        ("start_failed", ConnectionFailed),
        ("something new", ConnectionFailed),
    ],
)
def test_each_code_has_its_error(code: str, kind: type[CloudtrainError]) -> None:
    answer = b"Welcome to the host!\n" + json.dumps({"ok": False, "code": code, "message": "why"}).encode() + b"\n"
    with pytest.raises(kind) as caught:
        Supervisor(Canned(answer), "python3", "r", ".").poll()
    assert caught.value.message == "why"
    assert caught.value.hint
    assert caught.value.consequence


@pytest.mark.parametrize("stdout", [b"", b"Killed\n", b"[1]\n", b'{"state": "running"}\n', b"\xff\xfe"])
def test_no_answer_is_an_error(stdout: bytes) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        Supervisor(Canned(stdout, 0), "python3", "r", ".").manifest()
    assert caught.value.code == "no_answer"


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
