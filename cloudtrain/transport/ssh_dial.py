"""The way to a host, below SSH: look-up and TCP, to all of its addresses side by side, or through another program."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.text import screen_safe

NEXT_AFTER_S = 0.25
"""Seconds for which the first address is waited for before the second is tried beside it (RFC 8305)."""

_READ_AHEAD = 128 * 1024
_MOST_SAID = 2000
_END_S = 1.0

_Found = list[tuple[socket.AddressFamily, tuple[Any, ...]]]


class Wire(socket.socket):
    """A connection that counts what it sends, remembers when it last heard from the peer, and reads ahead.

    paramiko asks for 16 bytes and then for the rest of each packet; reading ahead makes one system call of many.

    Attributes:
        heard: monotonic time at which the last byte came.
        sent, came: bytes that were handed to this computer's network, and that came from it.
        peer: the address that was reached; None: a program carries the bytes.
    """

    def __init__(self, connected: socket.socket, peer: str | None, carrier: _Carrier | None = None) -> None:
        super().__init__(connected.family, connected.type, connected.proto, fileno=connected.detach())
        self.heard = time.monotonic()
        self.sent = self.came = 0
        self.peer = peer
        self._carrier = carrier
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
                self.came += self._held
        part = bytes(self._view[self._taken : min(self._taken + size, self._held)])
        self._taken += len(part)
        return part

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Hand bytes over; how many were taken."""
        taken = super().send(data, flags)
        self.sent += taken
        return taken

    def close(self) -> None:
        """Close it; the program that carried its bytes is ended."""
        super().close()
        if self._carrier is not None:
            self._carrier.end()

    def said(self) -> str | None:
        """What the program that carries the bytes has said of why it ended, or None."""
        return self._carrier.said() if self._carrier is not None else None


def where(address: str, port: int) -> str:
    """Address and port, human-readable: `example.org`, `example.org:2222`, `[::1]:2222`."""
    if port == 22:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def dial(address: str, port: int, timeout: float) -> Wire:
    """Open a TCP connection to the first of the name's addresses that answers.

    Args:
        timeout: seconds for the look-up, and again for each address.

    Raises:
        ConnectionFailed: no such host (code `unknown_host`), refused or no answer (code `unreachable`).
    """
    found = _looked_up(address, port, timeout)
    failed: dict[str, str] = {}
    reached = _first(found, timeout, failed)
    if reached is None:
        whys = [why if ip == address else f"{ip} {why}" for ip, why in failed.items()]
        several = " at any of its addresses" if len(whys) > 1 else ""
        raise ConnectionFailed(
            f"cannot reach {where(address, port)}{several}: {'; '.join(whys)}",
            hint="check the address, the port and that the machine is on",
            consequence="nothing was sent",
            code="unreachable",
        )
    return reached


