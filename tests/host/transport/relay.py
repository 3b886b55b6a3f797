"""A TCP relay with a round trip time, a bandwidth and faults; it stands between client and sshd.

No packet loss and no TCP slow start are modelled, so a real network of the same figures is slower in its first second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self

# Pieces small enough that their own time on the wire (0.7 ms at 6.25 MB/s) does not blur the round trip time.
_PIECE = 4096
# What the network itself holds beyond the bandwidth-delay product, as routers do.
_ROUTER = 256 * 1024


class _Way:
    """One direction of one connection."""

    def __init__(self, relay: Relay, name: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self.relay, self.name, self.source, self.sink = relay, name, source, sink
        self.queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self.held = 0
        self.room = asyncio.Event()
        self.free_at = 0.0

    async def take(self) -> None:
        """Read, and give each piece the moment at which it arrives at the other end."""
        loop, relay = asyncio.get_running_loop(), self.relay
        # With a rate, a small piece at a time; without one, whatever comes.
        size = _PIECE if relay.rate else 256 * 1024
        limit = int(relay.rate * relay.rtt) + _ROUTER if relay.rate else 4 * 1024 * 1024
        while True:
            data = await self.source.read(size)
            now = loop.time()
            if relay.rate:
                self.free_at = max(now, self.free_at) + len(data) / relay.rate
            due = max(now, self.free_at) + relay.rtt / 2
            self.queue.put_nowait((due, data))
            if not data:
                return
            self.held += len(data)
            while self.held > limit:
                self.room.clear()
                await self.room.wait()

    async def give(self) -> None:
        """Hand each piece on at its moment."""
        loop, relay = asyncio.get_running_loop(), self.relay
        while True:
            due, data = await self.queue.get()
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            await relay.flowing.wait()
            if not data:
                with contextlib.suppress(OSError, RuntimeError):
                    self.sink.write_eof()
                return
            cut = relay.cuts.get(self.name)
            if cut is not None and relay.carried[self.name] + len(data) >= cut:
                data = data[: cut - relay.carried[self.name]]
                del relay.cuts[self.name]
                relay.carried[self.name] += len(data)
                self.sink.write(data)
                await self.sink.drain()
                relay._reset()
                return
            self.sink.write(data)
            relay.carried[self.name] += len(data)
            await self.sink.drain()
            self.held -= len(data)
            self.room.set()


class Relay:
    """Listens on a loopback port of its own and passes everything on to `target`, in a thread of its own.

    Args:
        target: loopback port of the server.
        rtt: round trip time in seconds, half of it each way.
        rate: bytes a second each way; None: no limit.

    Attributes:
        port: where it listens.
        carried: bytes passed on since the start, "up" to the server and "down" from it.
    """

    def __init__(self, target: int, *, rtt: float = 0.0, rate: float | None = None) -> None:
        self.target, self.rtt, self.rate = target, rtt, rate
        self.carried = {"up": 0, "down": 0}
        self.cuts: dict[str, int] = {}
        self.connections = 0
        self.loop = asyncio.new_event_loop()
        self.writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the relay did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._ask(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def freeze(self) -> None:
        """Pass nothing on from now, without closing anything: the peer seems to have vanished."""
        self._ask(self._set_flow(False))

    def thaw(self) -> None:
        """End `freeze`."""
        self._ask(self._set_flow(True))

    def reset(self) -> None:
        """End all connections with RST, both ends."""
        self._ask(self._reset_all())

    def cut(self, way: str, after: int) -> None:
        """Reset everything once `after` more bytes have passed "up" or "down"."""
        self.cuts[way] = self.carried[way] + after

    def _ask(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._listen())
        self._ready.set()
        self.loop.run_forever()

    async def _listen(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_PIECE)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.writers.add(writer)
        upstream = None
        try:
            if self.rtt:
                # The client has its SYN-ACK already; the server sees the connection when the first bytes come.
                await asyncio.sleep(self.rtt)
            far_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target, limit=_PIECE)
            self.writers.add(upstream)
            for end in (writer, upstream):
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.transport.set_write_buffer_limits(high=64 * 1024)
            up, down = _Way(self, "up", reader, upstream), _Way(self, "down", far_reader, writer)
            async with asyncio.TaskGroup() as group:
                for way in (up, down):
                    group.create_task(way.take())
                    group.create_task(way.give())
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self.writers.discard(end)
                    end.transport.abort()
            for end in (writer, upstream):
                if end is not None:
                    with contextlib.suppress(OSError):
                        await end.wait_closed()
            self.tasks.discard(task)

    def _reset(self) -> None:
        for writer in list(self.writers):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                # Linger of 0 s: close sends RST instead of FIN.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _reset_all(self) -> None:
        self._reset()

    async def _set_flow(self, on: bool) -> None:
        if on:
            self.flowing.set()
        else:
            self.flowing.clear()

    async def _end(self) -> None:
        self.server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
