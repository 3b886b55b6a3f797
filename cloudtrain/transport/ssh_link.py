"""Below the transport: the socket, the handshake, and the proof that the peer is still there."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_FAILURE, MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST
from paramiko.message import Message
from paramiko.packet import Packetizer

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.transport.ssh_keys import private_key, written

# Without any handler Python would print paramiko's own error lines to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

BROKEN = (paramiko.SSHException, OSError, EOFError)
"""What paramiko raises when a link or a channel is gone."""

WINDOW = 16 * 1024 * 1024
"""Bytes that the peer may send ahead on one channel: at 100 ms round trip this allows 160 MB/s."""

_READ_AHEAD = 128 * 1024

PROBE_AFTER_S = 4.0
"""Seconds of silence after which the peer is asked for a sign of life."""

PROBE_LIMIT_S = 8.0
"""Seconds that it has to say anything at all; a dead link is so noticed within 12 s."""

# GCM first: paramiko lists it last, and it is the fastest in every measurement (docs/benchmarks.md). No CBC, no SHA-1,
# no MD5.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")


class Wire(socket.socket):
    """A TCP socket that remembers when it last heard from the peer, and reads ahead.

    paramiko asks for 16 bytes and then for the rest of each packet; reading ahead makes one system call of many.
    """

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected.family, connected.type, connected.proto, fileno=connected.detach())
        self.heard = time.monotonic()
        self._buffer = bytearray(_READ_AHEAD)
        self._view = memoryview(self._buffer)
        self._taken = self._held = 0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """At most `size` bytes; `b""` once the peer has closed."""
        if self._taken == self._held:
            # In this order: the read may end in a timeout.
            self._held = self._taken = 0
            self._held = super().recv_into(self._buffer)
            if self._held:
                self.heard = time.monotonic()
        part = bytes(self._view[self._taken : min(self._taken + size, self._held)])
        self._taken += len(part)
        return part


class Packets(Packetizer):
    """paramiko's packet reader, which also keeps what paramiko drops.

    Attributes:
        signals: channel number -> name of the signal that ended its program ("TERM").
        closed_channels: numbers of the channels that the peer has closed itself, so that "the program's output is
            complete" and "the link broke" can be told apart.
        refused: numbers of the channels on which the peer did not start a program.
    """

    # New keys are left to the server, which asks for them after 64 GiB (OpenSSH's limit for AES). paramiko would ask
    # after 512 MiB, and a program that ends while it waits for the answer then blocks the thread that reads the answer.
    REKEY_BYTES = 65 * 1024**3
    REKEY_PACKETS = 2**31

    def __init__(self, socket: socket.socket) -> None:
        super().__init__(socket)
        self.signals: dict[int, str] = {}
        self.closed_channels: set[int] = set()
        self.refused: set[int] = set()

    def read_message(self) -> tuple[int, Message]:
        """The next packet: its type and content."""
        kind, message = super().read_message()
        if kind in (MSG_CHANNEL_CLOSE, MSG_CHANNEL_REQUEST, MSG_CHANNEL_FAILURE):
            copy = Message(message.asbytes())
            channel = copy.get_int()
            if kind == MSG_CHANNEL_CLOSE:
                self.closed_channels.add(channel)
            elif kind == MSG_CHANNEL_FAILURE:
                self.refused.add(channel)
            elif copy.get_text() == "exit-signal":
                copy.get_boolean()
                self.signals[channel] = copy.get_text()
        return kind, message


def where(address: str, port: int) -> str:
    """Address and port for people: `example.org`, `example.org:2222`, `[::1]:2222`."""
    if port == 22:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def dial(address: str, port: int, timeout: float) -> Wire:
    """Open a TCP connection within `timeout` seconds.

    Raises:
        ConnectionFailed: no such host (code `unknown_host`), refused or no answer (code `unreachable`).
    """
    try:
        plain = socket.create_connection((address, port), timeout=timeout)
    except (socket.gaierror, UnicodeError) as error:
        raise ConnectionFailed(
            f"no host is known by the name {address}",
            hint="check the spelling and that this computer is online",
            consequence="nothing was sent",
            code="unknown_host",
            detail=str(error),
        ) from error
    except OSError as error:
        said = "did not answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise ConnectionFailed(
            f"cannot reach {where(address, port)}: {said}",
            hint="check the address, the port and that the machine is on",
            consequence="nothing was sent",
            code="unreachable",
        ) from error
    # paramiko leaves Nagle's algorithm on, which costs 40 ms at every turn of the conversation.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(plain)


def handshake(wire: Wire, place: str, timeout: float, key_type: str = "ssh-ed25519") -> paramiko.Transport:
    """Agree on keys with the peer. Nobody has logged in yet and nothing is verified: the caller compares the host key.

    Args:
        place: for messages.
        timeout: seconds for banner and key exchange together.
        key_type: host key to ask for first; any other is accepted too, so that a mismatch can name what was shown.

    Raises:
        ConnectionFailed: no SSH server there, or no common algorithms; `wire` is closed.
    """
    deadline = time.monotonic() + timeout
    transport = paramiko.Transport(wire, default_window_size=WINDOW, packetizer_class=Packets)
    options = transport.get_security_options()
    options.ciphers = _CIPHERS
    options.digests = _MACS
    # An RSA host key signs by these two; "ssh-rsa" is its name in files alone.
    first = ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)
    known = options.key_types
    options.key_types = (*(k for k in first if k in known), *(k for k in known if k not in first))
    transport.banner_timeout = transport.handshake_timeout = timeout
    try:
        transport.start_client(timeout=timeout)
        # At its time limit start_client returns as if all were well.
        if not transport.initial_kex_done:
            raise TimeoutError
        transport.get_remote_server_key()
    except BROKEN as error:
        hang_up(transport)
        if not transport.remote_version:
            raise ConnectionFailed(
                f"{place} accepts connections but sent no SSH greeting",
                hint="check that the port is the SSH server's; a machine that is booting may need a minute",
                consequence="nothing was sent",
                code="no_banner",
            ) from error
        late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
        reason = f"no key exchange within {timeout:.0f} s" if late else str(error) or "it closed the connection"
        raise ConnectionFailed(
            f"{place} did not complete the SSH handshake: {reason}",
            consequence="nothing was sent",
            code="handshake",
        ) from error
    return transport


def _identity(path: Path) -> paramiko.PKey:
    """The private key in a file, of which paramiko itself reads less than OpenSSH does."""
    key = private_key(path)
    kind: type[paramiko.PKey] = paramiko.Ed25519Key
    if isinstance(key, rsa.RSAPrivateKey):
        kind = paramiko.RSAKey
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = paramiko.ECDSAKey
    return kind.from_private_key(io.StringIO(written(key).decode("ascii")))


def log_in(transport: paramiko.Transport, user: str, key: Path, place: str, timeout: float) -> None:
    """Log in by the private key in the file `key`, and by nothing else. The host key has been compared before.

    Raises:
        ConnectionFailed: refused (code `auth_refused`), or the link broke.
    """
    transport.auth_timeout = timeout
    identity = _identity(key)
    try:
        further = transport.auth_publickey(user, identity)
    except BROKEN as error:
        # Both a refusal and a link that breaks meanwhile may arrive as an AuthenticationException.
        refused = isinstance(error, paramiko.AuthenticationException) and transport.is_active()
        if refused or isinstance(error, paramiko.BadAuthenticationType):
            raise ConnectionFailed(
                f"{place} refused the key for user {user}",
                hint="check user and identity: its public half must be in ~/.ssh/authorized_keys there",
                consequence="nothing was sent",
                code="auth_refused",
            ) from error
        raise ConnectionFailed(f"lost the connection to {place} while logging in", detail=str(error)) from error
    if further:
        raise ConnectionFailed(
            f"{place} asks for more than a key: {', '.join(further)}",
            hint="cloudtrain logs in by key alone; allow that for this user on the machine",
            consequence="nothing was sent",
            code="auth_refused",
        )


def hang_up(transport: paramiko.Transport) -> None:
    """Close the connection at once. Never raises; may be called twice."""
    # The handshake's timer is no daemon thread: uncancelled it keeps the process alive until it fires.
    transport.packetizer.complete_handshake()
    with suppress(*BROKEN):
        transport.close()
        transport.sock.close()


def start_program(transport: paramiko.Transport, command: bytes, timeout: float) -> paramiko.Channel:
    """Open a channel and ask for `command` on it, without waiting for the answer: stdin may follow at once.

    That saves a round trip for every program. A refusal is noted in `Packets.refused`, and the channel is closed.

    Raises:
        BROKEN: the link broke, or no channel was opened within `timeout` seconds.
        ConnectionFailed: the peer opens none for us; code `exec_refused`.
    """
    try:
        channel = transport.open_session(timeout=timeout)
    except paramiko.ChannelException as error:
        raise ConnectionFailed("the host opens no further channel", detail=str(error), code="exec_refused") from error
    _request(transport, channel, "exec", command, answered=True)
    return channel


def send_signal(transport: paramiko.Transport, channel: paramiko.Channel, name: str) -> None:
    """Send the signal `name` ("TERM") to the process group of a channel's program (RFC 4254, 6.9; OpenSSH >= 7.9)."""
    _request(transport, channel, "signal", name, answered=False)


