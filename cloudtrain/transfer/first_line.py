"""The first line of every answer: it tells our program over there from whatever else a login prints or runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.text import shortened
from cloudtrain.transport.base import MOST_BEFORE, Completed, Stream

_MOST = 4096


@dataclass(frozen=True, slots=True)
class FirstLine:
    """A line that our program prints before all else, made anew for each call. What a login prints comes before it.

    The command line carries it backwards: a shell that echoes what it runs does not print the line.
    """

    text: str = field(default_factory=lambda: f"cloudtrain:{os.urandom(8).hex()}")

    @property
    def argument(self) -> str:
        """The last word of the command line."""
        return self.text[::-1]

    @property
    def line(self) -> bytes:
        """As it is printed."""
        return self.text.encode() + b"\n"

    def answer(self, done: Completed, consequence: str) -> Completed:
        """What our program itself has said; where the host has no Python to run it, what was said of that.

        Raises:
            ConnectionFailed: the login has printed or run something else in its place (code `login_shell`).
        """
        _, found, after = done.stdout.partition(self.line)
        if found:
            return Completed(done.exit_code, after, done.stderr)
        # A shell says so by its exit code where a program is not there (127) or does not take its options (2, 126).
        if not done.stdout and done.exit_code not in (0, 1):
            return done
        raise not_ours(done.stdout or done.stderr, consequence)


def not_ours(said: bytes, consequence: str) -> ConnectionFailed:
    """The error for a login that has said something else and never the first line."""
    words = shortened(said[:_MOST].decode("utf-8", "replace"))
    quoted = f'said "{words}"' if words else "said nothing"
    return ConnectionFailed(
        f"a start-up file of the login there runs something else in place of cloudtrain's program; it {quoted}",
        hint="in ~/.bashrc there (zsh: ~/.zshenv) let only terminals reach what it runs, by a line at its top: "
        "case $- in *i*) ;; *) return;; esac",
        consequence=consequence,
        code="login_shell",
    )


class OurStream(Stream):
    """The stream of a program of ours, from its first line on.

    Args:
        consequence: of its failure, for the error.
    """

    def __init__(self, inner: Stream, first: FirstLine, consequence: str) -> None:
        self._inner = inner
        self._first = first
        self._consequence = consequence
        self._before = bytearray()
        self._seen = False

    def read(self, timeout: float) -> bytes:
        """See `Stream.read`.

        Raises:
            ConnectionFailed: also where something else goes on and on (code `login_shell`).
        """
        while not self._seen:
            data = self._inner.read(timeout)
            self._before += data
            _, found, after = self._before.partition(self._first.line)
            self._seen = bool(found)
            if not data or after:
                return bytes(after)
            if not found and len(self._before) > MOST_BEFORE:
                raise not_ours(bytes(self._before), self._consequence)
        return self._inner.read(timeout)

    def finish(self, timeout: float) -> Completed:
        """See `Stream.finish`.

        Raises:
            ConnectionFailed: also where the first line never came (code `login_shell`).
        """
        done = self._inner.finish(timeout)
        if self._seen:
            return done
        return self._first.answer(Completed(done.exit_code, bytes(self._before), done.stderr), self._consequence)

    def link_came(self) -> int:
        """See `Stream.link_came`."""
        return self._inner.link_came()

    def close(self) -> None:
        """See `Stream.close`."""
        self._inner.close()
