"""How OpenMP waits and how many cores this process may use. Import before torch, which reads both settings once."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from pathlib import Path

LOOKS, BETWEEN_S = 15, 0.01
# How long a thread spins for its next piece of work before it sleeps, where the cores are free: about a millisecond.
SPIN = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}  # GNU's OpenMP (65 ns each); Intel's and LLVM's (ms)
SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}

# An operation that Apple GPUs lack runs on the CPU instead of ending the run.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
# Tensors of 2 MiB and more in large pages, where the kernel has them: an epoch of Model 1 in nine tenths of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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


def busy(source: Path = Path("/proc/loadavg")) -> float | None:
    """Cores that others keep busy right now (the median of some looks over 0.15 s); None where nothing tells.

    The fourth field of /proc/loadavg counts what runs or wants to run at this moment, this process included
    (proc_loadavg(5)); the averages before it would still see an installation that has just ended.
    """
    found = []
    try:
        for _ in range(LOOKS):
            found.append(int(source.read_text().split()[3].partition("/")[0]) - 1)
            time.sleep(BETWEEN_S)
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, statistics.median(found))


def waiting() -> dict[str, str]:
    """The settings by which OpenMP's threads should wait here: spin for a moment, or sleep at once.

    Sleeping costs a wake-up at every small operation: on two free cores an epoch of Model 3 takes half as long again.
    But a thread that spins takes the core from the thread it waits for where there are not enough cores: there the same
    epoch took 448 s spinning, 51 to 68 s sleeping. A quota counts spinning as work. What the user has set, stands.
    """
    if any(name in os.environ for name in (*SPIN, *SLEEP)):
        return {}
    threads = usable()
    if threads == 1 or quota() is not None:
        return SLEEP
    others = busy() if sys.platform == "linux" else 0.0  # elsewhere a millisecond's spin is the compromise
    free = others is not None and others + threads <= (os.cpu_count() or 1)
    return SPIN if free else SLEEP


os.environ.update(waiting())
