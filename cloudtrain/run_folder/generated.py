"""Generated files in a run's folder: they are not results, so no checksum covers them."""

from __future__ import annotations

import re
from pathlib import Path

from cloudtrain.core import disk

REPORT = "report.html"
# Where a training package leaves a result of that name itself: the result is worth more.
OTHER_REPORT = "cloudtrain-report.html"
# In the head of every page that cloudtrain makes.
MARK = b'<meta name="generator" content="cloudtrain">'

# The model card that earlier versions made: the first line of its front matter is a comment that says so.
_CARD = "README.md"
_CARD_MARK = re.compile(rb"---\r?\n# Made by cloudtrain\b")


def is_derived(path: Path, name: str) -> bool:
    """Whether the file at `path`, called `name` below the run's folder, is a report or a card that was made here.

    A job's own file of that name is a result.
    """
    if name not in (REPORT, OTHER_REPORT, _CARD):
        return False
    try:
        with disk.plain(path) as file:
            head = file.read(1024)
    except OSError:
        return False
    return _CARD_MARK.match(head) is not None if name == _CARD else MARK in head


def report_in(folder: Path) -> Path | None:
    """The report in a run's folder, if one was made."""
    return next((folder / name for name in (REPORT, OTHER_REPORT) if is_derived(folder / name, name)), None)
