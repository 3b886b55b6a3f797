"""Run programs on a host over SSH: one connection to one host with one pinned key, every program its own channel on it.

Importing this module imports paramiko (about 0.1 s), so callers import it where they connect.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import paramiko

from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch
from cloudtrain.transport.base import Completed, Stream, Transport
from cloudtrain.transport.ssh_dial import Wire, dial, dial_through, where
from cloudtrain.transport.ssh_keys import Keys, PublicKey, digest, parse_public_key, private_key
from cloudtrain.transport.ssh_link import BROKEN, Watch, handshake, hang_up, start_program
from cloudtrain.transport.ssh_login import log_in
from cloudtrain.transport.ssh_program import Program


def connect(
    address: str,
    port: int,
    user: str,
    key: Path | Keys,
    host_key: PublicKey,
    *,
    timeout: float = 20.0,
    through: str | None = None,
) -> SshTransport:
    """Connect and log in, if and only if the host presents `host_key`.

    No agent, no other keys, no password, no `~/.ssh`: what is named here is all that is used.

    Args:
        key: file of the private key to log in with, or the keys to try.
        host_key: the one public key that is trusted.
        timeout: seconds for each step: look-up, each address, greeting, key exchange, login.
        through: command line of the program that carries the bytes; None: TCP.

    Raises:
        UsageError: `key` cannot be used.
        HostKeyMismatch: the host presented another key; not even the user's name was sent.
        ConnectionFailed: codes `unknown_host`, `unreachable`, `no_banner`, `handshake`, or `auth_refused`: the host
            does not accept the key for this user.
    """
    keys = key if isinstance(key, Keys) else Keys((key,))
    if keys is not key:
        private_key(keys.files[0])
    kind, blob = parse_public_key(host_key)
    wire, place = _reached(address, port, timeout, through)
    transport = handshake(wire, place, timeout, kind)
    try:
        shown = transport.get_remote_server_key().asbytes()
        if shown != blob:
            raise HostKeyMismatch(
                f"the host key of {place} is not the trusted one",
                detail=f"trusted:   {digest(blob)}\npresented: {digest(shown)}",
                consequence="nothing was sent; another machine answers at this address, or its key was replaced",
            )
        log_in(transport, user, keys, place, timeout)
    except BaseException:
        hang_up(transport)
        raise
    return SshTransport(transport, Watch(transport, wire), f"{user}@{place}")


def scan_host_key(address: str, port: int, timeout: float = 20.0, through: str | None = None) -> PublicKey:
    """The key that the host presents, ed25519 if it has one. Nobody logs in, and nothing says that the key is right.

    Raises:
        ConnectionFailed: as `connect`.
    """
    wire, place = _reached(address, port, timeout, through)
    transport = handshake(wire, place, timeout)
    try:
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"
    finally:
        hang_up(transport)


def _reached(address: str, port: int, timeout: float, through: str | None) -> tuple[Wire, str]:
    """A way for bytes, and what to call the place: with the one of its addresses that was reached."""
    wire = dial_through(through) if through is not None else dial(address, port, timeout)
    place = where(address, port)
    return wire, place if wire.peer in (None, address) else f"{place} ({wire.peer})"


class SshTransport(Transport):
    """One authenticated connection; made by `connect`. Threads may share it.

    When the peer falls silent, all that waits on it raises `ConnectionFailed` within 12 s (`ssh_link.Watch`).
    """

    def __init__(self, transport: paramiko.Transport, watch: Watch, place: str) -> None:
        self._transport = transport
        self._watch = watch
        self._place = place

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        timeout: float = 60.0,
        awaits: bytes = b"",
    ) -> Completed:
        """See `Transport.run`. `stdin` is iterated in the calling thread."""
        with self._start(argv, timeout) as program:
            return program.communicate(stdin, timeout, awaits)

    def stream(self, argv: Sequence[str]) -> Stream:
        """See `Transport.stream`.

        Closing it sends SIGTERM to the program's process group and takes its pipes away. Where the server passes no
        signals on (OpenSSH before 7.9, or a login as root) the program ends at its next write.
        """
        program = self._start(argv, 60.0)
        program.end_input()
        return program

    def close(self) -> None:
        """See `Transport.close`. Programs that still run lose their pipes and end at their next read or write."""
        self._watch.stop()
        hang_up(self._transport)

    def _start(self, argv: Sequence[str], timeout: float) -> Program:
        if not argv or any("\0" in part for part in argv):
            raise ValueError("a program is a list of at least one argument, and none holds NUL")
        # The one place where a shell sees arguments. `exec` puts the program in the shell's place, so that signals and
        # exit status are the program's own. File names may hold bytes that are no UTF-8.
        command = ("exec " + shlex.join(argv)).encode("utf-8", "surrogateescape")
        try:
            channel = start_program(self._transport, command, timeout)
        except BROKEN as error:
            raise self._lost(error) from error
        return Program(self._transport, channel, self._watch, self._lost)

    def _lost(self, cause: BaseException | None = None) -> ConnectionFailed:
        silent = ": it fell silent" if self._watch.gave_up else ""
        return ConnectionFailed(
            f"lost the connection to {self._place}{silent}",
            consequence="a run on that machine goes on without it",
            detail=str(cause) if cause is not None and str(cause) else None,
        )
