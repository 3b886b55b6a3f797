"""A host made of a folder: the real supervisor in real processes, and what to look at them with."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.program import put_program

LIMIT_S = 60.0


def digest_of(files: dict[str, list[Any]]) -> str:
    """The digest as docs/protocol.md, "Push", defines it."""
    lines = [
        b"%s\0%d\0%s\0%d\n" % (name.encode("utf-8", "surrogateescape"), size, sha.encode(), mode)
        for name, (size, sha, mode) in files.items()
    ]
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def entry(body: bytes, mode: int = 0o644) -> list[Any]:
    return [len(body), hashlib.sha256(body).hexdigest(), mode]


def pack(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, body in members:
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return stream.getvalue()


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT_S) -> Any:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {limit:.0f} s: {what}")


class Host:
    """`workdir` as docs/protocol.md describes it, and the verbs as a client calls them."""

    def __init__(self, workdir: Path, program: Path, python: str = sys.executable) -> None:
        self.workdir = workdir
        self.program = program
        self.python = python
        workdir.mkdir(parents=True)

    def run_dir(self, run: str = "brave-otter") -> Path:
        return self.workdir / "runs" / run

    def argv(self, verb: str, *options: str, run: str = "brave-otter") -> list[str]:
        return [self.python, "-I", "-S", str(self.program), verb, "--run", str(self.run_dir(run)), *options]

    def call(
        self, verb: str, *options: str, run: str = "brave-otter", stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        argv = self.argv(verb, *options, run=run)
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=LIMIT_S, cwd=self.workdir)

    def ask(self, verb: str, *options: str, run: str = "brave-otter", stdin: bytes = b"") -> dict[str, Any]:
        """The answer of a verb; one line, and exit code 0 only with `ok`."""
        done = self.call(verb, *options, run=run, stdin=stdin)
        assert done.stderr == b""
        assert done.stdout.count(b"\n") == 1
        answer: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if answer["ok"] else 1)
        return answer

    def receive(
        self,
        files: dict[str, list[Any]],
        archive: bytes,
        *,
        base: str | None = None,
        delete: tuple[str, ...] = (),
        digest: str | None = None,
        tree: str = "tree-1",
    ) -> dict[str, Any]:
        header = {"v": 1, "base": base, "digest": digest or digest_of(files), "files": files, "delete": list(delete)}
        stdin = json.dumps(header).encode() + b"\n" + archive
        return self.ask("receive", "--workdir", str(self.workdir), "--tree", tree, stdin=stdin)

    def push(self, files: dict[str, bytes]) -> str:
        """A full push; the digest."""
        answer = self.receive({name: entry(body) for name, body in files.items()}, pack(list(files.items())))
        assert answer["ok"], answer
        return str(answer["digest"])

    def spec(self, script: str, *arguments: str, **changes: Any) -> bytes:
        """Pushes `script` and makes a spec that runs it."""
        spec = {
            "v": 1,
            "run": "brave-otter",
            "tree": "tree-1",
            "digest": self.push({"job.py": script.encode()}),
            "argv": [sys.executable, "job.py", *arguments],
            "env": {},
            "lasts": None,
            "grace": 5,
        }
        return json.dumps({**spec, **changes}).encode()

    def start(self, script: str, *arguments: str, run: str = "brave-otter", **changes: Any) -> dict[str, Any]:
        answer = self.ask("start", run=run, stdin=self.spec(script, *arguments, **changes))
        assert answer["ok"], answer
        return answer

    def poll(self, run: str = "brave-otter") -> dict[str, Any]:
        return self.ask("poll", run=run)

    def log(self, run: str = "brave-otter") -> bytes:
        return (self.run_dir(run) / "console.log").read_bytes()

    def wait_for_log(self, text: bytes, run: str = "brave-otter") -> bytes:
        path = self.run_dir(run) / "console.log"
        wait_until(lambda: path.exists() and text in path.read_bytes(), f"{text!r} in the log")
        return path.read_bytes()

    def finished(self, run: str = "brave-otter") -> dict[str, Any]:
        """The exit record, once it is there."""
        path = self.run_dir(run) / "exit.json"
        wait_until(path.exists, "exit.json")
        record: dict[str, Any] = json.loads(path.read_bytes())
        return record

    def supervisor(self, run: str = "brave-otter") -> int:
        return int(json.loads((self.run_dir(run) / "job.json").read_bytes())["supervisor"])

    def processes(self) -> set[int]:
        """Everything alive that belongs to a run of this host, supervisors and followers included."""
        found = set()
        mark = os.fsencode(self.workdir)
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0]
                    told = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                if state not in (b"Z", b"X") and mark in told:
                    found.add(int(folder.name))
        return found

    def nothing_left(self) -> None:
        wait_until(lambda: not self.processes(), f"every process gone, of {self.processes()}")

    def clean(self) -> None:
        for _ in range(100):
            left = self.processes()
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        raise AssertionError(f"processes cannot be ended: {self.processes()}")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as it is in a run directory, by its `supervise.py`; outside of all hosts, and compiled once."""
    return put_program(tmp_path_factory.mktemp("program"))


@pytest.fixture
def make_host(tmp_path: Path, program: Path) -> Iterator[Callable[..., Host]]:
    """Makes hosts; whatever still runs on them is ended after the test."""
    hosts: list[Host] = []

    def make(name: str = "work", python: str = sys.executable) -> Host:
        hosts.append(Host(tmp_path / name, program, python))
        return hosts[-1]

    yield make
    for host in hosts:
        host.clean()


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    """One host."""
    return make_host()
