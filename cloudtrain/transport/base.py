"""The transport boundary: run a program on a host, with bytes in and bytes out.

Push, pull, follow and the supervisor's verbs are all made of these three calls (`push.py`, `pull.py`, `follow.py` and
`supervisor.py` of `transfer/`), so a new transport brings them along for nothing, and a test double is a page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from cloudtrain.core.errors import ConnectionFailed

FIRST_WORD_S = 30.0
"""Seconds that a program has for what is awaited of it: a cold host takes its time to start one."""

MOST_BEFORE = 64 * 1024
"""Bytes that may come before that: a greeting, never a transfer."""
MOST_ANSWER = 64 * 2**20
"""Bytes that a program may answer with."""
MOST_STDERR = 256 * 1024
"""Bytes of stderr that are kept: the last ones."""
BUSY = 4096
"""Bytes of a link that are more than its signs of life: it carries something for others, and is slow, not silent."""
_SLOWEST = 512  # bytes a second


def check_answer(said: int, took_s: float, timeout: float) -> None:
    """An answer of `said` bytes so far, `took_s` seconds after the question, is one that can be waited for.

    Raises:
        ConnectionFailed: it is too long, or drips: a byte now and then would be progress for ever.
    """
    if said > MOST_ANSWER:
        why = f"its answer has more than {MOST_ANSWER // 2**20} MiB"
    elif took_s > 10 * timeout + said / _SLOWEST:
        why = f"its answer has not ended after {took_s:.0f} s"
    else:
        return
    raise ConnectionFailed(
        f"the program on the host was given up: {why}",
        consequence="a run on that machine goes on without it",
        code="stalled",
    )


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ran to its end. A non-zero `exit_code` is data, not an exception; negative: ended by a signal."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Closing(ABC):
    """What is open, and is closed at the end of a `with`."""

    @abstractmethod
    def close(self) -> None:
        """End it. Never raises; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_info: object) -> None:
        self.close()


class Stream(Closing):
    """A running program whose stdout is read as it comes. Close it to end the program and free the channel."""

    @abstractmethod
    def read(self, timeout: float) -> bytes:
        """The next bytes, at most 1 MiB; `b""` at the end of the stream.

        Raises:
            TimeoutError: nothing came within `timeout` seconds; the stream is still usable.
            ConnectionFailed: the link broke.
        """

    @abstractmethod
    def finish(self, timeout: float) -> Completed:
        """After the end of the stream: exit code and stderr (`stdout` is empty, it has been read).

        Raises:
            ConnectionFailed: the link broke, or no exit status came within `timeout` seconds.
        """

    def link_came(self) -> int:
        """Bytes that the whole link has brought so far, also for other programs; 0 where nothing is known of that."""
        return 0


class Transport(Closing):
    """An open connection to one host. argv lists only: quoting, where a shell is in the way, is the transport's own."""

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        timeout: float = 60.0,
        awaits: bytes = b"",
    ) -> Completed:
        """Run `argv` in the login directory, feed it `stdin`, wait for its end.

        Args:
            argv: program and arguments, passed on unchanged.
            stdin: bytes, or an iterable of chunks that are sent as they are made.
            timeout: seconds without any progress (a byte sent or received) until it gives up.
            awaits: where a login shell is in the way, nothing of `stdin` is sent before the program has printed this.
                If it does not within `FIRST_WORD_S`, its input ends empty.

        Raises:
            ConnectionFailed: the link broke, nothing moved for `timeout` seconds, or see `check_answer`.
        """

    @abstractmethod
    def stream(self, argv: Sequence[str]) -> Stream:
        """Start `argv` in the login directory and read its stdout as it comes.

        Raises:
            ConnectionFailed: the link broke.
        """