def _looked_up(address: str, port: int, timeout: float) -> _Found:
    """The addresses of a name, in the order in which this computer would try them."""
    answer: list[_Found | OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
            answer.append([(family, place) for family, _, _, _, place in found])
        except (OSError, UnicodeError) as error:
            answer.append(error)

    # A look-up knows no time limit of its own.
    asking = threading.Thread(target=ask, name="ssh-look-up", daemon=True)
    asking.start()
    asking.join(timeout)
    if answer and isinstance(answer[0], list):
        return answer[0]
    raise ConnectionFailed(
        f"no host is known by the name {address}" if answer else f"looking up {address} took more than {timeout:.0f} s",
        hint="check the spelling and that this computer is online",
        consequence="nothing was sent",
        code="unknown_host",
        detail=str(answer[0]) if answer else None,
    )


def _first(found: _Found, timeout: float, failed: dict[str, str]) -> Wire | None:
    """The first connection that is made; why the others were not goes into `failed`."""
    left, next_at = list(found), 0.0
    waiting: dict[socket.socket, float] = {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as closing:
        while left or waiting:
            now = time.monotonic()
            if left and (now >= next_at or not waiting):
                family, place = left.pop(0)
                next_at = now + NEXT_AFTER_S
                try:
                    sock = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    sock.setblocking(False)
                    # paramiko leaves Nagle's algorithm on, which costs 40 ms at every turn of the conversation.
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.connect(place)
                except BlockingIOError:
                    pass
                except OSError as error:
                    failed[str(place[0])] = (error.strerror or str(error)).lower()
                    next_at = 0.0
                    continue
                waiting[sock] = now + timeout
                selector.register(sock, selectors.EVENT_WRITE, str(place[0]))
            until = min([*waiting.values(), *([next_at] if left else [])])
            for key, _ in selector.select(max(0.0, until - time.monotonic())):
                sock = key.fileobj  # type: ignore[assignment]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    sock.settimeout(timeout)
                    return Wire(sock.dup(), key.data)
                selector.unregister(sock)
                del waiting[sock]
                failed[key.data] = os.strerror(code).lower()
                next_at = 0.0
            for sock, end in list(waiting.items()):
                if time.monotonic() >= end:
                    failed[selector.unregister(sock).data] = f"did not answer within {timeout:.0f} s"
                    del waiting[sock]
    return None


def dial_through(command: str) -> Wire:
    """Start a program of the user's own, which carries the bytes to a host; a command line of this computer's shell.

    Raises:
        ConnectionFailed: it cannot be started (code `unreachable`).
    """
    ours, its = socket.socketpair()
    try:
        return Wire(ours, None, _Carrier(command, its))
    except OSError as error:
        ours.close()
        its.close()
        raise ConnectionFailed(
            f"the program that leads to the host cannot be started: {error.strerror}",
            detail=screen_safe(command),
            hint="check ProxyCommand and ProxyJump in the SSH configuration",
            consequence="nothing was sent",
            code="unreachable",
        ) from error


class _Carrier:
    """The program behind a wire. Threads carry the bytes: it cannot be given a socket on every system."""

    def __init__(self, command: str, far: socket.socket) -> None:
        # Of a session of its own it can ask nothing on the terminal, and Ctrl-C there does not reach it.
        options: dict[str, Any] = {"start_new_session": True}
        line: str | list[str] = [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"]
        if sys.platform == "win32":
            options, line = {"creationflags": subprocess.CREATE_NO_WINDOW}, command
        pipe = subprocess.PIPE
        self._program = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, **options)
        self._far = far
        self._stderr = bytearray()
        self._listener = _thread(self._listen, self._program.stderr)
        _thread(self._out, self._program.stdin)
        _thread(self._back, self._program.stdout)

    def end(self) -> None:
        """End it, with what it has started."""
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                self._program.terminate()
            elif self._program.poll() is None:
                os.killpg(self._program.pid, signal.SIGTERM)
        try:
            self._program.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()

    def said(self) -> str:
        """Its last words, or how it ended."""
        self._listener.join(_END_S)
        lines = self._stderr.decode("utf-8", "replace").splitlines()
        text = "\n".join(filter(None, map(screen_safe, lines)))
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._program.wait(_END_S)
            return text or f"it ended with exit code {code} and said nothing"
        return text

    def _out(self, pipe: IO[bytes]) -> None:
        with pipe, contextlib.suppress(OSError):
            while data := self._far.recv(_READ_AHEAD):
                view = memoryview(data)
                while view:
                    view = view[pipe.write(view) or 0 :]

    def _back(self, pipe: IO[bytes]) -> None:
        with pipe, self._far, contextlib.suppress(OSError):
            while data := pipe.read(_READ_AHEAD):
                self._far.sendall(data)
            self._far.shutdown(socket.SHUT_RDWR)

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe, contextlib.suppress(OSError):
            while data := pipe.read(_MOST_SAID):
                self._stderr += data
                del self._stderr[:-_MOST_SAID]


def _thread(target: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name="ssh-carrier", daemon=True)
    thread.start()
    return thread
