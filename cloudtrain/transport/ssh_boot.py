"""Connecting to a machine that is still booting: first its port, then its greeting, then its willingness to let us in."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from cloudtrain.errors import ConnectionFailed, HostKeyMismatch
from cloudtrain.events import Emit, StepProgress
from cloudtrain.transport.ssh import SshTransport, connect
from cloudtrain.transport.ssh_keys import PublicKey
from cloudtrain.transport.ssh_link import dial, where

AUTH_LIMIT_S = 60.0
"""Seconds after the first greeting for which a refused key counts as "still booting": sshd starts before the first boot
has written authorized_keys (ec2-facts.md, D 17)."""

_ATTEMPT_S = 10.0
"""Seconds that one attempt may take before the next begins."""

_TITLE = "boot"
_T = TypeVar("_T")


def _retry(what: str, limit_s: float, worth: Callable[[BaseException], bool], call: Callable[[], _T], emit: Emit) -> _T:
    begun = time.monotonic()

    def tell(state: RetryCallState) -> None:
        emit(StepProgress(_TITLE, what, done=time.monotonic() - begun, total=limit_s, unit="s"))

    emit(StepProgress(_TITLE, what, done=0.0, total=limit_s, unit="s"))
    attempts = Retrying(
        stop=stop_after_delay(limit_s),
        wait=wait_exponential_jitter(initial=0.2, max=2.0, jitter=0.2),
        retry=retry_if_exception(worth),
        before_sleep=tell,
        reraise=True,
    )
    return attempts(call)


def _unreachable(error: BaseException) -> bool:
    # A new machine's name may not be known yet either.
    return isinstance(error, ConnectionFailed) and error.code in ("unreachable", "unknown_host", "no_banner")


def wait_for_port(address: str, port: int, *, limit_s: float, emit: Emit) -> None:
    """Wait until the port accepts connections.

    Raises:
        ConnectionFailed: it did not within `limit_s` seconds; code `unreachable` or `unknown_host`.
    """
    _retry(
        f"waiting for port {port}",
        limit_s,
        _unreachable,
        lambda: dial(address, port, min(_ATTEMPT_S, limit_s)).close(),
        emit,
    )


def wait_for_banner(address: str, port: int, *, limit_s: float, emit: Emit) -> None:
    """Wait until an SSH server greets there; nothing is said to it.

    Raises:
        ConnectionFailed: none did within `limit_s` seconds; code `no_banner` if the port was open.
    """
    _retry(
        "waiting for the SSH server",
        limit_s,
        _unreachable,
        lambda: _read_banner(address, port, min(_ATTEMPT_S, limit_s)),
        emit,
    )


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
        limit_s: seconds for port and greeting together.
        emit: is told `StepProgress("boot", what it waits for, seconds so far, limit)`.

    Raises:
        UsageError: `key` cannot be used.
        HostKeyMismatch: nothing was sent.
        ConnectionFailed: code says how far it came: `unknown_host`, `unreachable`, `no_banner`, `handshake`,
            `auth_refused`.
    """
    begun = time.monotonic()
    wait_for_port(address, port, limit_s=limit_s, emit=emit)
    wait_for_banner(address, port, limit_s=max(1.0, limit_s - (time.monotonic() - begun)), emit=emit)

    def worth(error: BaseException) -> bool:
        return isinstance(error, ConnectionFailed) and not isinstance(error, HostKeyMismatch)

    return _retry(
        f"logging in as {user}",
        auth_limit_s,
        worth,
        lambda: connect(address, port, user, key, host_key, timeout=min(2 * _ATTEMPT_S, auth_limit_s)),
        emit,
    )
