"""Python with torch in it, for tests that start the job dozens of times.

Of the 4 s of computing that the smallest training takes, 1.9 are the import of torch and 1.7 what torch imports when
the first optimiser is made. Here both are done once for each test process, by a server that only imports: it runs
nothing of torch, so it has no thread that a fork would lose. A job begins as a fork of it: a process like any other,
with arguments, environment, folder, streams and signals of its own, that ends as an interpreter ends. Where there is no
fork, and for an environment that interpreter or libraries read when they are loaded, `python` is started as usual.
What is about the start itself does not come here: `finished` of conftest.py, the terminal, packages that are missing,
a limit on the memory.

The server forks a watcher for each job, which forks the job, waits for it, and tells its id and how it ended.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ("numpy", "safetensors.torch", "torch", "torch._dynamo", "tqdm")
# What is read before the first line of a program, by the interpreter or by a library when it is loaded.
EARLY = (
    "PYTHON",
    "LC_",
    "LANG",
    "LD_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "TORCH",
    "PYTORCH_",
    "THP_",
    "CUDA_",
)
START_LIMIT_S = 200
_LENGTH = struct.Struct("!I")


class Forked:
    """The part of `subprocess.Popen` that the tests use, for a fork.

    Attributes:
        returncode: as Popen's: None while it runs, negative if a signal ended it.
    """

    def __init__(self, pid: int, told: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(["python"], timeout or 0)
            self.returncode = int(os.read(self._told, 64))  # one write, far below what a pipe may part
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


AnyProcess = subprocess.Popen[bytes] | Forked


def start(*argv: str, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes], cwd: Path = ROOT) -> AnyProcess:
    """`python -u ARGV`, where ARGV begins with `-m MODULE` or `-c CODE`; it can import what the repository holds."""
    if hasattr(os, "fork") and _early(env) == _early(os.environ):
        return _the_server().fork(argv, cwd, env, stdout, stderr)
    env = {**env, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-u", *argv]
    return subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)


def run(*argv: str, timeout: float, env: Mapping[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    """`start`, to its end; killed if that does not come within `timeout` seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(*argv, env=env, stdout=out, stderr=err, cwd=cwd)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait(30)
            raise
        found = []
        for file in (out, err):
            file.seek(0)
            found.append(file.read())
    return subprocess.CompletedProcess(argv, code, *found)


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(EARLY)}


class _Server:
    """A process that has imported and waits for requests on a socket; it ends when the socket is closed."""

    def __init__(self) -> None:
        self.early = _early(os.environ)
        self.control, other = socket.socketpair()
        with other:
            command = [sys.executable, "-m", "tests.job.forked", str(other.fileno())]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()], env=dict(os.environ)
            )

    def fork(
        self, argv: tuple[str, ...], cwd: Path, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> Forked:
        request = json.dumps({"argv": argv, "cwd": str(cwd), "env": dict(env)}).encode("utf-8")
        told, tells = os.pipe()
        try:
            with Path(os.devnull).open("rb") as nothing:
                passed = [nothing.fileno(), stdout.fileno(), stderr.fileno(), tells]
                socket.send_fds(self.control, [_LENGTH.pack(len(request))], passed)
            self.control.sendall(request)
            if not select.select([told], [], [], START_LIMIT_S)[0]:
                raise RuntimeError("the server of forks does not answer")
            (pid,) = _LENGTH.unpack(os.read(told, _LENGTH.size))
            return Forked(pid, told)
        finally:
            os.close(tells)

    def close(self) -> None:
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
            return
        self.process.kill()
        self.process.wait(30)


_servers: list[_Server] = []


def _the_server() -> _Server:
    early = _early(os.environ)
    for server in _servers:
        if server.early == early and server.process.poll() is None:
            return server
    made = _Server()
    _servers.append(made)
    atexit.register(made.close)
    return made


# in the server, the watcher and the job


def _serve(number: int) -> None:
    """Answer requests until the socket is closed. In the fork that is a job, returns when the job's code has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the tests
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers leave nothing behind
    for name in IMPORTED:
        importlib.import_module(name)
    # What is here stays for good: a fork that looked through it for garbage would copy all of it.
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=number)
    while True:
        head, passed, _, _ = socket.recv_fds(control, _LENGTH.size, 4, socket.MSG_WAITALL)
        if not head:
            return
        request = control.recv(*_LENGTH.unpack(head), socket.MSG_WAITALL)
        if os.fork() == 0:
            control.close()
            return _watch(json.loads(request), passed)
        for descriptor in passed:
            os.close(descriptor)


def _watch(request: dict[str, Any], passed: list[int]) -> None:
    *streams, tells = passed
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(tells)
        return _become(request["argv"], request["cwd"], request["env"], streams)
    for descriptor in streams:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # nobody is there to be told
        os.write(tells, _LENGTH.pack(pid))
        _, how = os.waitpid(pid, 0)
        os.write(tells, str(os.waitstatus_to_exitcode(how)).encode())
    os._exit(0)


def _become(argv: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> None:
    """Be `python -u ARGV` from here on."""
    for target, number in enumerate(streams):
        os.dup2(number, target)
        os.close(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [cwd, *(path for path in sys.path if path not in ("", cwd))]
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = sys.__stdout__ = _written(1, "strict")
    sys.stderr = sys.__stderr__ = _written(2, "backslashreplace")
    kind, what, *rest = argv
    sys.argv = [what if kind == "-m" else kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def _written(number: int, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", errors, write_through=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
