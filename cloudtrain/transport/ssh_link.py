"""Below the transport: the handshake, what paramiko drops, and the proof that the peer is still there."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_FAILURE, MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST
from paramiko.message import Message
from paramiko.packet import Packetizer

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.transport.ssh_dial import Wire

# Without any handler Python would print paramiko's own error lines to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

BROKEN = (paramiko.SSHException, OSError, EOFError)
"""What paramiko raises when a link or a channel is gone."""

WINDOW = 16 * 1024 * 1024
"""Bytes that the peer may send ahead on one channel: at 100 ms round trip this allows 160 MB/s."""

PROBE_AFTER_S = 4.0
"""Seconds of silence after which the peer is asked for a sign of life."""

PROBE_LIMIT_S = 8.0
"""Seconds that it has to say anything at all; a dead link is so noticed within 12 s."""

_AHEAD_S = 2.0
_FIRST_AHEAD = 128 * 1024  # bytes, while nothing is known of the link
_LEAST_AHEAD = 32 * 1024
_SLOWEST = 4096.0
"""Bytes a second that a link is taken to carry while nothing is known of it."""

# GCM first: paramiko lists it last, and it is the fastest in every measurement (docs/benchmarks.md). No CBC, no SHA-1,
# no MD5.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")


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


def handshake(wire: Wire, place: str, timeout: float, key_type: str = "ssh-ed25519") -> paramiko.Transport:
    """Agree on keys with the peer. Nobody has logged in yet and nothing is verified: the caller compares the host key.

    Args:
        place: for messages.
        timeout: seconds for the greeting, and again for the key exchange.
        key_type: host key to ask for first; any other is accepted too, so that a mismatch can name what was shown.

    Raises:
        ConnectionFailed: no SSH server there, or no common algorithms; `wire` is closed.
    """
    deadline = time.monotonic() + 2 * timeout
    transport = paramiko.Transport(wire, default_window_size=WINDOW, packetizer_class=Packets)
    options = transport.get_security_options()
    options.ciphers = _CIPHERS
    options.digests = _MACS
    # An RSA host key signs by these two; "ssh-rsa" is its name in files alone.
    first = ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)
    known = options.key_types
    options.key_types = (*(k for k in first if k in known), *(k for k in known if k not in first))
    transport.banner_timeout, transport.handshake_timeout = timeout, 2 * timeout
    try:
        transport.start_client(timeout=2 * timeout)
        # At its time limit start_client returns as if all were well.
        if not transport.initial_kex_done:
            raise TimeoutError
        transport.get_remote_server_key()
    except BROKEN as error:
        said = wire.said() if not transport.remote_version else None
        hang_up(transport)
        if said is not None:
            raise ConnectionFailed(
                f"cannot reach {place} the way that the SSH configuration names",
                detail=said,
                hint="ssh, typed by hand, shows what is asked or missing on that way",
                consequence="nothing was sent",
                code="unreachable",
            ) from error
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
    """Asks a silent peer for a sign of life, hangs up when none comes, and keeps what is on its way to the peer short.

    paramiko's own keepalive wants no reply, so it never notices a peer that went away without a word; this one does
    within `PROBE_AFTER_S + PROBE_LIMIT_S`. Any byte from the peer counts. The answer to a question comes after all
    that was sent before it has arrived: so the pace of a slow link is known, no more is sent ahead than it takes in
    `_AHEAD_S`, and what is on its way has the time that it needs.
    """

    def __init__(self, transport: paramiko.Transport, wire: Wire) -> None:
        self._transport = transport
        self._wire = wire
        self._stop = False
        self._news, self._room = threading.Event(), threading.Event()
        self._arrived, self._since = wire.sent, time.monotonic()
        self._allowed, self._pace = _FIRST_AHEAD, _SLOWEST
        self.gave_up = False
        self._thread = threading.Thread(target=self._run, name="ssh-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch; returns at once."""
        self._stop = True
        self._news.set()

    def came(self) -> int:
        """Bytes that have come from the peer so far."""
        return self._wire.came

    def wait_for_room(self, timeout: float) -> None:
        """Until more may be sent.

        Raises:
            TimeoutError: it may not within `timeout` seconds.
        """
        if self._on_its_way() >= self._allowed // 2:
            self._news.set()
        end = time.monotonic() + timeout
        while self._on_its_way() >= self._allowed and self._transport.is_active():
            self._room.clear()
            if self._on_its_way() >= self._allowed and not self._room.wait(max(0.0, end - time.monotonic())):
                raise TimeoutError

    def _on_its_way(self) -> int:
        return self._wire.sent - self._arrived

    def _run(self) -> None:
        while not self._stop and self._transport.is_active():
            self._news.clear()
            left = self._wire.heard + PROBE_AFTER_S - time.monotonic()
            if self._on_its_way() >= self._allowed // 2 or left <= 0:
                self._probe()
            else:
                self._news.wait(left)
        self._room.set()

    def _probe(self) -> None:
        asked, sent = time.monotonic(), self._wire.sent
        ahead = sent - self._arrived
        # The request may not even get out of this computer, so its time limit is kept by another thread.
        limit = PROBE_LIMIT_S + ahead / self._pace
        answered = threading.Event()
        judge = threading.Thread(target=self._judge, args=(answered, asked, limit), name="ssh-judge", daemon=True)
        judge.start()
        try:
            self._transport.global_request("keepalive@openssh.com", wait=True)
        except BROKEN:
            return
        finally:
            answered.set()
        now = time.monotonic()
        if ahead >= min(self._allowed // 2, _FIRST_AHEAD // 2):
            # They all came after the last answer, and some perhaps before this question.
            least, most = ahead / max(1e-6, now - self._since), ahead / max(1e-6, now - asked)
            self._pace = max(_SLOWEST, min(max(self._pace, least), most))
            self._allowed = max(_LEAST_AHEAD, int(self._pace * _AHEAD_S))
        self._arrived, self._since = sent, now
        self._room.set()

    def _judge(self, answered: threading.Event, asked: float, limit: float) -> None:
        while not answered.wait(0.25) and not self._stop and self._transport.is_active():
            if time.monotonic() - max(asked, self._wire.heard) >= limit:
                self.gave_up = True
                hang_up(self._transport)
                return
