"""A host in memory: the verbs of docs/structure.md, "On the host", jobs that are generators, a clock of its own.

`tests/host/test_fake_host.py` holds it against the program that real hosts run, so that the two cannot part.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import signal
import tarfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtrain.core.errors import CloudtrainError, ConnectionFailed
from cloudtrain.source.tree import digest_of
from cloudtrain.transport.base import Completed, Stream, Transport

FOREVER = 1e9  # seconds; a job that waits so long ends only when it is stopped
LONGEST_S = 30 * 86400.0  # of the clock, in one stream: then the test waits for what never comes
DONE = Completed(0, b"", b"")
NO_FOLDER = Completed(1, b"", b"ModuleNotFoundError: No module named 'supervise'\n")
VERBS = ("probe", "left", "receive", "start", "poll", "follow", "stop", "lease", "manifest", "send", "read")

INTERPRETER = {
    "version": "3.12",
    "platform": "x86_64-manylinux_2_34",
    "has": {"torch": "2.13.0"},
    "lacks": [],
    "bin": None,
    "sites": [],
}

# Where the kernel counts what it has ended for lack of memory, as the real program reads it.
VMSTAT = Path("/proc/vmstat")


class Terminated(BaseException):
    """What a job gets as SIGTERM, at the place where it waits. One that does not catch it ends by the signal."""


@dataclass
class FakeRun:
    """A run directory, as the job in it has it too.

    Attributes:
        out: the finished files below out/.
        exit: the exit record; None while the job goes on.
        wakes_at: when the job goes on by itself, by the host's clock.
    """

    host: FakeHost
    spec: dict[str, Any] | None = None
    log: bytes = b""
    events: bytes = b""
    out: dict[str, bytes] = field(default_factory=dict)
    exit: dict[str, Any] | None = None
    stop: str | None = None
    lease: dict[str, float] = field(default_factory=dict)
    notices: list[dict[str, Any]] = field(default_factory=list)
    wakes_at: float = 0.0
    job: Generator[float, None, int | None] | None = None
    lost: bool = False

    @property
    def state(self) -> str:
        if self.exit is not None:
            return "exited"
        if self.job is None or self.lost:
            return "absent" if self.spec is None else "lost"
        return "running"

    def print(self, text: str) -> None:
        """A line of the job's log."""
        self.log += text.encode() + b"\n"

    def tell(self, kind: str, **values: Any) -> None:
        """An event of the job's."""
        self.events += json.dumps({"v": 1, "t": self.host.now, "kind": kind, **values}).encode() + b"\n"

    def go_on(self, stop: str | None = None) -> None:
        """The job's next piece; with a reason to `stop`, what it does when it is told so."""
        assert self.job is not None
        code: int | None = None
        try:
            if stop is None:
                self.wakes_at = self.host.now + next(self.job)
                return
            self.stop = self.stop or stop
            self.job.throw(Terminated())
            code = -signal.SIGKILL  # it goes on: its grace is over some time
        except StopIteration as end:
            code = end.value or 0
        except Terminated:
            code = -signal.SIGTERM
        self.exit = {
            "v": 1,
            "code": int(code),
            "signal": -int(code) if code < 0 else None,
            "at": self.host.now,
            "log_bytes": len(self.log),
            "log_sha256": hashlib.sha256(self.log).hexdigest(),
            "events_bytes": len(self.events),
            "events_sha256": hashlib.sha256(self.events).hexdigest(),
            "stop": self.stop,
            **({"signal_name": signal.Signals(-int(code)).name} if code < 0 else {}),
            **({"oom_kills": 0} if VMSTAT.exists() else {}),
        }

    def ends_at(self) -> float:
        """When its deadline ends it."""
        ends = [(self.spec or {}).get("ends"), self.lease.get("ends")]
        return max((end for end in ends if end is not None), default=float("inf"))


