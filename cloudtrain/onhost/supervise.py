"""The detached process around the job: starts it, ends it when asked or at its deadline, writes how it ended."""

from __future__ import annotations

import json
import os
import select
import sys
import time

from .base import CHUNK, LINUX, TYPE_CHECKING, Failure, Later, Options, uptime
from .files import Run, file_size, hash_file, load, save
from .job import Job
from .lease import lease_of, power_off_unless_wanted
from .locks import take
from .processes import boot_id, end_processes, oom_kills, start_of
from .results import Results
from .spot import SpotWatch
from .stop import intend

if TYPE_CHECKING:
    import ctypes
    import signal
    from typing import Any, Dict, List, Optional
else:
    ctypes = Later("ctypes")
    signal = Later("signal")

TICK_S = 0.1
# What is left of the job's processes when the job itself has ended gets this long between SIGTERM and SIGKILL.
LEFTOVER_GRACE_S = 2.0
# Codes of a job that ended by SIGTERM, and how long its supervisor may take to hear of the same shutdown, in seconds.
TOLD_TO_END = (-15, 143)
HEARS_WITHIN_S = 1.0
# A value of fewer bytes is not looked for in the log: too much else there is the same.
SHORTEST_SECRET = 6
# So often at most it is noted that one stands there.
MOST_PLACES = 1000
# Set aside while the job runs, so that exit.json fits on a disk which the job has filled.
RESERVE = 256 * 1024


def do_supervise(options: Options) -> None:
    run = Run(options.run)
    try:
        supervise(run, options.lock)
    except BaseException:
        # Never leave a job without its supervisor.
        end_processes(run, grace=0.0, supervisor=os.getpid())
        raise


def supervise(run: Run, lock: int) -> None:
    """Start the job, end it when asked or at its deadline, and write how it ended."""
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    if sys.platform == "win32" and take(run.path("lock"), wait=10.0) is None:
        raise Failure("locked", "another supervisor has this run")
    signals = Signals()
    if LINUX:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    spec = load(run.path("spec.json")) or {}
    secrets: Dict[str, str] = json.loads(sys.stdin.buffer.read() or b"{}")
    before = oom_kills()
    job = start_job(run, spec, lock, secrets)
    os.write(answer, json.dumps({"state": "running" if job else "exited", "pid": job and job.pid}).encode() + b"\n")
    os.close(answer)
    if job is None:
        return

    ending, times = Ending(run, spec, signals), LogTimes(run, spec)
    while True:
        job.reap()
        if job.code is not None or ending.is_over():
            break
        if ending.begins():
            job.ask_to_end()
        times.note()
        signals.wait(TICK_S)
    if job.code in TOLD_TO_END:
        ending.join_the_machines()
    job.end_all(run, ending.grace_left())
    times.note(last=True)
    code = -9 if job.code is None else job.code
    told: Dict[str, Any] = {**how_killed(code, before), **secrets_in(run.path("console.log"), secrets)}
    write_exit(run, spec, code, ending.stop["reason"] if ending.stop else None, **told)
    if spec.get("lingers") and sys.platform != "win32":
        os.close(lock)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        power_off_unless_wanted(run, spec["ends"] or 0.0)


def start_job(run: Run, spec: Dict[str, Any], lock: int, secrets: Dict[str, str]) -> Optional[Job]:
    """The running job, on record in job.json; None: it cannot be run, and the run has its exit record."""
    os.makedirs(run.path("out"), exist_ok=True)
    open(run.path("events.jsonl"), "ab").close()
    reserve(run)
    record = {"v": 1, "supervisor": os.getpid(), "supervisor_start": start_of(os.getpid()), "boot_id": boot_id()}
    save(run.path("job.json"), {**record, "job": None})
    try:
        job = Job(run, spec, lock, secrets)
    except OSError:
        write_exit(run, spec, 127, None)
        return None
    save(run.path("job.json"), {**record, "job": job.pid})
    return job


