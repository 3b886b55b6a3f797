"""Finding and ending every process of a machine, whatever became of its parents and sessions.

All of them carry the machine's mark in their environment, which a process hands down and cannot lose by `setsid`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "CLOUDTRAIN_MACHINE"
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def alive(pid: int) -> bool:
    """Whether a process with this id exists and is not merely waiting to be reaped."""
    if sys.platform == "win32":
        found = subprocess.run(["tasklist", "/FI", f"PID eq {pid}", "/NH"], capture_output=True, text=True, timeout=20)
        return str(pid) in found.stdout
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        # The field after the name in brackets is the state.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1] != [b"Z"]
    return True


def marked(mark: str) -> list[int]:
    """Ids of this user's processes whose mark starts with `mark`."""
    wanted = f"{MARK}={mark}".encode()
    if Path("/proc/self/environ").exists():
        return _marked_in_proc(wanted)
    if sys.platform == "win32":
        return []
    listed = subprocess.run(["ps", "-axEww", "-o", "pid=,command="], capture_output=True, timeout=20, check=False)
    return [int(line.split(None, 1)[0]) for line in listed.stdout.splitlines() if wanted in line]


def _marked_in_proc(wanted: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if b"\0" + wanted in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def end_all(mark: str, *, grace: float, limit: float = 10.0) -> int:
    """End every process with this mark: SIGTERM, `grace` seconds, SIGKILL. Returns how many were there.

    Raises:
        TimeoutError: some were still there after `limit` more seconds.
    """
    first = marked(mark)
    _signal(first, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while first and time.monotonic() < deadline and any(alive(pid) for pid in first):
        time.sleep(0.02)
    deadline = time.monotonic() + limit
    # A process may start another between the look and the signal: look again until a look finds none.
    while left := marked(mark):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} of {mark} do not end")
        _signal(left, SIGKILL)
        time.sleep(0.01)
    return len(first)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
