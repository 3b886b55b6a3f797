"""One program for one SSH channel: on pipes, byte for byte, or on a terminal of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import asyncssh

from cloudtrain.emulator import posix_shell

CHUNK = 64 * 1024

# A session leader that opens a terminal by its name gets it as its controlling terminal.
_ON_TERMINAL = """import os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(handle, number)
os.close(handle)
os.execv(sys.argv[2], sys.argv[2:])
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
    feed = asyncio.create_task(_feed(channel, program.stdin, program.pid))
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


async def _feed(channel: asyncssh.SSHServerProcess[bytes], sink: asyncio.StreamWriter, pid: int) -> None:
    """Pass stdin and signals on until the client's end of file."""
    async for data in _input(channel, pid):
        try:
            sink.write(data)
            await sink.drain()
        except OSError:
            # It no longer reads; what still comes is dropped, as sshd does.
            async for _ in _input(channel, pid):
                pass
            return
    with contextlib.suppress(OSError):
        sink.close()


class _input:
    """What the client sends, with its signals passed on to the program's process group."""

    def __init__(self, channel: asyncssh.SSHServerProcess[bytes], pid: int, terminal: int | None = None) -> None:
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
    try:
        width, height, *_ = channel.term_size
        _resize(screen, width, height)
        name = os.ttyname(line)
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-IS",
            "-c",
            _ON_TERMINAL,
            name,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=home,
            env={**environment, "TERM": channel.term_type or "dumb", "SSH_TTY": name},
            start_new_session=True,
        )
        feed = asyncio.create_task(_type(channel, screen, program.pid))
        show = asyncio.create_task(_show(channel, screen))
        ended = asyncio.create_task(program.wait())
        closed = asyncio.create_task(channel.channel.wait_closed())
        try:
            await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                _signal(program.pid, "HUP")
            await ended
            os.close(line)
            line = -1
            # The last output is read once nobody holds the other end.
            await asyncio.wait({show}, timeout=2)
        finally:
            for task in (feed, show, closed):
                task.cancel()
            await asyncio.gather(feed, show, closed, return_exceptions=True)
        return ended.result()
    finally:
        os.close(screen)
        if line >= 0:
            os.close(line)


async def _type(channel: asyncssh.SSHServerProcess[bytes], screen: int, pid: int) -> None:
    async for data in _input(channel, pid, screen):
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(screen, left) :]
            except BlockingIOError:
                await asyncio.sleep(0.01)
            except OSError:
                return


async def _show(channel: asyncssh.SSHServerProcess[bytes], screen: int) -> None:
    loop = asyncio.get_running_loop()
    os.set_blocking(screen, False)
    readable = asyncio.Event()
    loop.add_reader(screen, readable.set)
    try:
        # EIO says that the last program on the terminal has gone.
        with contextlib.suppress(OSError, asyncssh.Error):
            while True:
                await readable.wait()
                readable.clear()
                with contextlib.suppress(BlockingIOError):
                    channel.stdout.write(os.read(screen, CHUNK))
                    await channel.stdout.drain()
    finally:
        loop.remove_reader(screen)


def _resize(terminal: int | None, width: int, height: int) -> None:
    if terminal is None or sys.platform == "win32":
        return
    import fcntl
    import struct
    import termios

    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height or 24, width or 80, 0, 0))
