"""Bytes: pieces of growing files, and what goes to stdout."""

from __future__ import annotations

import json
import os

from .base import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Dict

# A line of events.jsonl longer than this is sent in pieces, or one endless line would hold back all that follow it.
LONGEST_LINE = 1024 * 1024


def read_tail(path: str, offset: int, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def whole_lines(path: str, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from `offset` on that end with a line end; a longer line comes in pieces."""
    data = read_tail(path, offset, limit)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == limit and limit < LONGEST_LINE:
        return whole_lines(path, offset, LONGEST_LINE)
    return data if not end and len(data) >= LONGEST_LINE else data[:end]


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def frame(head: Dict[str, Any], payload: bytes = b"") -> None:
    write_all(json.dumps(head).encode() + b"\n" + payload)