class Refusal(Exception):
    """A verb says no."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


Job = Callable[[FakeRun], Generator[float, None, int | None]]


class Canned(Transport):
    """A host with one answer."""

    def __init__(self, stdout: bytes) -> None:
        self._stdout = stdout

    def run(self, argv: Sequence[str], *, stdin: Any = b"", timeout: float = 60.0, awaits: bytes = b"") -> Completed:
        return Completed(0, argv[-1][::-1].encode() + b"\n" + self._stdout, b"")

    def stream(self, argv: Sequence[str]) -> Stream:
        raise NotImplementedError

    def close(self) -> None:
        pass


class FakeHost(Transport):
    """One machine. Time passes only in `sleep` and while a stream waits.

    Args:
        job: what every run does here: a generator that yields seconds to wait, and returns its exit code.
        number: which machine of its provider this is, from 1.

    Attributes:
        now: unix seconds.
        asked: the verbs, in their order.
        lose: verbs whose answer is lost the next time, after their effect.
        dead: what every call of the host says instead of an answer.
        has: what its probe finds, where that is not what all find.
    """

    def __init__(self, job: Job, now: float = 1_800_000_000.0, number: int = 1) -> None:
        self.job, self.now, self.number = job, now, number
        self.trees: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, FakeRun] = {}
        self.asked: list[str] = []
        self.lose: list[str] = []
        self.dead: CloudtrainError | None = None
        self.has: dict[str, Any] = {}

    def clock(self) -> float:
        """The time here, and of whoever is handed this."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass: jobs go on and end when they are due."""
        until = self.now + seconds
        while True:
            living = [run for run in self.runs.values() if run.state == "running"]
            due, run = min(((min(run.wakes_at, run.ends_at()), i) for i, run in enumerate(living)), default=(until, -1))
            if due > until or run < 0:
                self.now = until
                return
            self.now = max(self.now, due)
            ended = living[run].ends_at() <= self.now
            living[run].go_on("deadline" if ended else None)

    def run_of(self, name: str) -> FakeRun:
        """The run of that name."""
        # Of its folder there, which may end with the beginning of its id.
        [found] = [run for path, run in self.runs.items() if re.search(rf"/runs/{name}(-[0-9a-f]{{8}})?$", path)]
        return found

    # --- the transport

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        timeout: float = 60.0,
        awaits: bytes = b"",
    ) -> Completed:
        data = stdin if isinstance(stdin, bytes) else b"".join(stdin)
        if argv[1] == "-c" and "lacks" in argv[2]:  # what an interpreter has: it lacks nothing (`interpreter.py`)
            self._alive()
            return Completed(0, json.dumps({**INTERPRETER, "python": argv[0]}).encode(), b"")
        verb, run, options = self._parse(argv)
        first = first_line(argv)
        if run is None:
            return Completed(NO_FOLDER.exit_code, first, NO_FOLDER.stderr)
        try:
            self._check(run, options)
            answer = getattr(self, f"_{verb}")(run, options, data)
        except Refusal as refusal:
            line = {"ok": False, "code": refusal.code, "message": refusal.message}
            return Completed(1, first + json.dumps(line).encode() + b"\n", b"")
        if verb in self.lose:
            self.lose.remove(verb)
            raise ConnectionFailed("the link broke before the answer came")
        return Completed(0, first + json.dumps({"ok": True, **answer}).encode() + b"\n", b"")

    def stream(self, argv: Sequence[str]) -> Stream:
        verb, run, options = self._parse(argv)
        first = first_line(argv)
        if run is None:
            return FakeStream(self, iter((first,)), broken=False, done=NO_FOLDER)
        return FakeStream(self, self._told(verb, first, run, options), broken=verb in self.lose and verb)

    def _told(self, verb: str, first: bytes, run: FakeRun, options: dict[str, str]) -> Iterator[bytes]:
        yield first
        self._check(run, options)
        yield from getattr(self, f"_{verb}")(run, options)

    def _check(self, run: FakeRun, options: dict[str, str], digest: str | None = None) -> None:
        spec, given = run.spec or {}, options.get("--id")
        if given is not None and spec.get("id", given) != given:
            raise Refusal("another_run", "another run of this name is on the host: it was started from somewhere else")
        if digest is not None and spec.get("digest", digest) != digest:
            raise Refusal("another_run", "this run was started on the host with other files")

    def close(self) -> None:
        """Nothing is open."""

    def _alive(self) -> None:
        if self.dead is not None:
            raise self.dead

    def _parse(self, argv: Sequence[str]) -> tuple[str, FakeRun | None, dict[str, str]]:
        self._alive()
        at = next(number for number, word in enumerate(argv) if word in VERBS)
        verb, rest, options = argv[at], list(argv[at + 1 : -1]), {}
        while rest:
            name, given, value = rest.pop(0).partition("=")
            options.setdefault(name, value if given else rest.pop(0))
        self.asked.append(verb)
        if verb in ("probe", "left"):
            return verb, FakeRun(self), options
        if verb == "receive":  # it makes the run directory that its command line names
            return verb, self.runs.setdefault(argv[at - 1], FakeRun(self)), options
        return verb, self.runs.get(options["--run"]), options

    # --- the verbs

    def _probe(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        python = {"version": "3.12.3", "path": "/opt/pytorch/bin/python"}
        gpu = {"name": "Tesla T4", "memory_mib": 15360}
        return {
            "python": python, "torch": "2.13.0", "cuda": "13.0", "driver": "580.105", "gpus": [gpu], "cpus": 4,
            "disk_free": 10**11, "os": "Linux", "home": "/home/ubuntu", "boot_id": "a-boot", "at": self.now,
            "without_cuda": False,
            "why": None, "looked": [], "nvidia_smi": "", "cuda_fault": None, "serves": "13.0", "logout": None,
            **self.has,
        }  # fmt: skip

    def _left(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        return {"left": {}}  # a push that was cut short has left nothing here

    def _receive(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        stream = io.BytesIO(stdin)
        stream.read(json.loads(stream.readline())["supervise"])
        header = json.loads(stream.readline())
        tree = self.trees.get(options["--tree"], {})
        if header["base"] is not None and header["base"] != tree.get("digest"):
            raise Refusal("need_full", "the tree on the host is another one than the changes are against")
        files = {} if header["base"] is None else dict(tree["files"])
        bodies = {} if header["base"] is None else dict(tree["bodies"])
        for name in header["delete"]:
            files.pop(name, None)
        files.update(header["files"])
        if digest_of(files) != header["digest"]:
            raise Refusal("bad_header", "the files of the header do not have the digest that it names")
        with tarfile.open(fileobj=stream, mode="r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                bodies[member.name] = file.read() if file else b""
        for name, (size, sha256, _) in header["files"].items():
            if (len(bodies[name]), hashlib.sha256(bodies[name]).hexdigest()) != (size, sha256):
                raise Refusal("damaged", f"{name!r} did not arrive as it was sent")
        self.trees[options["--tree"]] = {"digest": header["digest"], "files": files, "bodies": bodies}
        size = sum(entry[0] for entry in header["files"].values())
        return {"digest": header["digest"], "files": len(header["files"]), "bytes": size}

    def _start(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        spec = json.loads(stdin)
        if "--id" in options:
            spec["id"] = options["--id"]
        self._check(run, options, spec["digest"])
        if run.state == "absent":
            if self.trees.get(spec["tree"], {}).get("digest") != spec["digest"]:
                raise Refusal("tree_changed", "the tree on the host is not the one that was sent")
            run.spec, run.job = spec | self._ending_in(spec.get("lasts")), self.job(run)
            run.go_on()
            return {"state": "running", "started": True, "pid": 4711}
        return {"state": run.state, "started": False, "pid": 4711}

    def _ending_in(self, lasts: float | None) -> dict[str, float | None]:
        return {"ends": None if lasts is None else self.now + lasts}

    def _poll(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        log, events = run.log[int(options["--log"]) :], run.events[int(options["--events"]) :]
        return {
            "state": run.state, "exit": run.exit, "stop": run.stop,
            "log_size": len(run.log), "events_size": len(run.events),
            "log": base64.b64encode(log).decode(), "events": base64.b64encode(events).decode(),
        }  # fmt: skip

    def _stop(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        if run.state == "running":
            run.go_on(options["--reason"])
        return {"state": run.state, "exit": run.exit, "stop": run.stop}

    def _lease(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        if run.state == "absent":
            raise Refusal("absent", "this run has not been started")
        if "--lasts" in options:
            run.lease |= self._ending_in(float(options["--lasts"]))
        if "--grace" in options:
            run.lease["grace"] = float(options["--grace"])
        return {"state": run.state, "ends": run.lease.get("ends"), "grace": run.lease.get("grace")}

    def _manifest(self, run: FakeRun, options: dict[str, str], stdin: bytes) -> dict[str, Any]:
        files = sorted(run.out.items())
        return {
            "files": [{"name": n, "size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files],
            "links": [],
        }

    def _follow(self, run: FakeRun, options: dict[str, str]) -> Iterator[bytes]:
        sent = {"log": int(options["--log"]), "events": int(options["--events"])}
        told, began, beat = 0, self.now, float(options["--beat"])

        def sizes() -> dict[str, int]:
            return {"log": len(run.log), "events": len(run.events)}

        while True:
            for notice in run.notices[told:]:
                yield framed({"k": "notice", **notice})
            told = len(run.notices)
            news = False
            for kind, data in (("log", run.log), ("events", run.events)):
                if piece := data[sent[kind] :]:
                    yield framed({"k": kind, "o": sent[kind], "n": len(piece)}, piece)
                    sent[kind], news = len(data), True
            if run.state != "running":
                yield framed({"k": "end", "state": run.state, "exit": run.exit, **sizes()})
                return
            if not news:
                yield framed({"k": "beat", "t": self.now, **sizes()})
            assert self.now < began + LONGEST_S, "what is waited for never comes"
            # Long waits are passed over: a job that waits for an hour is not followed for 900 beats.
            self.sleep(max(beat, min(run.wakes_at, run.ends_at()) - self.now) if run.wakes_at < FOREVER else beat)

    def _send(self, run: FakeRun, options: dict[str, str]) -> Iterator[bytes]:
        asked = json.loads(zlib.decompress(base64.b64decode(options["--files"])))
        for number, (name, offset, most) in enumerate(asked):
            if name.removeprefix("out/") not in run.out:
                yield framed({"k": "withheld", "i": number, "why": f"the run has no {name}"})
                continue
            data = run.out[name.removeprefix("out/")][offset : offset + most]
            yield framed({"k": "file", "i": number, "n": len(data)}, data)
            if data:
                yield framed({"k": "file", "i": number, "n": 0})

    def _read(self, run: FakeRun, options: dict[str, str]) -> Iterator[bytes]:
        name, offset = options["--name"], int(options["--offset"])
        files = {"console.log": run.log, "events.jsonl": run.events}
        files |= {f"out/{path}": data for path, data in run.out.items()}
        if name not in files:
            raise Refusal("no_such_file", f"the run has no {name}")
        if offset > len(files[name]):
            size = len(files[name])
            raise Refusal("shrunk", f"{name} has {size} bytes, fewer than the {offset} asked for")
        yield files[name][offset:]


def first_line(argv: Sequence[str]) -> bytes:
    """What the program that a command line starts prints first: the last word of it, backwards."""
    return argv[-1][::-1].encode() + b"\n"


def framed(head: dict[str, Any], payload: bytes = b"") -> bytes:
    """A frame of `follow`."""
    return json.dumps(head).encode() + b"\n" + payload


class FakeStream(Stream):
    """What a verb streams; `broken`: the link breaks in the middle of the first piece after its first line."""

    def __init__(self, host: FakeHost, pieces: Iterator[bytes], broken: str | bool, done: Completed = DONE) -> None:
        self._host, self._pieces, self._broken, self._done = host, pieces, broken, done

    def read(self, timeout: float) -> bytes:
        if self._host.dead is not None:
            raise self._host.dead
        if self._broken == "over":
            raise ConnectionFailed("the link broke")
        try:
            piece = next(self._pieces, b"")
        except Refusal as refusal:
            line = {"ok": False, "code": refusal.code, "message": refusal.message}
            self._done = Completed(1, b"", json.dumps(line).encode() + b"\n")
            return b""
        if self._broken and not piece.startswith(b"cloudtrain:"):
            self._host.lose.remove(str(self._broken))
            self._broken = "over"
            return piece[: len(piece) // 2]
        return piece

    def finish(self, timeout: float) -> Completed:
        return self._done

    def close(self) -> None:
        """The job goes on."""