class Signals:
    """The signals that this process gets: each ends a `wait`, and SIGTERM asks it to end."""

    def __init__(self) -> None:
        self.asked_to_end = False
        self._wake: Optional[int] = None
        if sys.platform == "win32":
            return
        self._wake, writing = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked_to_end = True

    def wait(self, seconds: float) -> None:
        if self._wake is None:
            time.sleep(seconds / 2)
        elif select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 4096)


class Ending:
    """Why and when the job is to end: what `stop` asks for, a spot notice, the machine's shutdown, the deadline."""

    def __init__(self, run: Run, spec: Dict[str, Any], signals: Signals) -> None:
        # The stop that stands, as in stop.json; None: nobody has asked for one.
        self.stop: Optional[Dict[str, Any]] = None
        self._run, self._spec, self._signals = run, spec, signals
        self._spot = SpotWatch(run) if spec.get("spot") else None
        # `time.monotonic` at which what is left of the job is killed, once there is a stop.
        self._kill_at = 0.0

    def begins(self) -> bool:
        """Look for a reason to end; whether one has just been found."""
        taken_at = self._spot.kill_at if self._spot else None
        found = False
        if self.stop is None:
            left = None if taken_at is None else max(0.0, taken_at - time.monotonic())
            self.stop = load(self._run.path("stop.json")) or self._due(left)
            found = self.stop is not None
            if self.stop:
                self._kill_at = time.monotonic() + float(self.stop.get("grace", self._spec["grace"]))
        if taken_at is not None:
            # Whatever was promised before: the machine goes.
            self._kill_at = min(self._kill_at, taken_at)
        return found

    def is_over(self) -> bool:
        """Whether the job was asked to end, and its grace is over."""
        return self.stop is not None and time.monotonic() >= self._kill_at

    def join_the_machines(self) -> None:
        """A job ended by SIGTERM: find the stop that this belongs to; none: somebody has sent it that signal alone.

        A machine that goes down tells all its programs at once, and the job may be quicker to end than its supervisor
        to hear.
        """
        if self.stop is not None:
            return
        limit = time.monotonic() + HEARS_WITHIN_S
        while not self._signals.asked_to_end and time.monotonic() < limit:
            self._signals.wait(TICK_S)
        self.stop = load(self._run.path("stop.json")) or (self._due() if self._signals.asked_to_end else None)
        self._kill_at = time.monotonic() + LEFTOVER_GRACE_S

    def grace_left(self) -> float:
        """Seconds for what is left of the run, between SIGTERM and SIGKILL."""
        return LEFTOVER_GRACE_S if self.stop is None else max(0.0, self._kill_at - time.monotonic())

    def _due(self, spot_left: Optional[float] = None) -> Optional[Dict[str, Any]]:
        """The stop that a spot notice, shutdown or the deadline asks for, the latter by the time that this machine is
        up: its clock may be wrong, or be set meanwhile.

        `spot_left`: seconds that the notice leaves to the job; None: there is none.
        """
        ends, grace = self._spec["ends"], self._spec["grace"]
        if spot_left is not None:
            reason, grace = "spot", spot_left
        elif self._signals.asked_to_end:
            reason = "shutdown"
        elif ends is not None and uptime() >= max(ends, lease_of(self._run).get("ends") or 0.0):
            reason = "deadline"
        else:
            return None
        try:
            intend(self._run, reason, grace)
        except OSError:
            pass  # A full disk must not keep a job alive past its deadline.
        return load(self._run.path("stop.json")) or {"reason": reason, "grace": grace}


class LogTimes:
    """When which byte of the log came, to a second: `console.times`, a line `UNIX_SECONDS BYTES` where it has grown."""

    def __init__(self, run: Run, spec: Dict[str, Any]) -> None:
        self._log, self._path = run.path("console.log"), run.path("console.times")
        self._spec = spec
        self._size = 0
        self._next = 0.0

    def note(self, last: bool = False) -> None:
        """Write down how long the log is, at most once a second."""
        if time.monotonic() < self._next and not last:
            return
        self._next = time.monotonic() + 1.0
        size = file_size(self._log)
        if size <= self._size:
            return
        self._size = size
        try:
            with open(self._path, "ab") as file:
                file.write(b"%.1f %d\n" % (now(self._spec), size))
        except OSError:
            pass  # The times are a convenience: a full disk is the log's to tell.


