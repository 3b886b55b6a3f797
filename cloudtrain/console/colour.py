"""Colour where lines are only ever added: off, unless FORCE_COLOR asks for it. A terminal that redraws is Rich's."""

from __future__ import annotations

import os

# What a word means is in the word; these are the colours that the live view gives it (SGR parameters).
_STYLES = {"ok": "32", "warn": "33", "error:": "1;31", "hint:": "1;36"}


def forced() -> bool:
    """Whether colour is asked for even where there is no terminal. NO_COLOR (`--no-color`) stands above FORCE_COLOR."""
    return bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")


def painted(line: str) -> str:
    """`line` with its first word, or the one after a time of day, in colour, if that word has one."""
    at = 9 if line[2:3] == ":" and line[5:6] == ":" and line[8:9] == " " else 0
    word = line[at:].split(" ", 1)[0]
    style = _STYLES.get(word)
    return line if style is None else f"{line[:at]}\x1b[{style}m{word}\x1b[0m{line[at + len(word) :]}"
