"""When the lease of an emulated machine is over, as the program on it reads it."""

from __future__ import annotations

from pathlib import Path


def lease_end(root: Path) -> float | None:
    """Unix seconds; None while the machine at `root` has not been told."""
    try:
        return float((root / "run" / "cloudtrain-lease").read_text().split()[0])
    except (OSError, IndexError):
        return None