def now(spec: Dict[str, Any]) -> float:
    """Unix seconds by the clock of whoever started the run: what is told of it is read by that one."""
    return float(spec["zero"]) + uptime()


def reserve(run: Run) -> None:
    try:
        with open(run.path("reserve"), "wb") as file:
            file.write(b"\0" * RESERVE)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        pass


def how_killed(code: int, oom_kills_before: Optional[int]) -> Dict[str, Any]:
    """What the exit record says beyond a signal's number, which is not the same everywhere."""
    told: Dict[str, Any] = {}
    try:
        if code < 0:
            told["signal_name"] = signal.Signals(-code).name
    except ValueError:
        pass  # one of those that have no name
    after = oom_kills()
    if after is not None and oom_kills_before is not None:
        told["oom_kills"] = after - oom_kills_before
    return told


def secrets_in(path: str, secrets: Dict[str, str]) -> Dict[str, Any]:
    """Of the exit record: `secrets`, where in the log the value of one stands, that whoever shows the log later can
    hide it without knowing it. A value of several lines is looked for line by line, short ones are not."""
    lines = [(name, os.fsencode(line)) for name, value in secrets.items() for line in value.splitlines()]
    lines = [(name, line) for name, line in lines if len(line.strip()) >= SHORTEST_SECRET]
    found: List[Dict[str, Any]] = []
    most, before, data = max([len(line) for _, line in lines] or [0]), 0, b""
    try:
        with open(path, "rb") as file:
            while lines and len(found) < MOST_PLACES:
                chunk = file.read(CHUNK)
                if not chunk:
                    break
                # What may be the beginning of one is looked at again, with what follows it.
                kept = data[len(data) - most + 1 :] if len(data) >= most else data
                before, data = before + len(data) - len(kept), kept + chunk
                for name, line in lines:
                    at = data.find(line)
                    while at >= 0:
                        if at + len(line) > len(kept):
                            found.append({"name": name, "at": before + at, "bytes": len(line)})
                        at = data.find(line, at + len(line))
    except OSError:
        pass  # No log, no secret in it.
    return {"secrets": found[:MOST_PLACES]} if found else {}


def write_exit(run: Run, spec: Dict[str, Any], code: int, reason: Optional[str], **more: Any) -> None:
    """The exit record, once nothing can write to the run any more, and the manifest before it."""
    try:
        os.unlink(run.path("reserve"))
    except OSError:
        pass
    open(run.path("console.log"), "ab").close()
    with open(run.path("console.log"), "rb+") as file:
        os.fsync(file.fileno())
    size, sha256 = hash_file(run.path("console.log"))
    open(run.path("events.jsonl"), "ab").close()
    events_size, events_sha256 = hash_file(run.path("events.jsonl"))
    record = {
        "v": 1,
        "code": code,
        "signal": -code if code < 0 else None,
        "at": now(spec),
        "log_bytes": size,
        "log_sha256": sha256,
        "events_bytes": events_size,
        "events_sha256": events_sha256,
        "stop": reason,
        **more,
    }
    try:
        save(
            run.path("out/MANIFEST.json"),
            {"v": 1, "files": list(Results(run, over=True, most=spec.get("most")).files())},
        )
    except Exception as error:  # whatever the job has made of its folder: how it ended is to be told
        sys.stderr.write("MANIFEST.json was not written: %s\n" % error)
    for attempt in range(60):
        try:
            save(run.path("exit.json"), record)
            return
        except OSError as error:
            sys.stderr.write("exit.json was not written: %s\n" % error)
            time.sleep(1)
