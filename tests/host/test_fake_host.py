"""`tests/fakes.py` answers as the program does that real hosts run: one script of verbs, put to both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.events import discard
from cloudtrain.source import tree
from cloudtrain.transfer.push import push
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Completed, Stream, Transport
from cloudtrain.transport.local import LocalTransport
from tests.fakes import FOREVER, FakeHost, FakeRun, Terminated

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the job is ended by a signal")

JOB = """
import os, pathlib, signal, sys, time
out = pathlib.Path(os.environ["CLOUDTRAIN_OUT"])
def save(name, text):
    (out / "aside.part").write_text(text)
    (out / name).parent.mkdir(exist_ok=True)
    (out / "aside.part").replace(out / name)
def ended(*_):
    print("told to end")
    save("weights/last", "saved")
    sys.exit(143)
if "deaf" not in sys.argv:
    signal.signal(signal.SIGTERM, ended)
print("begun")
with open(os.environ["CLOUDTRAIN_EVENTS"], "a") as events:
    events.write('{"kind": "start"}\\n')
save("metrics.csv", "a,b")
print("ready")
if "short" in sys.argv:
    sys.exit(3)
time.sleep(600)
"""


def job(run: FakeRun) -> Iterator[float]:
    """The same job."""
    assert run.spec is not None
    run.print("begun")
    run.events += b'{"kind": "start"}\n'
    run.out["metrics.csv"] = b"a,b"
    run.print("ready")
    if "short" in run.spec["argv"]:
        return 3  # type: ignore[return-value]
    try:
        yield FOREVER
    except Terminated:
        if "deaf" in run.spec["argv"]:
            raise
        run.print("told to end")
        run.out["weights/last"] = b"saved"
        return 143  # type: ignore[return-value]


class Noted(Transport):
    """A transport whose answers are kept, as they came."""

    def __init__(self, inner: Transport) -> None:
        self.inner, self.answers = inner, []

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        done = self.inner.run(argv, **more)
        first, *lines = done.stdout.splitlines()
        assert first == argv[-1][::-1].encode()
        self.answers.append((done.exit_code, [json.loads(line) for line in lines]))
        return done

    def stream(self, argv: Sequence[str]) -> Stream:
        return self.inner.stream(argv)

    def close(self) -> None:
        self.inner.close()


def streamed(stream: Stream) -> tuple[bytes, int, bytes]:
    """All bytes of a `read`, and how it ended."""
    data = b"".join(iter(lambda: stream.read(30.0), b""))
    done = stream.finish(10.0)
    stream.close()
    return data, done.exit_code, done.stderr


def followed(supervisor: Supervisor, log: int, events: int) -> dict[str, Any]:
    """What a `follow` brings, however it is cut into frames."""
    came: dict[str, Any] = {"LogFrame": b"", "EventsFrame": b""}
    with supervisor.follow(log, events, beat=0.5) as frames:
        for frame in frames:
            kind = type(frame).__name__
            if kind in ("LogFrame", "EventsFrame"):
                assert frame.offset == len(came[kind]) + {"LogFrame": log, "EventsFrame": events}[kind]  # type: ignore[arg-type]
                came[kind] += frame.data  # type: ignore[arg-type]
            elif kind == "End":
                came[kind] = (frame.state, known(asdict(frame.exit)), frame.log, frame.events)  # type: ignore[arg-type]
    return came


def known(value: Any) -> Any:
    """An answer without what is another on every host: moments, process ids; of those the type alone."""
    if isinstance(value, dict):
        return {k: type(v).__name__ if k in ("at", "t", "pid", "ends") else known(v) for k, v in value.items()}
    return [known(one) for one in value] if isinstance(value, (list, tuple)) else value


def refused(act: Any) -> tuple[str, str]:
    """The error of a verb that must not do it."""
    with pytest.raises(CloudtrainError) as caught:
        act()
    return type(caught.value).__name__, str(caught.value.code)


def script(transport: Noted, workdir: str, source: Path) -> list[Any]:
    """Every verb, in its order of a run and out of it; what came of each."""
    told: list[Any] = []
    key = tree.tree_key(source)

    def run_of(name: str, run_id: str | None = None) -> Supervisor:
        return Supervisor(transport, sys.executable, f"{workdir}/runs/{name}", workdir, run_id)

    def send(name: str) -> str:
        files = tree.scan(source, cache=None)
        where = {"workdir": workdir, "run_dir": f"{workdir}/runs/{name}"}
        report = push(transport, files, python=sys.executable, key=key, target_id=workdir, emit=discard, **where)
        told.append((report.files_sent, report.files_total, report.full))
        return report.digest

    def spec(name: str, digest: str, *words: str) -> dict[str, Any]:
        argv = [sys.executable, "-m", "net.train", *words]
        return {
            "v": 1,
            "run": name,
            "tree": key,
            "digest": digest,
            "argv": argv,
            "env": {},
            "lasts": None,
            "grace": 5,
        }

    def ready(supervisor: Supervisor) -> None:
        """Wait for the job's last line; the answers before that are no news."""
        before = len(transport.answers)
        while b"ready" not in supervisor.poll().log:
            pass
        del transport.answers[before:-1]

    facts = run_of("first").probe()
    assert facts.python and facts.cpus and facts.disk_free
    told.append(sorted(transport.answers.pop()[1][0]))
    told.append(refused(lambda: run_of("nobody").poll()))
    digest = send("first")
    first = run_of("first")
    told += [first.poll().state, refused(lambda: first.lease(grace=9.0)), first.manifest()]
    told.append(refused(lambda: first.start(spec("first", "00" * 32))))
    told.append((first.start(spec("first", digest, "short")).started, followed(first, 0, 0), followed(first, 3, 5)))
    told += [first.start(spec("first", digest)).started, first.stop().stop, first.manifest()]
    told += [streamed(first.read(name, at)) for name, at in (("console.log", 2), ("out/metrics.csv", 0))]
    told.append(streamed(first.send([("out/metrics.csv", 1, 9), ("out/nothing", 0, 1)])))
    told += [streamed(first.read(name, at))[:2] for name, at in (("console.log", 99), ("out/nothing", 0))]
    (source / "more.py").write_text("x = 1\n")
    digest = send("second")
    second = run_of("second", "its-id")
    told.append(second.start(spec("second", digest)).state)
    ready(second)
    told += [second.start(spec("second", digest)).started, second.lease(lasts=4e9, grace=60.0).state]
    another = run_of("second", "another")
    told.append(refused(lambda: another.start(spec("second", digest))))
    told += [refused(act) for act in (another.poll, another.stop, another.lease, another.manifest)]
    told.append(refused(lambda: followed(another, 0, 0)))
    told.append(streamed(another.read("console.log")))
    told.append(refused(lambda: second.start(spec("second", "11" * 32))))
    told.append(run_of("second").poll().state)  # a client that knows no id
    ended = second.stop("user", 10.0)
    told += [(ended.state, ended.stop), followed(second, 6, 0), second.stop("spot").stop, second.manifest()]
    send("third")
    third = run_of("third")
    third.start(spec("third", digest, "deaf"))
    ready(third)
    told.append(known(asdict(third.stop("deadline", 10.0).exit)))  # type: ignore[arg-type]
    return [*told, *known(transport.answers)]


def test_both_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for number in range(2):
        monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / f"home-{number}"))
        source = tmp_path / str(number) / "net"
        source.mkdir(parents=True)
        (source / "__init__.py").touch()
        (source / "train.py").write_text(JOB)
        workdir = tmp_path / "host"
        if number:
            host: Transport = FakeHost(job)
        else:
            workdir.mkdir()
            host = LocalTransport(workdir)
        with Noted(host) as transport:
            said.append(script(transport, str(workdir), source))
    real, fake = said
    for number, (one, other) in enumerate(zip(real, fake, strict=True)):
        assert one == other, f"answer {number}"
