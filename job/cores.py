"""How OpenMP waits and how many cores this process may use. Import before torch, which reads both settings once."""

from __future__ import annotations

import math
import os
from pathlib import Path

# A thread that spins at a barrier takes the core from the thread it waits for. On two cores shared with other work the
# same epoch took 448 s spinning and 51 to 68 s waiting passively.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# An operation that Apple GPUs lack runs on the CPU instead of ending the run.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that a container's quota grants (cgroup v2, then v1), None where there is no quota."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        granted = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return granted if granted > 0 else None  # cgroup v1 says -1 for "no limit"


def usable() -> int:
    """Threads worth starting: cores this process is allowed on, cut by the quota; `OMP_NUM_THREADS` overrides."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota()
    return max(1, min(cores, math.ceil(granted))) if granted else cores
