"""The verb `lease`, and the end of a machine that nobody looks at any more."""

from __future__ import annotations

import sys
import time

from .base import TYPE_CHECKING, Failure, Later, Options
from .files import Run, load, save, touched_at
from .processes import look

if TYPE_CHECKING:
    import subprocess
    from typing import Any, Dict
else:
    subprocess = Later("subprocess")

# A supervisor that waits to power its machine off gives up so long after the ends of job and deadline, in seconds: by
# then the machine's own lease has ended it, or never will.
LINGERS_S = 24 * 3600.0


def do_lease(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    state, _ = look(run)
    if state == "absent":
        raise Failure("absent", "this run has not been started")
    lease = lease_of(run)
    if options.deadline is not None:
        lease["deadline"] = options.deadline
    if options.grace is not None:
        lease["grace"] = options.grace
    save(run.path("lease.json"), {"v": 1, **lease})
    return {"state": state, "deadline": lease.get("deadline"), "grace": lease.get("grace")}


def lease_of(run: Run) -> Dict[str, Any]:
    """What `lease` has set since the start: `deadline` (only ever later than the spec's) and `grace`."""
    return load(run.path("lease.json")) or {}


def power_off_unless_wanted(run: Run, deadline: float) -> None:
    """The job has ended. Power this machine off once no client has looked at the run for the grace that `lease` sets.

    Without a grace nothing happens: then the machine would not keep its disk, and its lease alone ends it.
    """
    while True:
        record, lease = load(run.path("exit.json")), lease_of(run)
        grace = lease.get("grace")
        if record is None or time.time() > max(float(record["at"]), deadline, lease.get("deadline") or 0.0) + LINGERS_S:
            return
        left = 1.0
        if grace is not None:
            left = max(float(record["at"]), touched_at(run)) + grace - time.time()
            if left <= 0:
                try:
                    subprocess.call(
                        ["sudo", "-n", "systemctl", "--no-block", "poweroff"],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                    )
                except OSError as error:
                    sys.stderr.write("sudo cannot be run: %s\n" % error)
                left = 60.0  # Not yet off: try again.
        time.sleep(min(max(left, 0.1), 5.0) if left < 60.0 else left)
