"""One program for one SSH channel: on pipes, byte for byte, or on a terminal of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from pathlib import Path
from typing import BinaryIO

import asyncssh

from cloudtrain.emulator import posix_shell

CHUNK = 64 * 1024

# A session leader without a terminal takes the one on its stdin as its controlling terminal.
_ON_TERMINAL = """import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def login_shell(command: str | None, *, interactive: bool) -> list[str]:
    """How the login shell is started, for `command` or to read commands."""
    shell = posix_shell.find()
    assert shell is not None, "the region is not started without one"
    if command:
        return [shell, "-c", command]
    return [shell, "-i" if interactive else "-s"]


async def on_pipes(
    channel: asyncssh.SSHServerProcess[bytes], argv: list[str], environment: dict[str, str], home: Path
) -> int:
    """Run a program whose streams are the channel's; exit status, negative for a signal, once all output is sent.

    When the channel closes first, its pipes close and the program is left alone, as sshd leaves it.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=CHUNK, loop=loop),
        *argv,
        cwd=home,
        env=environment,
        start_new_session=os.name == "posix",
    )
    program = asyncio.subprocess.Process(transport, protocol, loop)
    assert program.stdin is not None and program.stdout is not None and program.stderr is not None
    feed = asyncio.create_task(_feed(_input(channel, program.pid), program.stdin))
    closed = asyncio.create_task(channel.channel.wait_closed())
    drains = [
        asyncio.create_task(_drain(program.stdout, channel.stdout)),
        asyncio.create_task(_drain(program.stderr, channel.stderr)),
    ]
    try:
        pending: set[asyncio.Task[None]] = set(drains)
        while pending and not closed.done():
            await asyncio.wait({*pending, closed}, return_when=asyncio.FIRST_COMPLETED)
            pending = {task for task in pending if not task.done()}
    finally:
        for task in (feed, closed, *drains):
            task.cancel()
        await asyncio.gather(feed, closed, *drains, return_exceptions=True)
        for number in (0, 1, 2):
            pipe = transport.get_pipe_transport(number)
            if pipe is not None:
                pipe.close()
    return await program.wait()


async def _feed(typed: _input, sink: asyncio.StreamWriter) -> None:
    """Pass stdin and signals on until the client's end of file."""
    async for data in typed:
        try:
            sink.write(data)
            await sink.drain()
        except OSError:
            # It no longer reads; what still comes is dropped, as sshd does.
            async for _ in typed:
                pass
            return
    with contextlib.suppress(OSError):
        sink.close()


class _input:
    """What the client sends, with its signals passed on to the program's process group."""

    def __init__(self, channel: asyncssh.SSHServerProcess[bytes], pid: int, terminal: BinaryIO | None = None) -> None:
        self._channel = channel
        self._pid = pid
        self._terminal = terminal

    def __aiter__(self) -> _input:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                data = await self._channel.stdin.read(CHUNK)
            except asyncssh.SignalReceived as received:
                _signal(self._pid, received.signal)
            except asyncssh.BreakReceived:
                _signal(self._pid, "INT")
            except asyncssh.TerminalSizeChanged as changed:
                _resize(self._terminal, changed.width, changed.height)
            except (OSError, asyncssh.Error):
                raise StopAsyncIteration from None
            else:
                if not data:
                    raise StopAsyncIteration
                return data


def _signal(pid: int, name: str) -> None:
    number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
    if number is not None:
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(pid, number)
            else:
                os.kill(pid, number)


async def _drain(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()


async def on_terminal(
    channel: asyncssh.SSHServerProcess[bytes], argv: list[str], environment: dict[str, str], home: Path
) -> int:
    """Run a program on a terminal of its own, as for `ssh host` typed by a person. It is hung up with the channel."""
    screen, line = os.openpty()
    with os.fdopen(screen, "rb", 0) as shown, os.fdopen(os.dup(screen), "wb", 0) as typed:
        try:
            _resize(shown, *channel.term_size[:2])
            program = await asyncio.create_subprocess_exec(
                *[sys.executable, "-ISc", _ON_TERMINAL, *argv],
                stdin=line,
                stdout=line,
                stderr=line,
                cwd=home,
                env={**environment, "TERM": channel.term_type or "dumb", "SSH_TTY": os.ttyname(line)},
                start_new_session=True,
            )
        finally:
            os.close(line)
        loop, screen_reader = asyncio.get_running_loop(), asyncio.StreamReader(CHUNK)
        source, _ = await loop.connect_read_pipe(lambda: _Screen(screen_reader), shown)
        sink, protocol = await loop.connect_write_pipe(lambda: _Screen(asyncio.StreamReader()), typed)
        keys = asyncio.StreamWriter(sink, protocol, None, loop)
        feed = asyncio.create_task(_feed(_input(channel, program.pid, shown), keys))
        show = asyncio.create_task(_drain(screen_reader, channel.stdout))
        ended = asyncio.create_task(program.wait())
        closed = asyncio.create_task(channel.channel.wait_closed())
        try:
            await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                _signal(program.pid, "HUP")
            await ended
            # The last output is read once nobody holds the other end.
            await asyncio.wait({show}, timeout=2)
        finally:
            for task in (feed, show, closed):
                task.cancel()
            await asyncio.gather(feed, show, closed, return_exceptions=True)
            source.close()
            sink.abort()
        return ended.result()


class _Screen(asyncio.StreamReaderProtocol):
    """This side of a terminal. The last program that leaves the other side leaves an error here: an end, no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


def _resize(terminal: BinaryIO | None, width: int, height: int) -> None:
    if terminal is None or sys.platform == "win32":
        return
    import fcntl
    import termios

    # A closed file says so by a ValueError.
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height or 24, width or 80, 0, 0))
