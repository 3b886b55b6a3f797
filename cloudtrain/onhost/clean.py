"""The verb `clean`: what lies below the work folder of each run, and the removal of runs that have ended.

Nothing is followed out of that folder: what is a link is neither entered nor taken for a run. What goes is renamed
first, while its lock is held, so that no `start` finds half of it.
"""

from __future__ import annotations

import json
import os
import sys
import time

from .base import HEADER_LIMIT, TYPE_CHECKING, Failure, Options, from_os
from .files import Run, load, remove_tree
from .locks import take
from .processes import look
from .results import Results

if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, Optional, Tuple

# A folder without a spec may be a push whose start comes in a moment, in seconds.
STARTING_S = 3600.0
# The last pushed copy of a project makes its next push quick. So long after that it goes, in seconds.
TREES_S = 30 * 86400.0
# So long an environment is kept after the last run that wanted it, in seconds.
ENVIRONMENTS_S = 30 * 86400.0
# What the program around the job has in a run directory; all else there is the job's.
OURS = frozenset(
    "supervise.py spec.json environment.json sent.json looked.json lock console.log console.times events.jsonl job.json"
    " supervisor.log reserve notice.json stop.json lease.json touched exit.json".split()
)


def do_clean(options: Options) -> Dict[str, Any]:
    top = os.path.realpath(options.workdir)
    try:
        wanted = json.loads(sys.stdin.buffer.read(HEADER_LIMIT).decode("utf-8"))
        chosen = {str(name): (one["id"], one["files"]) for name, one in wanted["remove"].items()}
        sweeps = bool(chosen) and wanted.get("trees", True) is True
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("usage", "what to remove cannot be read: %s" % error)
    for name, path in folders(top, ""):
        if name.startswith("gone-") and chosen:
            remove_all(path)  # of a removal that was cut short
    runs = []
    for name, path in folders(top, "runs"):
        run = Run(path)
        spec = load(run.path("spec.json")) or {}
        state = stands(run)
        told = {"name": name, "id": spec.get("id"), "bytes": size_of(path), "age_s": age_of(path), "state": state}
        runs.append({**told, "kept": None, "removed": False})
        if name in chosen and spec.get("id") == chosen[name][0]:
            runs[-1]["kept"] = why = remove_run(run, top, state, chosen[name][1])
            runs[-1]["removed"] = why is None
    trees = []
    for name, path in folders(top, "trees"):
        trees.append({"name": name, "bytes": size_of(path), "removed": sweeps and remove_tree_of(top, name, path)})
    made = []
    for name, path in folders(top, "envs"):
        made.append({"name": name, "bytes": size_of(path), "removed": sweeps and remove_environment(top, name, path)})
    return {"runs": runs, "trees": trees, "environments": made}


def folders(top: str, kind: str) -> Iterator[Tuple[str, str]]:
    folder = os.path.join(top, kind)
    if os.path.islink(folder.rstrip(os.sep)) or not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.islink(path) and os.path.isdir(path):
            yield name, path


def stands(run: Run) -> str:
    """running, exited or lost; `starting` for what was pushed and may start yet, `absent` where nothing began."""
    state, _ = look(run)
    return "starting" if state == "absent" and age_of(run.dir) < STARTING_S else state


def size_of(top: str) -> int:
    total = 0
    for folder, _, files in os.walk(top):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                pass
    return total


def age_of(path: str) -> float:
    """Seconds since something was last added to the folder, by this machine's own clock."""
    try:
        return max(0.0, time.time() - os.lstat(path).st_mtime)
    except OSError:
        return 0.0


def remove_run(run: Run, top: str, state: str, files: Optional[Dict[str, str]]) -> Optional[str]:
    """Remove the run; why it stays, or None. With `files` (name below out/ -> sha256) it stays if it holds another."""
    lock = take(run.path("lock")) if state in ("exited", "lost", "absent") else None
    if lock is None:
        return "it lives"
    try:
        odd = sorted(unknown(run, files)) if files is not None else []
        if odd:
            return "it holds %s, which is not here%s" % (odd[0], " (and %d more)" % (len(odd) - 1) if odd[1:] else "")
        aside = os.path.join(top, "gone-%d-%s" % (os.getpid(), os.urandom(4).hex()))
        if os.name == "nt":
            os.close(lock)  # Or the folder could not be renamed.
            lock = -1
        os.rename(run.dir, aside)
    except OSError as error:
        return from_os(error).message
    finally:
        if lock >= 0:
            os.close(lock)
    return remove_all(aside)


def unknown(run: Run, files: Dict[str, str]) -> Iterator[str]:
    """What the job has made that is not among `files`: results, and whatever it wrote beside them since its start."""
    for place, entry in Results(run, over=True).places():
        if files.get(entry["name"]) != entry["sha256"]:
            yield place
    # The rest of that folder is the code as it was sent, and what programs keep for themselves.
    told = None if run.results is None else os.path.join(run.path("code"), *run.results.split("/"))
    since = os.lstat(run.path("spec.json")).st_ctime
    for folder, names, found in os.walk(run.dir):
        if folder == told:
            names.clear()
            continue
        outer = folder == run.dir
        names[:] = [name for name in names if name != "__pycache__" and not (outer and name in ("out", "onhost"))]
        for name in found:
            path = os.path.join(folder, name)
            if not (outer and name in OURS) and os.lstat(path).st_ctime > since:
                yield os.path.relpath(path, run.dir).replace(os.sep, "/")


def remove_tree_of(top: str, name: str, path: str) -> bool:
    """Remove the pushed copy `name` if nobody has pushed it for long and no run goes on from what it holds."""
    held_by = [load(os.path.join(run, "spec.json")) or {} for _, run in folders(top, "runs")]
    needed = any(name in str(value) for spec in held_by for value in (spec.get("env") or {}).values())
    resume = name.startswith("resume-")
    if needed or age_of(path) < (86400.0 if resume else TREES_S):
        return False
    return remove_unused(path, os.path.join(path, "lock"))


def remove_environment(top: str, name: str, path: str) -> bool:
    """Remove the environment `name` if no run has wanted it for long and none goes on in it."""
    wanted = os.path.join(path, "ready")
    if os.path.exists(wanted) and age_of(wanted) < ENVIRONMENTS_S:
        return False
    living = (run for _, run in folders(top, "runs") if look(Run(run))[0] == "running")
    running = [load(os.path.join(run, "spec.json")) or {} for run in living]
    # A command such as `torchrun` has it on its PATH alone.
    if any(name in str([spec.get("argv"), spec.get("bin")]) for spec in running):
        return False
    return remove_unused(path, path + ".lock")


def remove_unused(path: str, lock_file: str) -> bool:
    """Remove the folder if nobody holds its lock; whether it is gone."""
    lock = take(lock_file)
    if lock is None:
        return False
    try:
        return remove_all(path) is None
    finally:
        os.close(lock)


def remove_all(path: str) -> Optional[str]:
    """Remove the folder; why not, or None. Links in it go, and what they point at stays."""
    for folder, names, _ in os.walk(path):
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                try:
                    os.chmod(os.path.join(folder, name), 0o700)  # a job may have made it read-only
                except OSError:
                    pass
    try:
        remove_tree(path)
    except OSError as error:
        return "not all of it could be removed: %s" % from_os(error).message
    return None
