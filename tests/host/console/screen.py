"""A terminal for tests: a process on a pseudo-terminal, and what a person would see of it."""

from __future__ import annotations

import codecs
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.conftest import ROOT

LIMIT_S = 60.0
# Of the terminal and the person that run the tests.
WISHES = ("NO_COLOR", "FORCE_COLOR", "CLOUDTRAIN_PLAIN")


class Screen:
    """What stands on a terminal, its scrollback included.

    Args:
        encoding: of the terminal, as a Windows code page would be.
    """

    def __init__(self, columns: int, lines: int, encoding: str = "utf-8") -> None:
        self.columns = columns
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="strict")

    def feed(self, data: bytes) -> None:
        """What the process wrote."""
        self.raw += data
        self._stream.feed(self._decoder.decode(data))

    def resize(self, columns: int, lines: int) -> None:
        """Another size. Lines that are too long now go on in the next row, as most terminals show them."""
        standing = self.text().rstrip("\n").split("\n")
        self.columns = columns
        self._screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.Stream(self._screen)
        self._stream.feed("\r\n".join(standing))

    def text(self) -> str:
        """All lines, without what only fills them up."""
        past = ["".join(line[x].data for x in range(self.columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*past, *self._screen.display]).rstrip() + "\n"


class Played:
    """A scene of `play.py` that runs on a terminal."""

    def __init__(self, screen: Screen, terminal: int, told: int, go_on: int) -> None:
        self.screen = screen
        self._terminal, self._told, self._go_on = terminal, told, go_on

    def to_stop(self) -> Screen:
        """The screen when the scene has come to its next stop; the scene waits there for `go_on`."""
        return self._until(self._told)

    def go_on(self) -> None:
        """Let the scene leave its stop."""
        os.write(self._go_on, b".")

    def to_end(self) -> Screen:
        """The screen when the process has ended."""
        return self._until(None)

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal another size."""
        import fcntl
        import termios

        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(columns, lines)

    def _until(self, told: int | None) -> Screen:
        ends = time.monotonic() + LIMIT_S
        while time.monotonic() < ends:
            watched = [self._terminal] if told is None else [self._terminal, told]
            ready, _, _ = select.select(watched, [], [], 1.0)
            if self._terminal in ready:
                try:
                    data = os.read(self._terminal, 1 << 16)
                except OSError:  # Linux says so when the other end is closed
                    return self.screen
                if not data:
                    return self.screen
                self.screen.feed(data)
            elif told is not None and told in ready:
                os.read(told, 1)
                return self.screen
        raise AssertionError(f"nothing came for {LIMIT_S:.0f} s; the screen was\n{self.screen.text()}")


@contextmanager
def played(
    scene: str,
    *options: str,
    columns: int = 80,
    lines: int = 24,
    encoding: str = "utf-8",
    environment: dict[str, str] | None = None,
    folder: Path,
) -> Iterator[Played]:
    """Play `scene` on a terminal of that size, with `folder` as the working directory."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    told, tell = os.pipe()
    wait, go_on = os.pipe()
    env = {
        **{name: value for name, value in os.environ.items() if name not in WISHES},
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": encoding,
        "TERM": "xterm-256color",
        "CLOUDTRAIN_PLAY_TO": str(tell),
        "CLOUDTRAIN_PLAY_FROM": str(wait),
        **(environment or {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.host.console.play", scene, *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        pass_fds=(tell, wait),
        env=env,
        cwd=folder,
    )
    for descriptor in (theirs, tell, wait):
        os.close(descriptor)
    try:
        yield Played(Screen(columns, lines, encoding), ours, told, go_on)
    finally:
        process.kill()
        process.wait(10)
        for descriptor in (ours, told, go_on):
            os.close(descriptor)
