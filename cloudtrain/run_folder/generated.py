"""What is made here from a run's results and lies beside them: no part of them, so no checksum covers it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

REPORT = "report.html"
# Where a training package leaves a result of that name itself: the result is worth more.
OTHER_REPORT = "cloudtrain-report.html"
# In the head of every page that cloudtrain makes.
MARK = b'<meta name="generator" content="cloudtrain">'

CARD = "README.md"
# First line of the card's front matter, where it is a comment. The digest tells whether somebody has edited the rest.
_CARD_MARK = re.compile(rb"---\r?\n# Made by cloudtrain\b[^\n]*?(?: ([0-9a-f]{16})\.)?\r?\n")


def is_derived(path: Path, name: str) -> bool:
    """Whether the file at `path`, called `name` below the run's folder, is a report or a card that was made here.

    A job's own file of that name is a result.
    """
    if name not in (REPORT, OTHER_REPORT, CARD):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return False
    return _CARD_MARK.match(head) is not None if name == CARD else MARK in head


def report_in(folder: Path) -> Path | None:
    """The report in a run's folder, if one was made."""
    return next((folder / name for name in (REPORT, OTHER_REPORT) if is_derived(folder / name, name)), None)


def sealed(card: str) -> bytes:
    """The bytes of a card, which begins with front matter, with the mark that `is_derived` and `is_mine` look for."""
    rest = card.removeprefix("---\n").encode("utf-8", "replace")
    mark = f"# Made by cloudtrain from run.json; once edited it is kept as it is. {_digest(rest)}.\n"
    return b"---\n" + mark.encode() + rest


def is_mine(path: Path) -> bool:
    """Whether the file at `path` is a card, just as it was made: nobody has added a licence or a word to it.

    Raises:
        OSError: it cannot be read; `FileNotFoundError` where there is none.
    """
    data = path.read_bytes()
    found = _CARD_MARK.match(data)
    return found is not None and found[1] is not None and found[1].decode() == _digest(data[found.end() :])


def _digest(rest: bytes) -> str:
    return hashlib.sha256(rest).hexdigest()[:16]
