"""How far a training is, on the taskbar or the tab of terminals that can show it: ConEmu's sequence OSC 9;4.

Sent only to terminals whose own documentation has it, since to others OSC 9 is a desktop notification: Windows Terminal
(https://learn.microsoft.com/windows/terminal/tutorials/progress-bar-sequences), ConEmu
(https://conemu.github.io/en/AnsiEscapeCodes.html), Ghostty (https://ghostty.org/docs/vt/osc/conemu) and WezTerm
(https://wezterm.org/config/lua/pane/get_progress.html).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import IO

# Ghostty takes a progress away that was not told for about 15 s (its documentation).
_AGAIN_S = 5.0
_GHOSTTY_SINCE = (1, 2)


def shown_by(environment: Mapping[str, str]) -> bool:
    """Whether the terminal that set these variables shows such progress."""
    if environment.get("WT_SESSION") or environment.get("ConEmuANSI") == "ON":
        return True
    program = environment.get("TERM_PROGRAM", "")
    if program == "ghostty":
        return _version(environment.get("TERM_PROGRAM_VERSION", "")) >= _GHOSTTY_SINCE
    return program == "WezTerm"


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (1, 2, 0) of "1.2.0-main+abc"; none of them: ()."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


class Taskbar:
    """The progress of the terminal behind `stream`.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._percent: int | None = None
        self._told_at = 0.0

    def show(self, share: float) -> None:
        """`share` of it is done, from 0 to 1."""
        percent = round(100 * min(1.0, max(0.0, share)))
        now = self._clock()
        if percent != self._percent or now - self._told_at >= _AGAIN_S:
            self._percent, self._told_at = percent, now
            self._write(f"1;{percent}")

    def clear(self) -> None:
        """Take it away, if it is there."""
        if self._percent is not None:
            self._percent = None
            self._write("0;0")

    def _write(self, state: str) -> None:
        # One write: what another thread draws comes before it or after it. The end is ST and not BEL, which would
        # sound on a terminal that takes none of this for its own.
        self._stream.write(f"\x1b]9;4;{state}\x1b\\")
        self._stream.flush()
