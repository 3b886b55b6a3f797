"""The SSH server of one machine: public keys only, real programs, bytes passed on as they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asyncssh

from cloudtrain.emulator import relay
from cloudtrain.emulator.faults import Faults

CHUNK = 64 * 1024


def own_address() -> str:
    """A loopback address for one machine: one of its own where all of 127.0.0.0/8 exists, else 127.0.0.1."""
    number = int.from_bytes(os.urandom(2), "big")
    address = f"127.{64 + number % 128}.{(number >> 8) % 256}.{2 + number % 250}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return address
    return "127.0.0.1"


class SshServer:
    """Listens on an address reserved beforehand, so that the port is refused, not gone, until `open`.

    Args:
        address: where to listen; the port is chosen here.
        user: the one user who may log in.
        root: the machine's file system: `etc/ssh` holds the host keys.
        home: login directory, with `.ssh/authorized_keys`.
        environment: gives the environment of a session.
        limit: called in each new program before it starts, or None.
        admits: whether the instance's security groups let this caller's address in.
        faults: what goes wrong.
        port: which port, 0 for any free one.
    """

    def __init__(
        self,
        address: str,
        *,
        user: str,
        root: Path,
        home: Path,
        environment: Callable[[], Mapping[str, str]],
        limit: Callable[[], None] | None,
        admits: Callable[[str], bool],
        faults: Faults,
        port: int = 0,
    ) -> None:
        self._user = user
        self._root = root
        self._home = home
        self._environment = environment
        self._limit = limit
        self._admits = admits
        self._faults = faults
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._socket.setblocking(False)
        self.address, self.port = self._socket.getsockname()[:2]
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._silent: set[socket.socket] = set()
        self._keys: list[asyncssh.SSHKey] = []
        self._stranger = asyncssh.generate_private_key("ssh-ed25519")
        self._logins = 0
        self._opened = 0.0

    def load_keys(self) -> list[asyncssh.SSHKey]:
        """Read the host keys from disk, as a reload does; connections from now on see them."""
        keys = []
        for path in sorted((self._root / "etc" / "ssh").glob("ssh_host_*_key")):
            with contextlib.suppress(OSError, asyncssh.KeyImportError):
                keys.append(asyncssh.read_private_key(path))
        if keys:
            self._keys = keys
        return self._keys

    def open(self) -> None:
        """Start to accept connections."""
        self.load_keys()
        self._socket.listen(64)
        self._opened = time.monotonic()
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Stop listening and drop every connection. Programs that run go on."""
        tasks = [*self._tasks, *([self._accepting] if self._accepting else [])]
        self._socket.close()
        for connection in list(self._connections):
            connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for silent in self._silent:
            silent.close()
        self._silent.clear()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                caller, peer = await loop.sock_accept(self._socket)
            except OSError:
                return
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep(asyncio.create_task(self._serve(caller, str(peer[0]))))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, caller: socket.socket, peer: str) -> None:
        silence = self._faults.find("no-banner")
        mute = silence is not None and time.monotonic() - self._opened < silence.number(0, float("inf"))
        if mute or not self._admits(peer):
            # A packet filter would swallow the SYN; from user space the nearest is a connection that never says a word.
            self._silent.add(caller)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_recv(caller, 1)
            return
        keys = self._keys
        if self._faults.find("wrong-host-key") or (self._logins and self._faults.find("host-key-changes-on-reconnect")):
            keys = [self._stranger]
        if relay.wanted(self._faults):
            caller, link = relay.spliced(caller, self._faults)
            self._keep(link)
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            connection = await asyncssh.run_server(
                caller,
                server_factory=lambda: _Login(self),
                server_host_keys=keys,
                process_factory=self._session,
                encoding=None,
                line_editor=False,
                allow_scp=False,
                agent_forwarding=False,
                login_timeout=60,
                server_version="OpenSSH_9.6p1-emulated",
            )
            self._connections.add(connection)
            try:
                await connection.wait_closed()
            finally:
                self._connections.discard(connection)

    def may_log_in(self, user: str, key: asyncssh.SSHKey) -> bool:
        """Whether `key` is one of `user`'s authorised keys now."""
        refused = self._faults.find("auth-refused")
        if refused is not None and time.monotonic() - self._opened < refused.number(0, 0):
            return False
        try:
            known = asyncssh.read_authorized_keys(str(self._home / ".ssh" / "authorized_keys"))
        except (OSError, ValueError):
            return False
        return user == self._user and known.validate(key, "", "") is not None

    def logged_in(self) -> None:
        """Count a login."""
        self._logins += 1

    async def _session(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.subsystem:
            process.exit(1)
            return
        shell = shutil.which("bash") or shutil.which("sh") or os.environ.get("COMSPEC", "cmd.exe")
        environment = dict(self._environment())
        peer, own = process.get_extra_info("peername"), process.get_extra_info("sockname")
        environment["SSH_CONNECTION"] = f"{peer[0]} {peer[1]} {own[0]} {own[1]}" if peer and own else ""
        command = process.command
        argv = (
            [shell, "-c" if os.name == "posix" else "/c", command]
            if command
            else [shell, "-i" if process.term_type else "-s"]
        )
        try:
            code = await _Program(self._limit).run(
                process, argv if command or os.name == "posix" else [shell], environment, self._home
            )
        except OSError as error:
            process.stderr.write(f"{error}\n".encode())
            code = 127
        with contextlib.suppress(OSError, asyncssh.Error):
            if code < 0:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                process.exit(code)


class _Login(asyncssh.SSHServer):
    """Public keys only."""

    def __init__(self, server: SshServer) -> None:
        self._server = server

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._server.may_log_in(username, key)

    def auth_completed(self) -> None:
        self._server.logged_in()


class _Program:
    """A program run for one channel. Its pipes close with the channel; it itself is left alone, as sshd leaves it."""

    def __init__(self, limit: Callable[[], None] | None) -> None:
        self._limit = limit

    async def run(
        self, channel: asyncssh.SSHServerProcess[bytes], argv: list[str], environment: dict[str, str], home: Path
    ) -> int:
        """Exit status, negative for a signal, once the program has ended and all its output is sent."""
        loop = asyncio.get_running_loop()
        keywords: dict[str, Any] = {"preexec_fn": self._limit} if self._limit else {}
        transport, protocol = await loop.subprocess_exec(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=CHUNK, loop=loop),
            *argv,
            cwd=home,
            env=environment,
            start_new_session=os.name == "posix",
            **keywords,
        )
        program = asyncio.subprocess.Process(transport, protocol, loop)
        feed = asyncio.create_task(self._feed(channel, program))
        assert program.stdout is not None and program.stderr is not None
        drains = [
            asyncio.create_task(_drain(program.stdout, channel.stdout)),
            asyncio.create_task(_drain(program.stderr, channel.stderr)),
        ]
        closed = asyncio.create_task(channel.channel.wait_closed())
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

    async def _feed(self, channel: asyncssh.SSHServerProcess[bytes], program: asyncio.subprocess.Process) -> None:
        assert program.stdin is not None
        while True:
            try:
                data = await channel.stdin.read(CHUNK)
            except asyncssh.SignalReceived as received:
                self._signal(program.pid, received.signal)
                continue
            except asyncssh.BreakReceived:
                self._signal(program.pid, "INT")
                continue
            except asyncssh.TerminalSizeChanged:
                continue
            except (OSError, asyncssh.Error):
                break
            if not data:
                break
            try:
                program.stdin.write(data)
                await program.stdin.drain()
            except OSError:
                # It no longer reads; what still comes is dropped, as sshd does.
                with contextlib.suppress(OSError, asyncssh.Error, asyncssh.SignalReceived):
                    while await channel.stdin.read(CHUNK):
                        pass
                return
        with contextlib.suppress(OSError):
            program.stdin.close()

    @staticmethod
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
