"""A program that runs on its own SSH channel: bytes in, bytes out, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import MappingProxyType

import paramiko

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.transport.base import BUSY, FIRST_WORD_S, MOST_BEFORE, MOST_STDERR, Completed, Stream, check_answer
from cloudtrain.transport.ssh_link import BROKEN, Packets, Watch, send_signal

_CHUNK = 1024 * 1024
_WAKE_S = 0.5
"""How often a wait looks up without having been woken."""

# The names that SSH has for signals (RFC 4254, 6.10) and the numbers they have on Linux; the local ones may differ.
_SIGNALS = MappingProxyType(
    {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10}
    | {"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "XCPU": 24, "SYS": 31}
)
_UNNAMED_SIGNAL = 127


class Program(Stream):
    """A program on its channel."""

    def __init__(
        self,
        transport: paramiko.Transport,
        channel: paramiko.Channel,
        watch: Watch,
        lost: Callable[[BaseException | None], ConnectionFailed],
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._watch = watch
        self._lost = lost
        self._stderr = bytearray()
        self._moved = self._fed = time.monotonic()
        self._came = watch.came()
        self._closed = False
        # Set while either pipe holds bytes. Taking the last byte clears it for both, so `read` looks at both pipes
        # after each taking and before each wait.
        self._news = threading.Event()
        channel.in_buffer.set_event(self._news)
        channel.in_stderr_buffer.set_event(self._news)
        channel.settimeout(_WAKE_S)

    def read(self, timeout: float) -> bytes:
        """See `Stream.read`. What the program writes to stderr meanwhile is taken as well."""
        deadline = time.monotonic() + timeout
        while True:
            # First the end, then the bytes: whatever came before the end is then seen.
            ended = bool(self._channel.eof_received or self._channel.closed)
            # To take bytes may send the peer word of it, over a link that has just broken.
            try:
                if more := self._channel.recv_stderr_ready():
                    self._stderr += self._channel.recv_stderr(_CHUNK)
                    del self._stderr[:-MOST_STDERR]
                    self._moved = time.monotonic()
                data = self._channel.recv(_CHUNK) if self._channel.recv_ready() else None
            except BROKEN as error:
                raise self._gone(error) from error
            if data is not None:
                self._moved = time.monotonic()
                return data
            if ended and not more:
                if self._complete():
                    return b""
                raise self._gone(None)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            if not more:
                self._news.wait(min(remaining, _WAKE_S))

    def finish(self, timeout: float) -> Completed:
        self._channel.status_event.wait(timeout)
        code = self._exit_code()
        if code is None:
            if self._complete() and self._transport.is_active():
                raise ConnectionFailed(f"the program's end was not reported within {timeout:.0f} s")
            raise self._gone(None)
        return Completed(code, b"", bytes(self._stderr))

    def link_came(self) -> int:
        return self._watch.came()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        channel = self._channel
        with suppress(*BROKEN):
            if not channel.closed and self._exit_code() is None:
                send_signal(self._transport, channel, "TERM")
            channel.close()
        packets = self._packets()
        packets.signals.pop(channel.chanid, None)
        packets.closed_channels.discard(channel.chanid)
        packets.refused.discard(channel.chanid)

    def end_input(self) -> None:
        """Close the program's stdin."""
        try:
            self._channel.shutdown_write()
        except BROKEN as error:
            # A program that has ended already is no failure.
            if not self._transport.is_active():
                raise self._gone(error) from error

    def communicate(self, stdin: bytes | Iterable[bytes], timeout: float, awaits: bytes = b"") -> Completed:
        """Feed `stdin`, collect stdout and stderr until the end; `timeout` and `awaits` as in `Transport.run`."""
        out = bytearray()
        if not self._has_said(awaits, out):
            if len(out) > MOST_BEFORE:
                return Completed(1, bytes(out), bytes(self._stderr))  # It may go on for ever: it is ended here.
            stdin = b""
        if isinstance(stdin, bytes) and len(stdin) <= 32 * 1024:
            # Fits the peer's window, so it cannot block, and one thread will do.
            self._send_all((stdin,), timeout)
            self.end_input()
            self._collect(out, timeout)
        else:
            failures: list[BaseException] = []
            reader = threading.Thread(
                target=self._collect_aside, args=(out, timeout, failures), name="ssh-read", daemon=True
            )
            reader.start()
            try:
                self._send_all((stdin,) if isinstance(stdin, bytes) else stdin, timeout)
                self.end_input()
            except BaseException as error:
                self.close()
                reader.join()
                if failures and isinstance(error, ConnectionFailed):
                    # The reader's word came first, and it closed the channel under the sender.
                    raise failures[0] from error
                raise
            reader.join()
            if failures:
                raise failures[0]
        return Completed(self.finish(timeout).exit_code, bytes(out), bytes(self._stderr))

    def _has_said(self, awaited: bytes, out: bytearray) -> bool:
        """Whether the program prints `awaited`; it, and whatever comes before it, is put into `out`."""
        deadline = time.monotonic() + FIRST_WORD_S
        while awaited not in out:
            try:
                data = self.read(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return False
            out += data
            if not data or len(out) > MOST_BEFORE:
                return awaited in out
        return True

    def _send_all(self, chunks: Iterable[bytes], timeout: float) -> None:
        for piece in _pieces(chunks, self._channel.out_max_packet_size - 64):
            left = piece
            while left:
                try:
                    self._watch.wait_for_room(_WAKE_S)
                    sent = self._channel.send(left)
                except TimeoutError as error:
                    self._check_progress(timeout, error)
                    continue
                except OSError as error:
                    if self._complete():
                        return
                    raise self._gone(error) from error
                except BROKEN as error:
                    raise self._gone(error) from error
                if sent == 0:
                    # The program has ended without reading all of it; its exit code says whether that is well.
                    return
                self._moved = self._fed = time.monotonic()
                left = left[sent:]

    def _collect(self, out: bytearray, timeout: float) -> None:
        while True:
            try:
                data = self.read(_WAKE_S)
            except TimeoutError as error:
                self._check_progress(timeout, error)
                data = None
            if data == b"":
                return
            out += data or b""
            check_answer(len(out), time.monotonic() - self._fed, timeout)

    def _collect_aside(self, out: bytearray, timeout: float, failures: list[BaseException]) -> None:
        try:
            self._collect(out, timeout)
        except ConnectionFailed as error:
            failures.append(error)
        except BROKEN as error:
            failures.append(self._gone(error))
        if failures:
            # Wakes the sender. On a broken link even the goodbye fails.
            with suppress(*BROKEN):
                self._channel.close()

    def _check_progress(self, timeout: float, cause: BaseException) -> None:
        if time.monotonic() - self._moved >= timeout:
            came, self._came = self._came, self._watch.came()
            if self._came - came > BUSY and time.monotonic() - self._fed < 10 * timeout:
                # It is others' bytes that the link carries: ours wait for their turn.
                self._moved = time.monotonic()
                return
            raise ConnectionFailed(
                f"nothing moved for {timeout:.0f} s",
                consequence="a run on that machine goes on without it",
                code="stalled",
            ) from cause

    def _exit_code(self) -> int | None:
        name = self._packets().signals.get(self._channel.chanid)
        if name is not None:
            return -_SIGNALS.get(name, _UNNAMED_SIGNAL)
        return self._channel.exit_status if self._channel.exit_status >= 0 else None

    def _gone(self, cause: BaseException | None) -> ConnectionFailed:
        """Why there is nothing more to read or to write to."""
        if self._channel.chanid in self._packets().refused:
            return ConnectionFailed("the host does not let this user run programs", code="exec_refused")
        return self._lost(cause)

    def _complete(self) -> bool:
        """Whether the peer itself said that there is no more output."""
        packets, number = self._packets(), self._channel.chanid
        return number not in packets.refused and (bool(self._channel.eof_received) or number in packets.closed_channels)

    def _packets(self) -> Packets:
        packets = self._transport.packetizer
        assert isinstance(packets, Packets)
        return packets


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut to what one packet holds: paramiko would copy the rest of a longer chunk once for every packet."""
    for chunk in chunks:
        if len(chunk) <= size:
            yield chunk
        else:
            view = memoryview(chunk)
            for start in range(0, len(view), size):
                yield bytes(view[start : start + size])
