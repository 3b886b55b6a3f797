"""A link that misbehaves: stands between a caller's socket and the machine's sshd and counts the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import sys

from cloudtrain.emulator.faults import Faults

_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def wanted(faults: Faults) -> bool:
    """Whether any fault in force needs the relay; without one a connection goes straight to sshd."""
    return any(faults.find(name) for name in ("cut", "reset-push", "freeze"))


def spliced(caller: socket.socket, faults: Faults) -> tuple[socket.socket, asyncio.Task[None]]:
    """Put a relay in front of `caller`; returns the socket for sshd, and the relay's task."""
    inner, outer = socket.socketpair()
    for end in (inner, outer, caller):
        end.setblocking(False)
    link = _Link(faults)
    passing = asyncio.create_task(_relay(caller, outer, link))
    # Not by the task itself: one that is cancelled before its first step does nothing.
    passing.add_done_callback(functools.partial(_close, caller, outer, link))
    return inner, passing


async def _relay(caller: socket.socket, sshd: socket.socket, link: _Link) -> None:
    pumps = [
        asyncio.create_task(_pump(caller, sshd, link, "reset-push")),
        asyncio.create_task(_pump(sshd, caller, link, "cut")),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def _close(caller: socket.socket, sshd: socket.socket, link: _Link, _: asyncio.Task[None]) -> None:
    if link.reset:
        # A linger of zero seconds turns the close into a RST.
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    caller.close()
    sshd.close()


class _Link:
    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.reset = False
        self.open = asyncio.Event()
        self.open.set()

    async def freeze(self, seconds: float) -> None:
        """Nothing passes in either direction, and nobody is told."""
        self.open.clear()
        await asyncio.sleep(seconds)
        self.open.set()


async def _pump(source: socket.socket, sink: socket.socket, link: _Link, fault_name: str) -> None:
    loop = asyncio.get_running_loop()
    passed = 0
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, 65536):
            await link.open.wait()
            fault = link.faults.find(fault_name)
            if fault is not None and passed + len(data) >= fault.number(0, 0):
                link.faults.take(fault_name)
                link.reset = True
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(sink, data[: max(0, int(fault.number(0, 0)) - passed)])
                return
            if fault_name == "cut":
                freeze = link.faults.find("freeze")
                if freeze is not None and passed + len(data) >= freeze.number(1, 20000):
                    link.faults.take("freeze")
                    await link.freeze(freeze.number(0, 60))
            await loop.sock_sendall(sink, data)
            passed += len(data)
