"""The processes of a run: which live, how they are ended, and the run's state, which follows from that."""

from __future__ import annotations

import os
import sys
import time

from .base import LINUX, TYPE_CHECKING, UNKILLABLE_S, Later
from .container import end_container
from .files import Run, load
from .locks import held

if TYPE_CHECKING:
    import signal
    import subprocess
    from typing import Any, Callable, Dict, Optional, Set, Tuple
else:
    signal = Later("signal")
    subprocess = Later("subprocess")


def look(run: Run) -> Tuple[str, Optional[Dict[str, Any]]]:
    """(state, exit record) of a run. What a killed supervisor left running is ended on the way."""
    record = load(run.path("exit.json"))
    if record is not None:
        return "exited", record
    if held(run.path("lock")):
        if not supervisor_gone(run):
            return "running", None
        # Its supervisor was killed, and something that inherited the lock lives on: nobody will write exit.json.
    record = load(run.path("exit.json"))
    if record is not None:
        return "exited", record
    if load(run.path("spec.json")) is None:
        return "absent", None
    end_processes(run, grace=0.0)
    return "lost", None


def boot_id() -> Optional[str]:
    """Changes whenever the machine starts anew; None where the system has no such name."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        try:
            return subprocess.check_output(["sysctl", "-n", "kern.bootsessionuuid"], timeout=5).decode().strip() or None
        except (OSError, subprocess.SubprocessError):
            pass
    return None


def oom_kills() -> Optional[int]:
    """How many processes Linux has ended since its start because memory ran out; None where that is not counted."""
    try:
        with open("/proc/vmstat", "rb") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(b"oom_kill ")), None)
    except OSError:
        return None


def process_table() -> Dict[int, Tuple[str, int, int]]:
    """Linux: pid -> (state letter, parent, start time in clock ticks since boot). Empty elsewhere."""
    table = {}
    if LINUX:
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open("/proc/%s/stat" % name, "rb") as file:
                        # The command's name stands in brackets and may hold anything, brackets too.
                        fields = file.read().rpartition(b")")[2].split()
                    table[int(name)] = (fields[0].decode(), int(fields[1]), int(fields[19]))
                except (OSError, IndexError, ValueError):
                    pass
    return table


def start_of(pid: int) -> Optional[int]:
    entry = process_table().get(pid) if LINUX else None
    return entry[2] if entry else None


def supervisor_gone(run: Run) -> bool:
    """Whether the run had a supervisor, and that process is no more."""
    job = load(run.path("job.json"))
    if job is None or os.name == "nt":
        # Windows: the lock is the supervisor's own, and the job dies with it.
        return False
    if job.get("boot_id") != boot_id():
        return True
    pid = job["supervisor"]
    if LINUX:
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return True
        return fields[0] in (b"Z", b"X") or int(fields[19]) != job["supervisor_start"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def find_processes(run: Run, supervisor: Optional[int] = None) -> Set[int]:
    """Linux: what lives of a run, found by its mark in the environment and by descent from it and from `supervisor`.

    The supervisor is the subreaper of all that descends from the job, so nothing escapes by forking twice, by setsid or
    by emptying its environment; once the supervisor is gone the mark is what remains.
    """
    mark = os.fsencode("CLOUDTRAIN_RUN=" + run.dir)
    table = process_table()
    found = set()
    for pid in table:
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.add(pid)
        except OSError:
            pass
    grown = True
    while grown:
        more = {pid for pid, entry in table.items() if entry[1] in found or (supervisor and entry[1] == supervisor)}
        grown = not more <= found
        found |= more
    mine = {os.getpid(), supervisor}
    return {pid for pid in found if pid not in mine and table[pid][0] not in ("Z", "X")}


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def end_processes(
    run: Run,
    grace: float,
    supervisor: Optional[int] = None,
    reap: Callable[[], None] = lambda: None,
) -> bool:
    """End every process of the run: SIGTERM, after `grace` seconds SIGKILL, until none is left. False: some remain."""
    try:
        return sys.platform == "win32" or _end_processes(run, grace, supervisor, reap)
    finally:
        end_container(run)  # Once no client is left that could still start one.


def _end_processes(run: Run, grace: float, supervisor: Optional[int], reap: Callable[[], None]) -> bool:
    began = time.monotonic()
    asked: Set[int] = set()
    job = load(run.path("job.json")) or {}
    group = job.get("job") if job.get("boot_id") == boot_id() else None
    while True:
        reap()
        if LINUX:
            alive = find_processes(run, supervisor)
        else:
            # Once the run's last process has gone, its group's number can be another's. Not while the lock is held.
            alive = {-group} if group and (supervisor or held(run.path("lock"))) and group_lives(group) else set()
        if not alive:
            return True
        late = time.monotonic() - began >= grace
        for pid in alive:
            if late:
                send(pid, signal.SIGKILL)
            elif pid not in asked:
                asked.add(pid)
                send(pid, signal.SIGTERM)
                send(pid, signal.SIGCONT)
        if time.monotonic() - began >= grace + UNKILLABLE_S:
            return False
        time.sleep(0.01 if late else 0.03)


def group_lives(group: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # macOS says EPERM of a group that holds nothing but processes not yet reaped.
        return False
    return True
