"""The SSH server of one machine: public keys only, real programs, bytes passed on as they are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from cloudtrain.emulator.faults import Faults
from cloudtrain.emulator.machine import relay, session


def own_address() -> str:
    """A loopback address for one machine: one of its own where all of 127.0.0.0/8 exists, else 127.0.0.1."""
    number = int.from_bytes(os.urandom(2), "big")
    address = f"127.{64 + number % 128}.{(number >> 8) % 256}.{2 + number % 250}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return address
    return "127.0.0.1"


@dataclass(eq=False)
class SshServer:
    """Listens on an address reserved beforehand, so that the port is refused, not gone, until `open`.

    Args:
        address: where to listen; the port is chosen here.
        root: the machine's file system: `etc/ssh` holds the host keys, `home` the folders of those who may log in, each
            with its `.ssh/authorized_keys`.
        environment: gives the environment of a session of a user with this login directory.
        prefix: gives what is put before the command line of a session.
        admits: whether the instance's security groups let this caller's address in.
        faults: what goes wrong.
        port: which port, 0 for any free one.
    """

    address: str
    root: Path
    environment: Callable[[str, Path], Mapping[str, str]]
    prefix: Callable[[], list[str]]
    admits: Callable[[str], bool]
    faults: Faults
    port: int = 0

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((self.address, self.port))
        self._socket.setblocking(False)
        self._guests: dict[str, float] = {}
        self.address, self.port = self._socket.getsockname()[:2]
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._keys: list[asyncssh.SSHKey] = []
        self._stranger = asyncssh.generate_private_key("ssh-ed25519")
        self._logins = 0
        self._opened = 0.0

    def load_keys(self) -> list[asyncssh.SSHKey]:
        """Read the host keys from disk, as a reload does; connections from now on see them."""
        keys = []
        for path in sorted((self.root / "etc" / "ssh").glob("ssh_host_*_key")):
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

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                caller, peer = await loop.sock_accept(self._socket)
            except OSError:
                return
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._mute() or not self.admits(str(peer[0])):
                served = asyncio.create_task(_say_nothing(caller))
            else:
                if relay.wanted(self.faults):
                    caller, link = relay.spliced(caller, self.faults)
                    self._keep(link)
                served = asyncio.create_task(self._serve(caller))
            # Not by the task itself: one that is cancelled before its first step does nothing.
            served.add_done_callback(functools.partial(_close, caller))
            self._keep(served)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _mute(self) -> bool:
        silence = self.faults.find("no-banner")
        return silence is not None and time.monotonic() - self._opened < silence.number(0, float("inf"))

    async def _serve(self, caller: socket.socket) -> None:
        keys = self._keys
        if self.faults.find("wrong-host-key") or (self._logins and self.faults.find("host-key-changes-on-reconnect")):
            keys = [self._stranger]
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
        refused = self.faults.find("auth-refused")
        if refused is not None and time.monotonic() - self._opened < refused.number(0, 0):
            return False
        if user not in {path.name for path in (self.root / "home").iterdir()}:
            return False
        if self._is_guest(key):
            return True
        try:
            known = asyncssh.read_authorized_keys(str(self.root / "home" / user / ".ssh" / "authorized_keys"))
        except (OSError, ValueError):
            return False
        return known.validate(key, "", "") is not None

    def let_in(self, key: str, seconds: float) -> None:
        """Accept a public key for so long, as EC2 Instance Connect has the machine do."""
        self._guests[key.strip()] = time.monotonic() + seconds

    def _is_guest(self, key: asyncssh.SSHKey) -> bool:
        now = time.monotonic()
        told = [text for text, until in self._guests.items() if now < until]
        return any(asyncssh.import_public_key(text).public_data == key.public_data for text in told)

    def logged_in(self) -> None:
        """Count a login."""
        self._logins += 1

    async def _session(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.subsystem:
            process.exit(1)
            return
        user = str(process.get_extra_info("username"))
        home = self.root / "home" / user
        environment = dict(self.environment(user, home))
        peer, own = process.get_extra_info("peername"), process.get_extra_info("sockname")
        environment["SSH_CONNECTION"] = f"{peer[0]} {peer[1]} {own[0]} {own[1]}" if peer and own else ""
        argv = [*self.prefix(), *session.login_shell(process.command, interactive=bool(process.term_type))]
        run = session.on_terminal if process.term_type and os.name == "posix" else session.on_pipes
        try:
            code = await run(process, argv, environment, home)
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


async def _say_nothing(caller: socket.socket) -> None:
    """A packet filter would swallow the SYN; from user space the nearest is a connection that never says a word."""
    with contextlib.suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(caller, 65536):
            pass


def _close(caller: socket.socket, _: asyncio.Task[None]) -> None:
    caller.close()
