"""Colour of words: where lines are only ever added off, unless FORCE_COLOR asks for it; of a list on a terminal on.
NO_COLOR stands above all. A terminal that redraws is Rich's."""

from __future__ import annotations

import os
import sys
from typing import TextIO

# What a word means is in the word; these are the colours that the live view gives it (SGR parameters).
_STYLES = {"ok": "32", "warn": "33", "error:": "1;31", "hint:": "1;36"}


def forced() -> bool:
    """Whether colour is asked for even where there is no terminal. NO_COLOR (`--no-color`) stands above FORCE_COLOR."""
    return bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")


# How a run stands, in SGR parameters.
WELL, LIVES, HEED, BAD = "32", "36", "33", "31"


def of_list(stream: TextIO) -> bool:
    """Whether a list on `stream` is drawn in colour."""
    if forced() or os.environ.get("NO_COLOR"):
        return forced()
    # An old console of Windows shows the escapes themselves.
    knows = sys.platform != "win32" or any(os.environ.get(name) for name in ("WT_SESSION", "TERM_PROGRAM", "ANSICON"))
    return stream.isatty() and os.environ.get("TERM") != "dumb" and knows


def styled(text: str, style: str) -> str:
    """`text` in a style; in none, as it is."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text


def painted(line: str) -> str:
    """`line` with its first word, or the one after a time of day, in colour, if that word has one."""
    at = 9 if line[2:3] == ":" and line[5:6] == ":" and line[8:9] == " " else 0
    word = line[at:].split(" ", 1)[0]
    style = _STYLES.get(word)
    return line if style is None else f"{line[:at]}{styled(word, style)}{line[at + len(word) :]}"
