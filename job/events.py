"""`events.jsonl`: what the run tells, one JSON object a line (docs/your-own-job.md, "What it tells")."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events to `path`; with None they go nowhere. A line is one write, so a reader never sees half of one."""

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
            self._file = os.open(path, flags, 0o644)

    def emit(self, kind: str, **values: Any) -> None:
        """Write one event. Numbers that JSON cannot hold (nan, infinity) become null.

        Raises:
            OSError: the line could not be written whole (disk full).
        """
        if self._file is None:
            return
        event = {"v": 1, "t": round(time.time(), 3), "kind": kind, **values}
        line = json.dumps(finite(event), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes of an event were written")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def finite(value: Any) -> Any:
    """`value` with every nan and infinity in it replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
