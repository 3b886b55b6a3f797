"""`cloudtrain` and its job as processes of their own, for tests that start them hundreds of times.

Most of what a short command costs are its imports: 0.4 of the 0.5 s of a `show`, 1 of the 2 s of a launch. Here they
are done once for each test process, by the fork server of `multiprocessing`, and a command begins as a fork of that: a
process like any other, with arguments, environment, folder, streams and signals of its own. Where there is no fork, and
for a command whose interpreter must begin differently (another encoding, say), the interpreter is started as usual.
What must be the whole program from its first import on (`tests/docs/test_readme.py`, the start-up checks) does not come
here.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
# What is read before the first line of a program: by the interpreter, or by a library when it is loaded.
_EARLY = ("PYTHON", "LC_", "LANG", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_", "TORCH", "PYTORCH_", "THP_", "CUDA_")
EXPECTED = {"PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}


class Command:
    """The part of `subprocess.Popen` that the tests use, for a forked command.

    Attributes:
        returncode: as Popen's: None while it runs, negative if a signal ended it.
    """

    def __init__(
        self,
        module: str,
        argv: list[str],
        cwd: Path,
        env: Mapping[str, str],
        streams: tuple[int | IO[bytes], int | IO[bytes], int | IO[bytes]],
        start_new_session: bool,
    ) -> None:
        self._captured: list[IO[bytes] | None] = []
        self._said: tuple[bytes, bytes] | None = None
        with contextlib.ExitStack() as stack:
            passed = []
            for stream in streams:
                captured = None
                if stream == subprocess.DEVNULL:
                    number = os.open(os.devnull, os.O_RDWR)
                    stack.callback(os.close, number)
                elif stream == subprocess.PIPE:
                    captured = tempfile.TemporaryFile()  # noqa: SIM115  (read when the command has ended)
                    number = captured.fileno()
                else:
                    number = stream if isinstance(stream, int) else stream.fileno()
                self._captured.append(captured)
                passed.append(_Passed(number))
            told = (module, argv, str(cwd), dict(env), passed, start_new_session)
            self._process = _server().Process(target=_become, args=told)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(["cloudtrain"], timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for the end; what it wrote to streams given as PIPE. To be called where there are such."""
        self.wait(timeout)
        if self._said is None:
            found = []
            for stream in self._captured[1:]:
                with stream or contextlib.nullcontext():
                    found.append(os.pread(stream.fileno(), 1 << 30, 0) if stream else b"")
            self._said = found[0], found[1]
        return self._said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


AnyCommand = subprocess.Popen[bytes] | Command


def start(
    *argv: str,
    cwd: Path,
    env: Mapping[str, str],
    module: str = "cloudtrain",
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    start_new_session: bool = False,
) -> AnyCommand:
    """`python -m MODULE ARGV`, with the streams as `subprocess.Popen` takes them."""
    if stderr == subprocess.STDOUT:
        stderr = stdout
    if "forkserver" in multiprocessing.get_all_start_methods() and _early(env) == {**_early(os.environ), **EXPECTED}:
        return Command(module, list(argv), cwd, env, (stdin, stdout, stderr), start_new_session)
    return subprocess.Popen(
        [sys.executable, "-m", module, *argv],
        cwd=cwd,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=start_new_session,
    )


def run(*argv: str, timeout: float, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """`start`, to its end; killed if that does not come within `timeout` seconds."""
    command = start(*argv, **how)
    try:
        out, err = command.communicate(timeout=timeout)
    except BaseException:
        command.kill()
        command.communicate(timeout=30)
        raise
    return subprocess.CompletedProcess(argv, command.returncode or 0, out, err)


class _Passed:
    """A descriptor that goes to the new process with its arguments, where it arrives as a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (DupFd(self.number),)


def _arrived(descriptor: Any) -> int:
    number: int = descriptor.detach()
    return number


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_EARLY)}


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    with contextlib.chdir(ROOT):  # where it finds what it is to import; once it runs, this does nothing
        context.set_forkserver_preload(["tests.imported"])
        forkserver.ensure_running()
    return context


def _become(
    module: str, argv: list[str], cwd: str, env: dict[str, str], streams: list[int], start_new_session: bool
) -> None:
    """In the new process: be `python -m MODULE ARGV` from here on."""
    for target, number in enumerate(streams):
        os.dup2(number, target)
    for number in set(streams):
        os.close(number)
    if start_new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [cwd, *(path for path in sys.path if path not in ("", cwd))]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), "utf-8")
    sys.stdout = _written(1, "strict")
    sys.stderr = _written(2, "backslashreplace")
    sys.argv = [module, *argv]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _written(number: int, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(number, "w")
    lines = raw.isatty() or number == 2
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors, line_buffering=lines)
