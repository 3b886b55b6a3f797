"""Files of a run's folder, read with distrust: a job or a host wrote them, and any of them may be missing or odd."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.decode import Odd, json_object
from cloudtrain.core.text import screen_safe

# No file that is read whole here is larger in a real run by far; a larger one is left out.
MOST_BYTES = 32 * 2**20


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes | None:
    """The bytes of a plain file of at most `most` bytes; None for anything else."""
    try:
        with disk.plain(path) as file:
            data = file.read(most + 1)
        return data if len(data) <= most else None
    except OSError:
        return None


def read_text(path: Path, most: int = MOST_BYTES) -> str | None:
    """The same as text; what is no UTF-8 is replaced."""
    data = read_bytes(path, most)
    return None if data is None else data.decode("utf-8", "replace")


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty for anything else."""
    data = read_bytes(path)
    if data is None:
        return {}
    try:
        return json_object(data)
    except Odd:
        return {}


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The values of `columns` in each row of a CSV file; nothing for a file that lacks one of them."""
    text = read_text(path)
    if text is None:
        return
    try:
        for row in csv.DictReader(io.StringIO(text)):
            values = tuple(row.get(column) for column in columns)
            if not all(isinstance(value, str) for value in values):
                return
            yield tuple(str(value) for value in values)
    except csv.Error:
        return


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: Any) -> int | None:
    """A whole number, or None."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and abs(found) < 2**53 else None


def text(value: Any, most: int = 300) -> str | None:
    """A short text without line breaks, or None."""
    if not isinstance(value, str) or not value.strip():
        return None
    line = screen_safe(" ".join(value.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, empty for anything else."""
    return value if isinstance(value, Mapping) else {}


def square(value: Any, most: int = 20) -> tuple[tuple[int, ...], ...] | None:
    """A confusion matrix: as many rows as columns, counts from 0; None for anything else."""
    if not isinstance(value, list) or not 2 <= len(value) <= most:
        return None
    rows = []
    for row in value:
        counts = [whole(count) for count in row] if isinstance(row, list) and len(row) == len(value) else []
        if not counts or any(count is None or count < 0 for count in counts):
            return None
        rows.append(tuple(count for count in counts if count is not None))
    return tuple(rows)
