"""The program that is sent to hosts, put where a push would put it."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.transfer.program import sources


def put_program(folder: Path) -> Path:
    """Write the program into a run directory, or where a test wants it; its `supervise.py`."""
    for name, text in sources().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "supervise.py"
