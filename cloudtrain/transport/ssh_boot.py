"""Connecting to a machine that is still booting: first its port, then its greeting, then the login."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch
from cloudtrain.core.events import Emit, StepProgress
from cloudtrain.transport.ssh import SshTransport, connect
from cloudtrain.transport.ssh_dial import dial, where
from cloudtrain.transport.ssh_keys import PublicKey

AUTH_LIMIT_S = 60.0
"""Seconds after the first greeting for which a refused key counts as "still booting": sshd starts before the first boot
has written authorized_keys."""

_ATTEMPT_S = 10.0
"""Seconds that one attempt may take before the next begins."""

_TITLE = "boot"
_T = TypeVar("_T")

# The codes of a machine that has not greeted yet, and what is waited for. A new machine's name may be unknown too.
_NOT_YET = {
    "unknown_host": "waiting for its name",
    "unreachable": "waiting for its port",
    "no_banner": "waiting for sshd",
}


class _Patience:
    """When to stop trying: `limit_s` until the machine greets, from then on `auth_limit_s`."""

    def __init__(self, limit_s: float, auth_limit_s: float, emit: Emit) -> None:
        self._limit_s, self._auth_limit_s, self._emit = limit_s, auth_limit_s, emit
        self._begun = time.monotonic()
        self._greeted: float | None = None

    def call(self, attempt: Callable[[], _T]) -> _T:
        self._tell("connecting", self._begun, self._limit_s)
        pause = 0.2
        while True:
            try:
                return attempt()
            except HostKeyMismatch:
                raise
            except ConnectionFailed as error:
                if self._over(error.code):
                    raise
            time.sleep(pause + random.uniform(0, 0.2))
            pause = min(2 * pause, 2.0)

    def _over(self, code: str) -> bool:
        """Whether the time for what has failed with `code` is over."""
        if code in _NOT_YET:
            return self._tell(_NOT_YET[code], self._begun, self._limit_s)
        if self._greeted is None:
            self._greeted = time.monotonic()
        return self._tell("waiting to be let in", self._greeted, self._auth_limit_s)

    def _tell(self, what: str, since: float, limit_s: float) -> bool:
        seconds = time.monotonic() - since
        self._emit(StepProgress(_TITLE, what, done=seconds, total=limit_s, unit="s"))
        return seconds >= limit_s


def wait_for_banner(address: str, port: int, *, limit_s: float, emit: Emit) -> None:
    """Wait until an SSH server greets there; nothing is said to it.

    Raises:
        ConnectionFailed: none did within `limit_s` seconds; code `no_banner` if the port was open.
    """
    _Patience(limit_s, limit_s, emit).call(lambda: _read_banner(address, port, min(_ATTEMPT_S, limit_s)))


def _read_banner(address: str, port: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    said = b""
    with contextlib.closing(dial(address, port, timeout)) as wire:
        # The server may say other lines first (RFC 4253, 4.2).
        with contextlib.suppress(OSError):
            while not any(line.startswith(b"SSH-") for line in said.splitlines()) and len(said) < 64 * 1024:
                wire.settimeout(max(0.1, deadline - time.monotonic()))
                part = wire.recv(4096)
                if not part or time.monotonic() > deadline:
                    break
                said += part
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)
    if not any(line.startswith(b"SSH-") for line in said.splitlines()):
        raise ConnectionFailed(
            f"{where(address, port)} accepts connections but sent no SSH greeting",
            hint="a machine that is booting may need another minute",
            consequence="nothing was sent",
            code="no_banner",
        )


def connect_booting(
    address: str,
    port: int,
    user: str,
    key: Path,
    host_key: PublicKey,
    *,
    limit_s: float,
    emit: Emit,
    auth_limit_s: float = AUTH_LIMIT_S,
) -> SshTransport:
    """Connect to a machine that may still be booting: port, greeting, login.

    A wrong host key is never retried. A refused key is, for `auth_limit_s` seconds after the first greeting.

    Args:
        limit_s: seconds until the greeting; each attempt has 20 s.
        emit: receives `StepProgress("boot", what it waits for, seconds so far, limit)`.

    Raises:
        UsageError: `key` cannot be used.
        HostKeyMismatch: nothing was sent.
        ConnectionFailed: code says how far it came: `unknown_host`, `unreachable`, `no_banner`, `handshake`,
            `auth_refused`.
    """
    attempt_s = min(2 * _ATTEMPT_S, limit_s)
    return _Patience(limit_s, auth_limit_s, emit).call(
        lambda: connect(address, port, user, key, host_key, timeout=attempt_s)
    )
