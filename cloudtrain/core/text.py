"""Counts, times, money, sizes, tables, and foreign text made fit for a screen. Pure: nothing here prints."""

from __future__ import annotations

import re
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cloudtrain.core import secrets

LAST_SECOND = 253_402_300_799
"""Unix seconds at the end of the year 9999: no later moment can be shown."""


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files", "0 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def time_of_day(at: float, now: float) -> str:
    """A moment ahead as a time of day, with its day where it is a day away or more."""
    return time.strftime("%H:%M" if at - now < 86400 else "%a %H:%M", time.localtime(_shown(at)))


def past(at: float, now: float) -> str:
    """When something was: the time alone where that is less than a day ago."""
    return time_of_day(at, now) if now - at < 86400 else date_and_time(at)


def date_and_time(at: float) -> str:
    """ "2026-11-23 15:04"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(_shown(at)))


# Escape sequences of a terminal, 7- and 8-bit: CSI; OSC and other strings up to their end; any two-byte sequence.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    # Such a string is over where another escape begins: looked for further on, text of many beginnings takes long.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?",
)


def screen_safe(text: str) -> str:
    """`text` without anything that a terminal obeys: escapes, control characters, text-direction overrides; and with
    the values of secrets hidden.

    Tabs stay. What is left is drawn, never executed.
    """
    if not text.isprintable():  # nearly all lines are, and that is many times quicker
        text = _ESCAPES.sub("", text)
        text = "".join(c for c in text if c == "\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    return secrets.hide(text)


def shortened(text: str, most: int = 200) -> str:
    """Foreign text for a message: one line, nothing that a terminal obeys, at most `most` characters."""
    line = " ".join(screen_safe(text[: 4 * most].replace("\n", " ")).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def folded(line: str, width: int) -> list[str]:
    """`line` as a terminal of `width` columns has it: a letter that does not fit goes on below."""
    line = line.expandtabs()
    if line.isascii():
        return [line[at : at + width] for at in range(0, max(1, len(line)), width)]
    rows, room = [""], width
    for letter in line:
        room -= wide(letter)
        if room < 0:
            rows.append("")
            room = width - wide(letter)
        rows[-1] += letter
    return rows


@lru_cache(maxsize=4096)
def wide(letter: str) -> int:
    """Columns that a letter has: none of its own for an accent to the one before it."""
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """What of `known` was probably meant by `word`; None: nothing is as like it as that, of 1."""
    import difflib  # needed where something was mistyped, and nowhere else

    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=likeness)
    return names[near[0]] if near else None


def meant(word: str, known: Iterable[str], otherwise: str, before: str = "") -> str:
    """The hint for a word that is not known: "did you mean failed?", or `otherwise` where nothing is like it.

    Args:
        before: what stands before that word where it is typed, such as "cloudtrain ".
    """
    near = nearest(word, known)
    return f"did you mean {before}{near}?" if near else otherwise


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def seconds(value: float) -> str:
    """A span, human-readable: 0.4 s, 12 s, 3m 05s, 1h 02m, 2 days; "-" for one that no clock has."""
    if not abs(value) < 1e11:
        return "-"
    if value < 10:
        return f"{value:.1f} s"
    if value < 99.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24} days"


def size(count: float) -> str:
    """Bytes, human-readable, in powers of 1000: 812 B, 38 kB, 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.2g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def money(usd: float) -> str:
    """US dollars, to the cent, or to the tenth of one below a cent."""
    return f"${usd:.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.3f}"


def an_hour(usd: float | None, before: str = "") -> str:
    """A machine's price, after `before`: " at $0.526 an hour"; nothing at all for one that costs none or is unknown."""
    return f"{before}${usd:.3f} an hour" if usd else ""


def percent(value: Any) -> str:
    """An accuracy, or "-" where there is none."""
    return f"{value:.2f}%" if isinstance(value, (int, float)) and not isinstance(value, bool) else "-"


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Lines of an aligned table; the columns in `right` are set to the right."""
    rows = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    to_right = set(right)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in to_right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def wrapped(text: str, width: int, hang: int = 0) -> list[str]:
    """`text` in lines of at most `width` columns, broken between words; the second and later ones set in by `hang`.

    A word that is wider than a line stays whole: a path or a key must come out of the terminal as it went in.
    """
    if len(text) <= width:
        return [text]
    hang = hang if width - hang >= 16 else min(2, max(0, width - 16))
    return textwrap.wrap(
        text,
        max(width, 16),
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    ) or [text]


def fitted(lines: Iterable[str], width: int | None, hang: int | None = None) -> list[str]:
    """`lines`, each broken as by `wrapped` where there is a `width`.

    Args:
        hang: what second and later lines are set in by; None: two columns more than the line itself.
    """
    if width is None:
        return list(lines)
    return [
        part
        for line in lines
        for part in wrapped(line, width, len(line) - len(line.lstrip()) + 2 if hang is None else hang)
    ]


def iso(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 UTC, to the second, for programs."""
    return None if at is None else datetime.fromtimestamp(_shown(at), UTC).isoformat(timespec="seconds")


def _shown(at: float) -> float:
    """The nearest moment that a calendar here has."""
    return min(max(at, 0.0), LAST_SECOND - 86400.0)