def _request(
    transport: paramiko.Transport, channel: paramiko.Channel, kind: str, what: bytes | str, *, answered: bool
) -> None:
    request = Message()
    request.add_byte(cMSG_CHANNEL_REQUEST)
    request.add_int(channel.remote_chanid)
    request.add_string(kind)
    request.add_boolean(answered)
    request.add_string(what)
    # paramiko has no call for these requests; its own calls end here too.
    transport._send_user_message(request)  # type: ignore[attr-defined]


class Watch:
    """Asks a silent peer for a sign of life and hangs up when none comes.

    paramiko's own keepalive wants no reply, so it never notices a peer that went away without a word; this one does
    within `PROBE_AFTER_S + PROBE_LIMIT_S`. Any byte from the peer counts, so a busy slow link is not taken for dead.
    """

    def __init__(self, transport: paramiko.Transport, wire: Wire) -> None:
        self._transport = transport
        self._wire = wire
        self._stop = threading.Event()
        self.gave_up = False
        self._thread = threading.Thread(target=self._run, name="ssh-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch; returns at once."""
        self._stop.set()

    def _run(self) -> None:
        quiet = 0.0
        while not self._stop.wait(PROBE_AFTER_S - quiet) and self._transport.is_active():
            quiet = time.monotonic() - self._wire.heard
            if quiet >= PROBE_AFTER_S:
                self._probe()
                quiet = 0.0

    def _probe(self) -> None:
        asked = time.monotonic()
        # The request may not even get out of this computer, so its time limit is kept by another thread.
        judge = threading.Thread(target=self._judge, args=(asked,), name="ssh-judge", daemon=True)
        judge.start()
        try:
            self._transport.global_request("keepalive@openssh.com", wait=True)
        except BROKEN:
            return

    def _judge(self, asked: float) -> None:
        while not self._stop.wait(0.25) and self._transport.is_active():
            if self._wire.heard > asked:
                return
            if time.monotonic() - asked >= PROBE_LIMIT_S:
                self.gave_up = True
                hang_up(self._transport)
                return
