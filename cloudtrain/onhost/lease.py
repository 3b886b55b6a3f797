"""The verb `lease`, and the end of a machine that nobody looks at any more."""

from __future__ import annotations

import os
import sys
import time

from .base import TYPE_CHECKING, Failure, Later, Options, uptime
from .files import Run, load, save, touched_at
from .processes import look

if TYPE_CHECKING:
    import shutil
    import subprocess
    from typing import Any, Dict, List
else:
    subprocess, shutil = Later("subprocess"), Later("shutil")

# A supervisor that waits to power its machine off gives up so long after the ends of job and deadline, in seconds: by
# then the machine's own lease has ended it, or never will.
LINGERS_S = 24 * 3600.0

# A plain `systemctl poweroff` can be refused, by a package manager at work for one: each try is harder than the last.
HARDER: List[List[str]] = [[], ["--check-inhibitors=no"], ["--force"], ["--force", "--force"]]
# As root. In an emulated machine, whose folder may be deleted meanwhile, `systemctl` must never be this computer's.
_POWEROFF = """\
systemctl=$(command -v systemctl)
case "$systemctl" in "${CLOUDTRAIN_ROOT:-}"/*) ;; *) exit 1 ;; esac
told="cloudtrain: nobody looks at this run any more: systemctl${1:+ $*} poweroff"
(echo "$told" >> "${CLOUDTRAIN_ROOT:-}/dev/console") 2> /dev/null &
sync &
exec "$systemctl" --no-block "$@" poweroff
"""


def do_lease(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    state, _ = look(run)
    if state == "absent":
        raise Failure("absent", "this run has not been started")
    lease = lease_of(run)
    lasts = options.lasts
    if options.deadline is not None:  # of a client of the last release
        lasts = options.deadline - time.time()
    if lasts is not None:
        lease["ends"] = uptime() + lasts
    if options.grace is not None:
        lease["grace"] = options.grace
    save(run.path("lease.json"), {"v": 1, **lease})
    return {"state": state, "ends": lease.get("ends"), "grace": lease.get("grace")}


def lease_of(run: Run) -> Dict[str, Any]:
    """What `lease` has set since the start: `ends` (by uptime; counts if it is later than the spec's) and `grace`."""
    return load(run.path("lease.json")) or {}


def power_off_unless_wanted(run: Run, ends: float) -> None:
    """The job has just ended. Power this machine off once no client has looked at the run for the grace that `lease`
    sets. `ends`: the job's end as the spec has it. All is counted in uptime.

    Without a grace nothing happens: then the machine would not keep its disk, and its lease alone ends it.
    """
    tries, ended = 0, uptime()
    while True:
        lease = lease_of(run)
        grace = lease.get("grace")
        gone = not os.path.exists(run.path("exit.json"))
        if gone or uptime() > max(ended, ends, lease.get("ends") or 0.0) + LINGERS_S:
            return
        left = 1.0 if grace is None else max(ended, touched_at(run)) + grace - uptime()
        if left <= 0:
            # Not yet off when it is over: try again. A shutdown that has begun has its time to end the job's children.
            left = 90.0 if _power_off(HARDER[min(tries, 3)]) else 5.0
            tries += 1
        else:
            tries = 0
        time.sleep(min(max(left, 0.1), 5.0) if left < 60.0 else left)


def _power_off(how: List[str]) -> bool:
    """Ask the machine to power itself off; whether it has taken that."""
    sudo = shutil.which("sudo")
    if sudo is None or not sudo.startswith(os.environ.get("CLOUDTRAIN_ROOT", "")):
        sys.stderr.write("there is no sudo to power this machine off by\n")
        return False
    try:
        words = [sudo, "-n", "sh", "-c", _POWEROFF, "sh", *how]
        return subprocess.call(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) == 0
    except OSError as error:
        sys.stderr.write("sudo cannot be run: %s\n" % error)
        return False
