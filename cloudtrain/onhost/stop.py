"""The verb `stop`, and the record of the wish to stop."""

from __future__ import annotations

import sys
import time

from .base import TYPE_CHECKING, UNKILLABLE_S, Later, Options
from .files import Run, load, save
from .processes import look, send, supervisor_gone

if TYPE_CHECKING:
    import signal
    import subprocess
    from typing import Any, Dict
else:
    signal = Later("signal")
    subprocess = Later("subprocess")


def do_stop(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    state, record = look(run)
    if state == "running":
        intend(run, options.reason, options.grace)
        grace = float((load(run.path("stop.json")) or {}).get("grace", options.grace))
        end = time.monotonic() + grace + UNKILLABLE_S / 2
        while state == "running" and time.monotonic() < end:
            wake_supervisor(run)
            time.sleep(0.05)
            state, record = look(run)
    if state == "running":
        # It does not answer, not even to SIGCONT. Its death takes the job along; `look` ends the rest.
        kill_supervisor(run)
        for _ in range(int(UNKILLABLE_S / 0.05)):
            state, record = look(run)
            if state != "running":
                break
            time.sleep(0.05)
    return {"state": state, "exit": record, "stop": (load(run.path("stop.json")) or {}).get("reason")}


def intend(run: Run, reason: str, grace: float) -> None:
    """Record the wish to stop before any signal; the first one stands."""
    save(run.path("stop.json"), {"reason": reason, "at": time.time(), "grace": grace}, first_only=True)


def wake_supervisor(run: Run) -> None:
    job = load(run.path("job.json"))
    if job and not supervisor_gone(run) and sys.platform != "win32":
        send(job["supervisor"], signal.SIGCONT)


def kill_supervisor(run: Run) -> None:
    job = load(run.path("job.json"))
    if job and not supervisor_gone(run):
        if sys.platform == "win32":
            subprocess.call(["taskkill", "/F", "/T", "/PID", str(job["supervisor"])], stdout=subprocess.DEVNULL)
        else:
            send(job["supervisor"], signal.SIGKILL)
