"""A table that fits its screen: columns give way in their order, one long column goes on in the next line, and the
first, the name, is never cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cloudtrain.console.colour import styled
from cloudtrain.core.text import wrapped

_GAP = 2
_LEAST = 16


def fitted_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    long: int,
    gives_way: Iterable[tuple[int, int]],
    right: Iterable[int] = (),
    styles: Sequence[str] = (),
) -> list[str]:
    """The lines of a table.

    Args:
        width: of the screen; None: whatever it takes.
        long: the column that may go on in the next line.
        gives_way: columns in the order in which they are left out, each with the room for the long one that is worth
            it.
        right: columns that are set to the right.
        styles: of each row, how its long cell is drawn (`console.colour`); empty: as all else.
    """
    cells, to_right = [list(header), *(list(row) for row in rows)], set(right)
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    kept = list(range(len(header)))

    def room() -> int:
        others = sum(widths[at] for at in kept if at != long)
        return widths[long] if width is None else width - others - _GAP * (len(kept) - 1)

    for column, worth in gives_way:
        if room() >= min(widths[long], worth):
            break
        kept.remove(column)
    below = room() < min(widths[long], _LEAST)
    if below:
        # A name that is as wide as the screen: what is said of it stands below it.
        kept = [at for at in kept if at == 0]
    widths[long] = min(widths[long], room()) if not below else 0
    lines = []
    for number, row in enumerate(cells):
        style = styles[number - 1] if styles and number else ""
        parts = _broken(row[long], (width or 0) - _GAP if below else widths[long])
        if below:
            lines += [row[0], *(" " * _GAP + styled(part, style) for part in parts)]
            continue
        for turn, part in enumerate(parts):
            shown = []
            for at in kept:
                text = part if at == long else row[at] if not turn else ""
                space = " " * (widths[at] - len(text))
                text = styled(text, style) if at == long else text
                shown.append(space + text if at in to_right else text + space)
            lines.append((" " * _GAP).join(shown).rstrip())
    return lines


def _broken(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, broken after commas where that will do."""
    lines = [""]
    for words in re.split(r"(?<=,) ", text):
        joined = f"{lines[-1]} {words}".lstrip()
        lines = [*lines[:-1], joined] if len(joined) <= width or not lines[-1] else [*lines, words]
    return [part for line in lines for part in wrapped(line, width)]
