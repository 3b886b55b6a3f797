"""Run programs on this computer as if it were a host: the same three calls, so local runs take the same path."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.transport.base import MOST_STDERR, Completed, Stream, Transport, check_answer

_CHUNK = 1024 * 1024
# Small enough that a slow reader still shows progress within the time limit.
_FEED = 64 * 1024
# How long a program that is told to end may take over it before it is killed.
_TERM_S = 1.0
# Output that still comes after a program's exit is its children's; nobody waits for it longer than this.
_LATE_OUTPUT_S = 1.0


class LocalTransport(Transport):
    """Programs of this computer.

    Args:
        folder: stands for the login directory: programs start in it. It must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._streams: list[LocalStream] = []
        self._closed = False

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        timeout: float = 60.0,
        awaits: bytes = b"",
    ) -> Completed:
        """As the base says. A program that cannot be started is exit code 127, as over SSH; no shell is in its way."""
        try:
            program = self._spawn(argv, stdin=subprocess.PIPE)
        except OSError as error:
            return _not_started(argv, error)
        return _Exchange(program, timeout).perform((stdin,) if isinstance(stdin, bytes) else stdin)

    def stream(self, argv: Sequence[str]) -> Stream:
        """As the base says. A program that cannot be started is an empty stream with exit code 127."""
        try:
            program = self._spawn(argv, stdin=subprocess.DEVNULL)
        except OSError as error:
            return _NeverStarted(_not_started(argv, error))
        stream = LocalStream(program)
        self._streams = [*(other for other in self._streams if not other.closed), stream]
        return stream

    def close(self) -> None:
        """End the programs of all open streams."""
        self._closed = True
        for stream in self._streams:
            stream.close()
        self._streams = []

    def _spawn(self, argv: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        if self._closed:
            raise ConnectionFailed("this connection was closed")
        options: dict[str, Any] = {}
        # Ctrl-C in the terminal is for this command, which decides what becomes of its programs.
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        else:
            options["start_new_session"] = True
        return subprocess.Popen(
            list(argv),
            bufsize=0,
            cwd=self._folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )


class _Exchange:
    """One `run`: the caller's thread feeds stdin, two threads read, and one ends the program when nothing moves."""

    def __init__(self, program: subprocess.Popen[bytes], timeout: float) -> None:
        self._program = program
        self._timeout = timeout
        self._moved_at = self._fed_at = time.monotonic()
        self._stdout, self._stderr = bytearray(), bytearray()
        self._ended = threading.Event()
        self._failure: ConnectionFailed | None = None

    def perform(self, chunks: Iterable[bytes]) -> Completed:
        """Feed, read and wait.

        Raises:
            ConnectionFailed: nothing moved for `timeout` seconds, or see `check_answer`; the program has been ended.
        """
        program = self._program
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        threads = [
            _thread(self._collect, program.stdout, self._stdout),
            _thread(self._collect, program.stderr, self._stderr),
            _thread(self._watch),
        ]
        try:
            for chunk in chunks:
                if not self._feed(program.stdin, chunk):
                    break
            with contextlib.suppress(OSError):
                program.stdin.close()
            program.wait()
        finally:
            # Still running here only if the caller's own chunks failed, or Ctrl-C came.
            _end(program)
            self._ended.set()
            with contextlib.suppress(OSError):
                program.stdin.close()
            for thread in threads:
                thread.join(_LATE_OUTPUT_S)
        if self._failure is not None:
            self._failure.detail = self._stderr.decode("utf-8", "replace")[-2000:] or None
            raise self._failure
        return Completed(program.returncode, bytes(self._stdout), bytes(self._stderr))

    def _feed(self, pipe: IO[bytes], chunk: bytes) -> bool:
        """Whether the program still reads. One that does not has ended, or will: its answer tells why."""
        view = memoryview(chunk)
        try:
            while view:
                view = view[pipe.write(view[:_FEED]) or 0 :]
                self._moved_at = self._fed_at = time.monotonic()
        except OSError:
            return False
        return True

    def _collect(self, pipe: IO[bytes], into: bytearray) -> None:
        with pipe, contextlib.suppress(OSError):
            while self._failure is None and (data := pipe.read(_CHUNK)):
                into += data
                del self._stderr[:-MOST_STDERR]
                self._moved_at = time.monotonic()
                try:
                    check_answer(len(self._stdout), self._moved_at - self._fed_at, self._timeout)
                except ConnectionFailed as error:
                    self._give_up(error)

    def _give_up(self, failure: ConnectionFailed) -> None:
        self._failure = failure
        _end(self._program)

    def _watch(self) -> None:
        while True:
            left = self._moved_at + self._timeout - time.monotonic()
            if self._ended.wait(max(left, 0.0)):
                return
            if time.monotonic() - self._moved_at >= self._timeout:
                why = f"a program on this computer did nothing for {self._timeout:.0f} s and was ended"
                return self._give_up(ConnectionFailed(why, code="silent"))


class LocalStream(Stream):
    """Stdout of a running program. A thread reads ahead, because Windows cannot wait for a pipe with a time limit."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        self._chunks: queue.Queue[bytes] = queue.Queue(maxsize=8)
        self._stderr = bytearray()
        self._at_end = False
        self._lock = threading.Lock()
        self.closed = False
        self._threads = [_thread(self._pump, program.stdout), _thread(self._collect, program.stderr)]

    def read(self, timeout: float) -> bytes:
        if self._at_end or self.closed:
            return b""
        try:
            chunk = self._chunks.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"nothing came within {timeout:g} s") from None
        self._at_end = not chunk
        return chunk

    def finish(self, timeout: float) -> Completed:
        try:
            code = self._program.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ConnectionFailed(
                f"a program on this computer did not end within {timeout:.0f} s", code="silent"
            ) from error
        self._threads[1].join(_LATE_OUTPUT_S)
        return Completed(code, b"", bytes(self._stderr))

    def close(self) -> None:
        """End the program and its children, free the pipes."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        _end(self._program)
        # The reading thread may be waiting for room.
        while self._threads[0].is_alive():
            with contextlib.suppress(queue.Empty):
                self._chunks.get_nowait()
            self._threads[0].join(0.01)
            if self._program.poll() is not None and self._chunks.empty():
                break
        for thread in self._threads:
            thread.join(_LATE_OUTPUT_S)

    def _pump(self, pipe: IO[bytes]) -> None:
        with pipe, contextlib.suppress(OSError):
            while not self.closed and (data := pipe.read(_CHUNK)):
                self._chunks.put(data)
        if not self.closed:
            self._chunks.put(b"")

    def _collect(self, pipe: IO[bytes]) -> None:
        with pipe, contextlib.suppress(OSError):
            while data := pipe.read(_CHUNK):
                self._stderr += data
                del self._stderr[:-MOST_STDERR]


class _NeverStarted(Stream):
    """The stream of a program that could not be started."""

    def __init__(self, outcome: Completed) -> None:
        self._outcome = outcome

    def read(self, timeout: float) -> bytes:
        return b""

    def finish(self, timeout: float) -> Completed:
        return self._outcome

    def close(self) -> None:
        pass


def _not_started(argv: Sequence[str], error: OSError) -> Completed:
    return Completed(127, b"", f"{argv[0]}: {error.strerror or error}\n".encode("utf-8", "replace"))


def _thread(target: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name="local-transport", daemon=True)
    thread.start()
    return thread


def _end(program: subprocess.Popen[bytes]) -> None:
    """End a program and the children it has not detached; one that has ended is left alone."""
    if program.poll() is not None:
        return
    _signal(program, hard=False)
    try:
        program.wait(_TERM_S)
    except subprocess.TimeoutExpired:
        _signal(program, hard=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(_TERM_S)


def _signal(program: subprocess.Popen[bytes], *, hard: bool) -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            program.kill()
        else:
            # Its process group: it was started as the leader of one.
            os.killpg(program.pid, signal.SIGKILL if hard else signal.SIGTERM)
