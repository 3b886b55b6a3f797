"""Logging in: which keys there are, in the user's files and in an agent, and in which order they are tried."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from paramiko.agent import AgentKey, AgentSSH

from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.transport.ssh_keys import AGENT, Keys, private_key, public_blob, written
from cloudtrain.transport.ssh_link import BROKEN

_AGENT_S = 60.0
"""Seconds that an agent has for an answer: it may ask its user."""


def log_in(transport: paramiko.Transport, user: str, keys: Keys, place: str, timeout: float) -> None:
    """Log in by one of `keys`, and by nothing else. The host key has been compared before.

    Args:
        timeout: seconds that the host has for each key.

    Raises:
        UsageError: the one key that was named needs a passphrase.
        ConnectionFailed: refused (code `auth_refused`), or the link broke.
    """
    transport.auth_timeout = timeout
    tried = 0
    with contextlib.closing(_Agent(keys.agent)) as agent:
        for identity in _candidates(keys, agent.keys()):
            tried += 1
            try:
                further = transport.auth_publickey(user, identity)
            except paramiko.BadAuthenticationType:
                break
            except BROKEN as error:
                # A refusal, a link that breaks meanwhile and silence may all arrive as an AuthenticationException.
                silent = isinstance(error, TimeoutError) or "timeout" in str(error).lower()
                refused = isinstance(error, paramiko.AuthenticationException) and not silent
                if refused and transport.is_active():
                    continue
                if tried > 1 and not silent:
                    break  # A host hangs up after so many keys.
                why = f"{place} did not answer the login within {timeout:.0f} s"
                broke = f"lost the connection to {place} while logging in"
                raise ConnectionFailed(why if silent else broke, detail=str(error) or None) from error
            if further:
                raise ConnectionFailed(
                    f"{place} asks for more than a key: {', '.join(further)}",
                    hint="cloudtrain logs in by key alone; allow that for this user on the machine",
                    consequence="nothing was sent",
                    code="auth_refused",
                )
            return
    which = "the key" if tried == 1 else f"all {tried} keys that were tried" if tried else "every login by a key"
    raise ConnectionFailed(
        f"{place} refused {which} for user {user}",
        hint="check user and identity: its public half must be in ~/.ssh/authorized_keys there"
        + ("; --identity FILE names the one key to try" if tried > 1 else ""),
        consequence="nothing was sent",
        code="auth_refused",
    )


def can_open(keys: Keys) -> bool:
    """Whether there is a key to try. A passphrase is asked for now if without it there is none."""
    with contextlib.closing(_Agent(keys.agent)) as agent:
        return next(_candidates(keys, agent.keys()), None) is not None


def _candidates(keys: Keys, held: list[AgentKey]) -> Iterator[paramiko.PKey]:
    """The order is OpenSSH's; keys that need a passphrase come last, so that it is asked for only if it must be."""
    blobs = {path: blob for path in keys.files if (blob := public_blob(path)) is not None}
    named = [key for key in held if key.asbytes() in blobs.values()]
    yield from named
    if not keys.only:
        yield from (key for key in held if key not in named)
    tried, protected = bool(held), []
    for path in keys.files:
        if blobs.get(path) in [key.asbytes() for key in named]:
            continue
        try:
            key = private_key(path, asks=False)
        except UsageError as error:
            if error.code == "identity_protected":
                protected.append(path)
            elif len(keys.files) == 1 and keys.only:
                raise
            continue
        tried = True
        yield paramiko_key(key)
    for path in protected:
        try:
            key = private_key(path)
        except UsageError:
            if tried:
                continue
            raise
        tried = True
        yield paramiko_key(key)


def paramiko_key(key: object) -> paramiko.PKey:
    """A key of `private_key` as paramiko wants it, which itself reads fewer files than OpenSSH does."""
    kind: type[paramiko.PKey] = paramiko.Ed25519Key
    if isinstance(key, rsa.RSAPrivateKey):
        kind = paramiko.RSAKey
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = paramiko.ECDSAKey
    return kind.from_private_key(io.StringIO(written(key).decode("ascii")))  # type: ignore[arg-type]


class _Agent:
    """An agent's keys; without one, or where it does not answer, there are none."""

    def __init__(self, place: str | None) -> None:
        self._agent: AgentSSH | None = None
        path = os.environ.get(AGENT) if place == AGENT else place
        with contextlib.suppress(*BROKEN):
            if sys.platform == "win32":
                self._agent = paramiko.Agent() if place == AGENT else None
            elif path:
                self._agent = _at(path)

    def keys(self) -> list[AgentKey]:
        return list(self._agent.get_keys()) if self._agent is not None else []

    def close(self) -> None:
        if self._agent is not None:
            with contextlib.suppress(*BROKEN):
                self._agent._close()  # type: ignore[attr-defined]


def _at(path: str) -> AgentSSH:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_AGENT_S)
    try:
        connection.connect(str(Path(path).expanduser()))
        agent = AgentSSH()
        agent._connect(connection)  # type: ignore[attr-defined]
    except BaseException:
        connection.close()
        raise
    return agent
