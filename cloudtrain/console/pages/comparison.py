"""Runs side by side, human-readable."""

from __future__ import annotations

from cloudtrain.core.text import columns, screen_safe
from cloudtrain.report.comparison import Comparison

_DIFFERS = "<- differs"


def lines(found: Comparison) -> list[str]:
    """The table, one line a figure; settings that are not the same everywhere are marked."""
    count = len(found.runs)
    header = ["", *(facts.name for facts in found.runs), ""]
    rows = [
        [row.label, *("-" if cell == "–" else cell for cell in row.cells), _DIFFERS if row.differs else row.note]
        for row in found.rows
    ]
    return [screen_safe(line) for line in columns(header, rows, right=range(1, count + 1))]
