"""The on-host half of cloudtrain: receives the code, runs the job detached, and tells what became of it.

One file, standard library only, any Python from 3.8 on, Linux, macOS and Windows. It is sent to the host and runs there
on whatever interpreter the host has, so it imports nothing of cloudtrain. docs/structure.md, "On the host", is its
contract: folders, verbs, frames.

    python3 supervise.py VERB --run RUN_DIR [options]
    python3 -c IMPORTED VERB --run RUN_DIR [options]        the same, from RUN_DIR and without compiling it again

Reading order: `main`, the verbs (`do_...`), then `supervise`, which is the detached process around the job.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import stat
import sys
import time

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Later:
    """A module that is imported when something of it is first used: most verbs need few, and each must start fast."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(__import__(self._name), name)
        setattr(self, name, value)
        return value


TYPE_CHECKING = False  # What `typing` has by this name, without the import of it.
if TYPE_CHECKING:
    import binascii
    import ctypes
    import hashlib
    import shutil
    import signal
    import subprocess
    import tarfile
    import threading
    import zlib
    from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple
else:
    binascii, ctypes, hashlib, shutil = Later("binascii"), Later("ctypes"), Later("hashlib"), Later("shutil")
    signal, subprocess, tarfile = Later("signal"), Later("subprocess"), Later("tarfile")
    threading, zlib = Later("threading"), Later("zlib")

LINUX = sys.platform.startswith("linux")

CHUNK = 256 * 1024
# What a pipe holds. Memory for a larger read is mapped and given back at every read, which costs more than the read.
PIPE = 64 * 1024
POLL_CHUNK = 1024 * 1024
# A line of events.jsonl longer than this is sent in pieces, or one endless line would hold back all that follow it.
LONGEST_LINE = 1024 * 1024
HEADER_LIMIT = 64 * 1024 * 1024
TICK_S = 0.1
LOOK_EVERY_S = 0.5
# What is left of the job's processes when the job itself has ended gets this long between SIGTERM and SIGKILL.
LEFTOVER_GRACE_S = 2.0
# Codes of a job that ended by SIGTERM, and how long its supervisor may take to hear of the same shutdown, in seconds.
TOLD_TO_END = (-15, 143)
HEARS_WITHIN_S = 1.0
# A process in an uninterruptible system call survives SIGKILL until the call returns; nobody waits longer for it.
UNKILLABLE_S = 30.0
TREE_WAIT_S = 60.0
# Set aside while the job runs, so that exit.json fits on a disk which the job has filled.
RESERVE = 256 * 1024
# A supervisor that waits to power its machine off gives up so long after the ends of job and deadline, in seconds: by
# then the machine's own lease has ended it, or never will.
LINGERS_S = 24 * 3600.0
# EC2 announces the end of a spot instance about two minutes ahead, at this address, and advises to ask every 5 s.
METADATA = "http://169.254.169.254"
GPU_EVERY_S = 2
SPOT_LEAD_S = 120.0
SPOT_EVERY_S = 5.0
# All asking is done beside the job, so these only bound what one question may take.
METADATA_TIMEOUT_S = 2.0
METADATA_LIMIT = 64 * 1024
TOKEN_S = 6 * 3600
# Of the announced time so much is kept for the hashes, the manifest and exit.json; of a short one a part.
SPOT_MARGIN_S = 10.0
SPOT_MARGIN_PART = 0.25
# A job whose machine's time is over by the clock, which may be wrong, gets this long to save all the same.
SPOT_LEAST_S = 2.0
# Verbs of a client that wants something of the run: while one of them comes now and then, the machine stays on.
LOOKS = ("poll", "follow", "stop", "lease", "manifest", "read")
# The argument of `-c` that runs a verb from a run directory: imported from there, it is compiled once only.
IMPORTED = "import sys;sys.path.append(sys.argv[3]);import supervise;supervise.leave(supervise.main())"
JOB_VARIABLES = ("CLOUDTRAIN_OUT", "CLOUDTRAIN_EVENTS", "CLOUDTRAIN_RUN", "CLOUDTRAIN_RESUME")


class Options:
    """The verb and its options, as attributes."""

    def __init__(self, verb: str, values: Dict[str, Any]) -> None:
        self.verb = verb
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values[name]


class Failure(Exception):
    """A refusal that the client can act on: `code` is stable, `message` is one line for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def from_os(error: OSError) -> Failure:
    """The failure that an operating system error means."""
    where = " (%s)" % error.filename if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failure("disk_full", "the disk of the host is full%s" % where)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failure("not_writable", "the host refuses access: %s%s" % (error.strerror, where))
    return Failure("host_error", "the host failed: %s%s" % (error.strerror or error, where))


# --- files -----------------------------------------------------------------------------------------------------------


class Run:
    """Names of everything in one run directory."""

    def __init__(self, folder: str) -> None:
        self.dir = os.path.realpath(folder)
        self.workdir = os.path.dirname(os.path.dirname(self.dir))

    def path(self, name: str) -> str:
        return os.path.join(self.dir, name)


def load(path: str) -> Optional[Dict[str, Any]]:
    """The JSON object in `path`, or None where there is none (yet)."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        # Windows refuses to open a file at the moment of its replacement; all these files are written whole.
        return None
    return value if isinstance(value, dict) else None


def save(path: str, value: Dict[str, Any], first_only: bool = False) -> bool:
    """Put `value` at `path` whole or not at all, durably. `first_only`: keep what is there; False if something was."""
    aside = "%s.%d.part" % (path, os.getpid())
    try:
        with open(aside, "wb") as file:
            file.write(json.dumps(value).encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if first_only:
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
            except OSError:
                # No hard links on this file system: the gap between look and rename is the price.
                if os.path.exists(path):
                    return False
                replace(aside, path)
        else:
            replace(aside, path)
    finally:
        try:
            os.unlink(aside)
        except OSError:
            pass
    sync_folder(os.path.dirname(path))
    return True


def replace(old: str, new: str) -> None:
    """os.replace; on Windows a reader that has `new` open is waited for."""
    for _ in range(100):
        try:
            return os.replace(old, new)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(0.02)
    os.replace(old, new)


def sync_folder(folder: str) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def hash_file(path: str, target: Optional[str] = None) -> Tuple[int, str]:
    """(bytes, sha256) of what was read from `path`; copied to the new file `target` on the way if that is given."""
    total, size = hashlib.sha256(), 0
    copy = open(target, "xb") if target else None
    try:
        with open(path, "rb") as file:
            while True:
                chunk = file.read(1024 * 1024)
                if not chunk:
                    return size, total.hexdigest()
                total.update(chunk)
                size += len(chunk)
                if copy:
                    copy.write(chunk)
    finally:
        if copy:
            copy.close()


def remove_tree(path: str) -> None:
    """Remove a file, link or folder; nothing there is fine."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.lexists(path):
        shutil.rmtree(path)


def digest_of(files: Dict[str, List[Any]]) -> str:
    """sha256 over `path NUL size NUL sha256 NUL mode LF` in byte order of the paths, numbers in decimal."""
    total = hashlib.sha256()
    for raw, name in sorted((name.encode("utf-8", "surrogateescape"), name) for name in files):
        size, sha256, mode = files[name]
        total.update(b"%s\0%d\0%s\0%d\n" % (raw, size, sha256.encode(), mode))
    return total.hexdigest()


def check_name(name: Any) -> str:
    """`name`, if it is a relative path of plain components on every system."""
    if isinstance(name, str) and name and "\0" not in name and not re.match("[A-Za-z]:", name):
        if os.name != "nt" or not re.search(r'[\\:*?"<>|]', name):
            if not name.startswith("\\") and all(part not in ("", ".", "..") for part in name.split("/")):
                return name
    raise Failure("bad_name", "refused: %r is not a plain relative path" % (name,))


def check_key(key: Any) -> str:
    """`key`, if it can name a folder of `trees/`."""
    if isinstance(key, str) and re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", key):
        return key
    raise Failure("bad_name", "refused: %r cannot be the key of a tree" % (key,))


# --- the lock and the state ------------------------------------------------------------------------------------------


def try_lock(handle: int, shared: bool, byte: int = 0) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(handle, byte, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def unlock(handle: int, byte: int = 0) -> None:
    if sys.platform == "win32":
        os.lseek(handle, byte, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_UN)


def take(path: str, wait: float = 0.0, shared: bool = False, byte: int = 0) -> Optional[int]:
    """Lock `path`; the descriptor, or None where another process holds it for longer than `wait` seconds.

    On POSIX the lock belongs to the open file: a process that inherits the descriptor keeps it held. On Windows it
    belongs to this process alone.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    end = time.monotonic() + wait
    while not try_lock(handle, shared, byte):
        # Whoever only looks (`held`) has it shared for an instant. That is nobody's run, so it is no reason to give up.
        passing = sys.platform != "win32" and not shared and try_lock(handle, True)
        if passing:
            unlock(handle)
        if time.monotonic() >= end + (5 if passing else 0):
            os.close(handle)
            return None
        time.sleep(0.005)
    return handle


def held(path: str) -> bool:
    """Whether a living process has `path` locked for itself."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        # Two processes that look at once disturb each other on Windows, which has no shared lock: look three times.
        for _ in range(3 if os.name == "nt" else 1):
            free = all(try_lock_briefly(handle, byte) for byte in ((0, 1) if os.name == "nt" else (0,)))
            if free:
                return False
            if os.name == "nt":
                time.sleep(0.01)
        return True
    finally:
        os.close(handle)


def try_lock_briefly(handle: int, byte: int) -> bool:
    free = try_lock(handle, True, byte)
    if free:
        unlock(handle, byte)
    return free


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


# --- the processes of a run ------------------------------------------------------------------------------------------


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
    if sys.platform == "win32":
        return True
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


# --- the supervisor --------------------------------------------------------------------------------------------------


def intend(run: Run, reason: str, grace: float) -> None:
    """Record the wish to stop before any signal; the first one stands."""
    save(run.path("stop.json"), {"reason": reason, "at": time.time(), "grace": grace}, first_only=True)


class Job:
    """The job's process, and the orphans of it that come to this supervisor."""

    def __init__(self, run: Run, spec: Dict[str, Any], lock: int) -> None:
        self.code: Optional[int] = None
        environment = {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}
        if sys.platform == "win32":
            # The log is UTF-8 everywhere, and a bar of block characters is no reason to die.
            environment.setdefault("PYTHONUTF8", "1")
        environment.update(spec["env"])
        environment.update(
            CLOUDTRAIN_OUT=run.path("out"),
            CLOUDTRAIN_EVENTS=run.path("events.jsonl"),
            CLOUDTRAIN_RUN=run.dir,
            PYTHONUNBUFFERED="1",
        )
        log = os.open(
            run.path("console.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644
        )
        options: Dict[str, Any] = {
            "cwd": run.path("code"),
            "env": environment,
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
        }
        self._windows_job: Any = None
        try:
            if sys.platform == "win32":
                self._process = self._spawn_windows(spec["argv"], options)
            else:
                self._process = subprocess.Popen(
                    spec["argv"], start_new_session=True, pass_fds=(lock,), preexec_fn=die_with_parent(), **options
                )
        except OSError as error:
            os.write(
                log, ("cloudtrain: cannot run %s: %s\n" % (spec["argv"][0], error.strerror)).encode("utf-8", "replace")
            )
            raise
        finally:
            os.close(log)
        self.pid = self._process.pid

    def _spawn_windows(self, argv: List[str], options: Dict[str, Any]) -> subprocess.Popen[bytes]:
        """Started suspended, so that it is inside the job object before it can start anything itself."""
        suspended, no_breakaway_group = 0x4, 0x200
        process = subprocess.Popen(argv, creationflags=suspended | no_breakaway_group, **options)
        if sys.platform == "win32":
            handle = int(process._handle)  # type: ignore[attr-defined]
            try:
                self._windows_job = windows_job_object(handle)
            finally:
                ctypes.windll.ntdll.NtResumeProcess(ctypes.c_void_p(handle))
        return process

    def reap(self) -> None:
        """Note how the job ended if it has, and bury what else has died."""
        if sys.platform == "win32":
            self.code = self._process.poll()
            return
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self._process.returncode = self.code

    def ask_to_end(self) -> None:
        """SIGTERM to the job alone, which may still save and end its own processes until `grace` is over."""
        if sys.platform == "win32":
            send(self.pid, signal.CTRL_BREAK_EVENT)
        else:
            send(self.pid, signal.SIGTERM)
            send(self.pid, signal.SIGCONT)

    def end_all(self, run: Run, grace: float) -> None:
        """End what is left of the run."""
        if sys.platform == "win32":
            if self._windows_job is not None:
                ctypes.windll.kernel32.TerminateJobObject(self._windows_job, 1)
            else:
                subprocess.call(["taskkill", "/F", "/T", "/PID", str(self.pid)], stdout=subprocess.DEVNULL)
            try:
                self._process.wait(UNKILLABLE_S)
            except subprocess.TimeoutExpired:
                pass
        else:
            end_processes(run, grace, supervisor=os.getpid(), reap=self.reap)
        self.reap()


def die_with_parent() -> Optional[Callable[[], None]]:
    """What a child does before it becomes the job: ask Linux to be killed when its parent dies."""
    if not LINUX:
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(127)

    return before_exec


def windows_job_object(process: int) -> Any:
    """A job object around `process` that ends with the last handle to it, which is this process's."""

    class Basic(ctypes.Structure):
        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", ctypes.c_uint32),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", ctypes.c_uint32),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", ctypes.c_uint32),
            ("SchedulingClass", ctypes.c_uint32),
        ]

    class Extended(ctypes.Structure):
        _fields_ = [
            ("BasicLimitInformation", Basic),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    kernel: Any = getattr(ctypes, "windll").kernel32  # Absent from the module elsewhere.
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    limits = Extended()
    limits.BasicLimitInformation.LimitFlags = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    kernel.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits))
    if not kernel.AssignProcessToJobObject(job, ctypes.c_void_p(process)):
        return None
    return job


def supervise(run: Run, lock: int) -> int:
    """The detached process: starts the job, ends it when asked or at its deadline, and writes how it ended."""
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    if sys.platform == "win32":
        own = take(run.path("lock"), wait=10.0)
        if own is None:
            raise Failure("locked", "another supervisor has this run")
    wake, asked_to_end = install_signals()
    if LINUX:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    spec = load(run.path("spec.json")) or {}
    os.makedirs(run.path("out"), exist_ok=True)
    open(run.path("events.jsonl"), "ab").close()
    reserve(run)
    record = {"v": 1, "supervisor": os.getpid(), "supervisor_start": start_of(os.getpid()), "boot_id": boot_id()}
    save(run.path("job.json"), {**record, "job": None})
    try:
        job = Job(run, spec, lock)
    except OSError:
        write_exit(run, 127, None)
        os.write(answer, json.dumps({"state": "exited", "pid": None}).encode() + b"\n")
        os.close(answer)
        return 0
    save(run.path("job.json"), {**record, "job": job.pid})
    os.write(answer, json.dumps({"state": "running", "pid": job.pid}).encode() + b"\n")
    os.close(answer)

    spot = SpotWatch(run) if spec.get("spot") else None
    times = LogTimes(run)
    stop: Optional[Dict[str, Any]] = None
    kill_at = 0.0
    while True:
        job.reap()
        if job.code is not None or (stop and time.monotonic() >= kill_at):
            break
        taken_at = spot.kill_at if spot else None
        if stop is None:
            left = None if taken_at is None else max(0.0, taken_at - time.monotonic())
            stop = load(run.path("stop.json")) or due(run, spec, asked_to_end(), left)
            if stop:
                kill_at = time.monotonic() + float(stop.get("grace", spec["grace"]))
                job.ask_to_end()
        if taken_at is not None:
            # Whatever was promised before: the machine goes.
            kill_at = min(kill_at, taken_at)
        times.note()
        wait_for(wake, TICK_S)
    if stop is None and job.code in TOLD_TO_END:
        stop = with_its_machine(run, spec, asked_to_end, wake)
        kill_at = time.monotonic() + LEFTOVER_GRACE_S
    if stop:
        grace = max(0.0, kill_at - time.monotonic())
    else:
        grace = LEFTOVER_GRACE_S
    job.end_all(run, grace)
    times.note(last=True)
    write_exit(run, -9 if job.code is None else job.code, stop["reason"] if stop else None)
    if spec.get("lingers") and sys.platform != "win32":
        os.close(lock)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        power_off_unless_wanted(run, float(spec["deadline"] or 0.0))
    return 0


def with_its_machine(
    run: Run, spec: Dict[str, Any], asked_to_end: Callable[[], bool], wake: Optional[int]
) -> Optional[Dict[str, Any]]:
    """The stop that a job which ended by SIGTERM belongs to; None: somebody has sent it that signal alone.

    A machine that goes down tells all its programs at once, and the job may be quicker to end than its supervisor to
    hear.
    """
    limit = time.monotonic() + HEARS_WITHIN_S
    while not asked_to_end() and time.monotonic() < limit:
        wait_for(wake, TICK_S)
    return load(run.path("stop.json")) or (due(run, spec, True) if asked_to_end() else None)


def due(
    run: Run, spec: Dict[str, Any], shutting_down: bool, spot_left: Optional[float] = None
) -> Optional[Dict[str, Any]]:
    """The stop that a spot notice, shutdown or the deadline asks for, the latter by the wall clock: the time that a
    machine sleeps counts.

    `spot_left`: seconds that the notice leaves to the job; None: there is none.
    """
    deadline, grace = spec["deadline"], spec["grace"]
    if spot_left is not None:
        reason, grace = "spot", spot_left
    elif shutting_down:
        reason = "shutdown"
    elif deadline is not None and time.time() >= max(deadline, lease_of(run).get("deadline") or 0.0):
        reason = "deadline"
    else:
        return None
    try:
        intend(run, reason, grace)
    except OSError:
        pass  # A full disk must not keep a job alive past its deadline.
    return load(run.path("stop.json")) or {"reason": reason, "grace": grace}


class LogTimes:
    """When which byte of the log came, to a second: `console.times`, a line `UNIX_SECONDS BYTES` where it has grown."""

    def __init__(self, run: Run) -> None:
        self._log, self._path = run.path("console.log"), run.path("console.times")
        self._size = 0
        self._next = 0.0

    def note(self, last: bool = False) -> None:
        """Write down how long the log is, at most once a second."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + 1.0
        size = file_size(self._log)
        if size <= self._size:
            return
        self._size = size
        try:
            with open(self._path, "ab") as file:
                file.write(b"%.1f %d\n" % (time.time(), size))
        except OSError:
            pass  # The times are a convenience: a full disk is the log's to tell.


class SpotWatch:
    """Asks EC2's metadata service (IMDSv2), beside the job, whether this spot instance is being taken back.

    A service that does not answer is asked again, and nobody hears of it: the job must not suffer from it.
    """

    def __init__(self, run: Run) -> None:
        # `time.monotonic` at which what is left of the job is killed; None: no notice has come.
        self.kill_at: Optional[float] = None
        self._run = run
        self._base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA
        self._token: Optional[str] = None
        self._token_at = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        advised = False
        while True:
            try:
                notice = self._ask("spot/instance-action")
                if notice is not None:
                    return self._taken(utc_of(notice.get("time")))
                if not advised and self._ask("events/recommendations/rebalance") is not None:
                    advised = True
                    tell(self._run, "rebalance", None)
            except Exception:
                # No such service, a proxy in its place, an answer that is none: asked again below.
                self._token = None
            time.sleep(SPOT_EVERY_S)

    def _taken(self, ends: Optional[float]) -> None:
        left = SPOT_LEAD_S - SPOT_EVERY_S if ends is None else min(ends - time.time(), SPOT_LEAD_S)
        left = max(SPOT_LEAST_S, left - min(SPOT_MARGIN_S, SPOT_MARGIN_PART * left))
        self.kill_at = time.monotonic() + left
        tell(self._run, "spot", ends)

    def _ask(self, page: str) -> Optional[Dict[str, Any]]:
        """The JSON object on a page below meta-data/, None where there is no such page."""
        if self._token is None or time.monotonic() - self._token_at > TOKEN_S / 2:
            status, token = self._fetch("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)})
            if status != 200:
                raise OSError("no token")
            self._token, self._token_at = token.strip(), time.monotonic()
        status, text = self._fetch("GET", "meta-data/" + page, {"X-aws-ec2-metadata-token": self._token})
        if status == 404:
            return None
        if status != 200:
            raise OSError("status %d" % status)
        value = json.loads(text)
        return value if isinstance(value, dict) else None

    def _fetch(self, method: str, page: str, headers: Dict[str, str]) -> Tuple[int, str]:
        # Asked directly: this address is the machine's own, and no proxy may come between.
        from http.client import HTTPConnection
        from urllib.parse import urlsplit

        base = urlsplit(self._base)
        connection = HTTPConnection(base.hostname or "", base.port or 80, timeout=METADATA_TIMEOUT_S)
        try:
            connection.request(method, base.path.rstrip("/") + "/latest/" + page, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(METADATA_LIMIT).decode("utf-8")
        finally:
            connection.close()


def utc_of(text: Any) -> Optional[float]:
    """Unix seconds of "2026-11-23T12:34:56Z"; None where it is something else."""
    from calendar import timegm

    try:
        return float(timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except (TypeError, ValueError):
        return None


def tell(run: Run, kind: str, ends: Optional[float]) -> None:
    """Leave word for whoever follows the run; the latest one stands."""
    try:
        save(run.path("notice.json"), {"v": 1, "kind": kind, "at": time.time(), "ends": ends})
    except OSError:
        pass  # The notice itself matters more than that it is told of.


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


def touch(run: Run) -> None:
    """A client looks at the run: where a grace is running, it begins anew."""
    if not os.path.exists(run.path("lease.json")):
        return
    try:
        with open(run.path("touched"), "ab"):
            os.utime(run.path("touched"))
    except OSError:
        pass


def touched_at(run: Run) -> float:
    try:
        return os.stat(run.path("touched")).st_mtime
    except OSError:
        return 0.0


def install_signals() -> Tuple[Optional[int], Callable[[], bool]]:
    """(descriptor that becomes readable at any signal, whether this supervisor was asked to end)."""
    asked: List[int] = []
    if sys.platform == "win32":
        return None, lambda: False
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reading, lambda: bool(asked)


def wait_for(wake: Optional[int], seconds: float) -> None:
    if wake is None:
        time.sleep(seconds / 2)
    elif select.select([wake], [], [], seconds)[0]:
        os.read(wake, 4096)


def reserve(run: Run) -> None:
    try:
        with open(run.path("reserve"), "wb") as file:
            file.write(b"\0" * RESERVE)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        pass


def write_exit(run: Run, code: int, reason: Optional[str]) -> None:
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
        "at": time.time(),
        "log_bytes": size,
        "log_sha256": sha256,
        "events_bytes": events_size,
        "events_sha256": events_sha256,
        "stop": reason,
    }
    try:
        save(run.path("out/MANIFEST.json"), {"v": 1, "files": list(list_outputs(run))})
    except OSError as error:
        sys.stderr.write("MANIFEST.json was not written: %s\n" % error)
    for attempt in range(60):
        try:
            save(run.path("exit.json"), record)
            return
        except OSError as error:
            sys.stderr.write("exit.json was not written: %s\n" % error)
            time.sleep(1)


def list_outputs(run: Run) -> Iterator[Dict[str, Any]]:
    """Name, size and sha256 of each finished file below out/, in the order of their names."""
    top = run.path("out")
    names = []
    for folder, _, files in os.walk(top):
        for file in files:
            path = os.path.join(folder, file)
            name = os.path.relpath(path, top).replace(os.sep, "/")
            if not file.endswith(".part") and name != "MANIFEST.json":
                names.append(name)
    for name in sorted(names):
        try:
            if stat.S_ISREG(os.lstat(os.path.join(top, name)).st_mode):
                size, sha256 = hash_file(os.path.join(top, name))
                yield {"name": name, "size": size, "sha256": sha256}
        except FileNotFoundError:
            pass  # Replaced or removed by the job since it was listed.


# --- verbs -----------------------------------------------------------------------------------------------------------


def do_start(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    spec = check_spec(sys.stdin.buffer.read(HEADER_LIMIT))
    os.makedirs(run.dir, mode=0o700, exist_ok=True)
    lock = take(run.path("lock"), byte=1) if os.name == "nt" else take(run.path("lock"))
    if lock is None:
        return {"state": "running", "started": False, "pid": job_pid(run)}
    try:
        record = load(run.path("exit.json"))
        if record is not None:
            return {"state": "exited", "started": False, "pid": job_pid(run)}
        # Without job.json an earlier start was cut short before anything ran: this one begins anew.
        if os.path.exists(run.path("job.json")):
            end_processes(run, grace=0.0)
            return {"state": "lost", "started": False, "pid": job_pid(run)}
        if os.path.exists(run.path("stop.json")):
            raise Failure("stopped", "this run was asked to stop before it began")
        make_code(run, spec)
        save(run.path("spec.json"), spec)
        return {"started": True, **spawn_supervisor(run, lock)}
    finally:
        os.close(lock)


def job_pid(run: Run) -> Optional[int]:
    # A start that is under way elsewhere writes it in a moment.
    for _ in range(100):
        job = load(run.path("job.json"))
        if (job and job["job"]) or not held(run.path("lock")):
            return job["job"] if job else None
        time.sleep(0.05)
    return None


def check_spec(raw: bytes) -> Dict[str, Any]:
    try:
        spec = json.loads(raw.decode("utf-8"))
        argv, env, deadline, grace = spec["argv"], spec.get("env") or {}, spec.get("deadline"), spec.get("grace", 10)
        good = (
            spec["v"] == 1
            and isinstance(argv, list)
            and bool(argv)
            and all(isinstance(part, str) and "\0" not in part for part in argv)
            and all(isinstance(k, str) and isinstance(v, str) and "\0" not in k + v for k, v in env.items())
            and (deadline is None or isinstance(deadline, (int, float)))
            and isinstance(grace, (int, float))
            and isinstance(spec["digest"], str)
            and isinstance(spec.get("lingers", False), bool)
            and isinstance(spec.get("spot", False), bool)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("bad_spec", "the spec cannot be read: %s" % error)
    if not good:
        raise Failure("bad_spec", "the spec is not of the form that this supervisor knows")
    check_key(spec["tree"])
    return {**spec, "env": env, "deadline": deadline, "grace": grace}


def make_code(run: Run, spec: Dict[str, Any]) -> None:
    """Copy the tree to code/, checking every byte on the way."""
    folder = os.path.join(run.workdir, "trees", spec["tree"])
    if not os.path.isdir(folder):
        raise Failure("tree_changed", "the host has no such tree")
    lock = take(os.path.join(folder, "lock"), wait=TREE_WAIT_S, shared=True)
    if lock is None:
        raise Failure("tree_busy", "another push to the same tree has been under way for %d s" % TREE_WAIT_S)
    aside = run.path("code.part")
    try:
        tree = load(os.path.join(folder, "tree.json"))
        if tree is None or tree["digest"] != spec["digest"]:
            raise Failure("tree_changed", "the tree on the host is not the one that was sent")
        remove_tree(aside)
        remove_tree(run.path("code"))
        os.mkdir(aside)
        for name, (size, sha256, mode) in tree["files"].items():
            source, target = os.path.join(folder, "files", name), os.path.join(aside, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                same = stat.S_ISREG(os.lstat(source).st_mode) and hash_file(source, target) == (size, sha256)
            except FileNotFoundError:
                same = False
            if not same:
                os.unlink(os.path.join(folder, "tree.json"))
                raise Failure("tree_changed", "%s on the host was changed since it was sent" % name)
            os.chmod(target, mode | 0o200)
        os.replace(aside, run.path("code"))
    finally:
        os.close(lock)
        remove_tree(aside)


def spawn_supervisor(run: Run, lock: int) -> Dict[str, Any]:
    verb = ["_supervise", "--run", run.dir, "--lock", str(lock)]
    if os.path.isfile(run.path("supervise.py")):
        argv = [sys.executable, "-I", "-S", "-c", IMPORTED, *verb]
    else:
        argv = [sys.executable, "-I", "-S", os.path.abspath(__file__), *verb]
    options: Dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "cwd": run.dir}
    log = run.path("supervisor.log")
    with open(log, "ab") as errors:
        if sys.platform == "win32":
            # A console of its own that is not shown: the user's can close, and Ctrl-Break can still be sent to the job.
            hidden, group, breakaway = 0x08000000, 0x200, 0x01000000
            try:
                process = subprocess.Popen(argv, stderr=errors, creationflags=hidden | group | breakaway, **options)
            except OSError:
                process = subprocess.Popen(argv, stderr=errors, creationflags=hidden | group, **options)
        else:
            process = subprocess.Popen(argv, stderr=errors, start_new_session=True, pass_fds=(lock,), **options)
    lines: List[bytes] = []
    pipe = process.stdout
    assert pipe is not None
    reader = threading.Thread(target=lambda: lines.append(pipe.readline()), daemon=True)
    reader.start()
    reader.join(60.0)
    # It outlives this process on purpose; without this, Python would warn that it was not waited for.
    process.returncode = 0
    if not lines or not lines[0]:
        with open(log, "rb") as file:
            tail = file.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        raise Failure("start_failed", "the supervisor did not start: %s" % (tail[-1] if tail else "it gave no reason"))
    pipe.close()
    answer: Dict[str, Any] = json.loads(lines[0].decode())
    return answer


def do_supervise(options: Options) -> None:
    run = Run(options.run)
    try:
        supervise(run, options.lock)
    except BaseException:
        # Never leave a job without its supervisor.
        end_processes(run, grace=0.0, supervisor=os.getpid())
        raise


def do_poll(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    state, record = look(run)
    log = read_tail(run.path("console.log"), options.log, POLL_CHUNK)
    events = whole_lines(run.path("events.jsonl"), options.events, POLL_CHUNK)
    return {
        "state": state,
        "exit": record,
        "stop": (load(run.path("stop.json")) or {}).get("reason"),
        "log_size": file_size(run.path("console.log")),
        "events_size": file_size(run.path("events.jsonl")),
        "log": binascii.b2a_base64(log, newline=False).decode(),
        "events": binascii.b2a_base64(events, newline=False).decode(),
    }


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


def do_manifest(options: Options) -> Dict[str, Any]:
    return {"files": list(list_outputs(Run(options.run)))}


# --- follow ----------------------------------------------------------------------------------------------------------


def read_tail(path: str, offset: int, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def whole_lines(path: str, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from `offset` on that end with a line end; a longer line comes in pieces."""
    data = read_tail(path, offset, limit)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == limit and limit < LONGEST_LINE:
        return whole_lines(path, offset, LONGEST_LINE)
    return data if not end and len(data) >= LONGEST_LINE else data[:end]


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def frame(head: Dict[str, Any], payload: bytes = b"") -> None:
    write_all(json.dumps(head).encode() + b"\n" + payload)


class Watch:
    """Waits until something in a run directory changes, the reader of stdout goes away, or time is up."""

    _MASK = 0x2 | 0x8 | 0x80 | 0x100  # IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE

    def __init__(self, folder: str) -> None:
        self._changes = -1
        if sys.platform == "win32":
            return
        self._poll = select.poll()
        self._poll.register(1, 0)  # Errors and hang-up are always told.
        if LINUX:
            libc = ctypes.CDLL(None, use_errno=True)
            try:
                self._changes = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
                if self._changes >= 0 and libc.inotify_add_watch(self._changes, os.fsencode(folder), self._MASK) < 0:
                    os.close(self._changes)
                    self._changes = -1
            except AttributeError:
                pass  # A C library without inotify.
            if self._changes >= 0:
                self._poll.register(self._changes, select.POLLIN)

    def wait(self, seconds: float) -> None:
        if sys.platform == "win32":
            return time.sleep(min(seconds, 0.015))
        if self._changes < 0:
            seconds = min(seconds, 0.015)
        for handle, _ in self._poll.poll(max(0, int(seconds * 1000))):
            if handle == 1:
                raise BrokenPipeError
            try:
                os.read(self._changes, 65536)
            except BlockingIOError:
                pass


class GpuWatch:
    """How busy the GPUs are, as `nvidia-smi` tells it every few seconds; silent where there is none."""

    _ASKED = "--query-gpu=index,utilization.gpu,memory.used,memory.total"

    def __init__(self) -> None:
        self._rows: Dict[int, Dict[str, Any]] = {}
        self._told: Optional[List[Dict[str, Any]]] = None
        self._process: Optional["subprocess.Popen[bytes]"] = None
        # Looked up by hand: `shutil` would be read for nothing on hosts without a GPU.
        places = os.environ.get("PATH", os.defpath).split(os.pathsep)
        names = [os.path.join(place, "nvidia-smi" + (".exe" if os.name == "nt" else "")) for place in places]
        found = [name for name in names if os.access(name, os.X_OK)]
        if not found:
            return
        try:
            self._process = subprocess.Popen(
                [found[0], self._ASKED, "--format=csv,noheader,nounits", "-l", str(GPU_EVERY_S)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            parts = [part.strip() for part in line.decode("ascii", "replace").split(",")]
            if len(parts) == 4 and parts[0].isdigit():
                busy, used, total = [int(part) if part.isdigit() else None for part in parts[1:]]
                self._rows[int(parts[0])] = {"busy": busy, "used_mib": used, "total_mib": total, "at": time.monotonic()}

    def new(self) -> Optional[List[Dict[str, Any]]]:
        """One entry a GPU, if any was read since the last call."""
        rows = [self._rows[index] for index in sorted(self._rows)]
        if not rows or rows == self._told:
            return None
        self._told = rows
        return [{key: row[key] for key in ("busy", "used_mib", "total_mib")} for row in rows]

    def close(self) -> None:
        """End the program that tells."""
        if self._process is not None:
            try:
                self._process.kill()
                self._process.wait(timeout=5)
            except (OSError, subprocess.SubprocessError):
                pass


def do_follow(options: Options) -> None:
    run = Run(options.run)
    offsets = {"log": options.log, "events": options.events}
    files = {"log": "console.log", "events": "events.jsonl"}

    def send_new(last: bool = False) -> bool:
        """`last`: nothing is written any more, so a line without an end is sent as it is."""
        sent = False
        for kind, name in files.items():
            path, offset = run.path(name), offsets[kind]
            size = file_size(path)
            if size < offset:
                frame({"k": "shrunk", "file": name, "size": size})
                offsets[kind] = size
                sent = True
            elif size > offset:
                whole = kind == "events" and not last
                data = whole_lines(path, offset, CHUNK) if whole else read_tail(path, offset, CHUNK)
                for start in range(0, len(data), CHUNK):
                    piece = data[start : start + CHUNK]
                    frame({"k": kind, "o": offset + start, "n": len(piece)}, piece)
                    sent = True
                offsets[kind] = offset + len(data)
        return sent

    def sizes() -> Dict[str, int]:
        return {kind: file_size(run.path(name)) for kind, name in files.items()}

    told: List[Dict[str, Any]] = []

    def send_notice() -> None:
        notice = load(run.path("notice.json"))
        if notice is not None and notice not in told:
            told.append(notice)
            frame({"k": "notice", "kind": notice["kind"], "t": notice["at"], "ends": notice["ends"]})

    gpu = GpuWatch()
    try:
        send_all(run, options, send_new, send_notice, sizes, gpu)
    finally:
        gpu.close()


def send_all(
    run: Run,
    options: Options,
    send_new: Callable[..., bool],
    send_notice: Callable[[], None],
    sizes: Callable[[], Dict[str, int]],
    gpu: "GpuWatch",
) -> None:
    watch = Watch(run.dir)
    next_beat = time.monotonic()
    next_look = 0.0
    while True:
        now = time.monotonic()
        # State first, bytes second: after "exited" there is nothing more to come.
        if now >= next_look or os.path.exists(run.path("exit.json")):
            state, record = look(run)
            next_look = now + LOOK_EVERY_S
            send_notice()
            use = gpu.new()
            if use is not None:
                frame({"k": "gpu", "t": time.time(), "gpus": use})
            if state != "running":
                while send_new(last=state == "exited"):
                    pass
                return frame({"k": "end", "state": state, "exit": record, **sizes()})
        if send_new():
            next_beat = time.monotonic() + options.beat
            continue
        now = time.monotonic()
        if now >= next_beat:
            frame({"k": "beat", "t": time.time(), **sizes()})
            next_beat = now + options.beat
        watch.wait(max(0.001, min(next_beat, next_look) - now))


# --- read ------------------------------------------------------------------------------------------------------------


def do_read(options: Options) -> None:
    """Raw bytes of one file on stdout. A refusal is told on stderr: stdout is the file's alone."""
    run = Run(options.run)
    handle = open_result(run, options.name)
    try:
        size = os.fstat(handle).st_size
        if options.offset > size:
            raise Failure(
                "shrunk", "%s has %d bytes, fewer than the %d asked for" % (options.name, size, options.offset)
            )
        offset = options.offset
        if sys.platform != "win32":
            offset = send_file(run, handle, offset)
        os.lseek(handle, offset, os.SEEK_SET)
        while True:
            chunk = os.read(handle, CHUNK)
            if not chunk:
                return
            write_all(chunk)
    finally:
        os.close(handle)


def send_file(run: Run, handle: int, offset: int) -> int:
    """Have the kernel copy the file to stdout; how far that came (not every kind of stdout can be written so)."""
    if sys.platform != "win32" and hasattr(os, "sendfile"):
        try:
            while True:
                sent = os.sendfile(1, handle, offset, 1024 * 1024)
                if not sent:
                    break
                touch(run)
                offset += sent
        except BrokenPipeError:
            raise
        except OSError:
            pass
    return offset


def open_result(run: Run, name: str) -> int:
    """Open a file that the contract names, following no link on the way to it."""
    parts = check_name(name).split("/")
    given = ("console.log", "console.times", "events.jsonl", "exit.json", "spec.json")
    if name not in given and (parts[0] != "out" or len(parts) < 2):
        raise Failure("refused", "%r is not a file that is given out" % name)
    refusal = Failure("refused", "%r is not a plain file" % name)
    try:
        if os.open in os.supports_dir_fd:
            folder = os.open(run.dir, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for part in parts[:-1]:
                    inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                    os.close(folder)
                    folder = inner
                # Looked at before it is opened: to open a device may already do something.
                if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                    raise refusal
                handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            finally:
                os.close(folder)
        else:
            path = run.dir
            for part in parts:
                path = os.path.join(path, part)
                # A junction of Windows is no link to `islink`, but its real path differs.
                if os.path.islink(path) or os.path.normcase(os.path.realpath(path)) != os.path.normcase(path):
                    raise refusal
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise refusal
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise Failure("no_such_file", "the run has no %s" % name)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise refusal
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise refusal
    return handle


# --- receive ---------------------------------------------------------------------------------------------------------


def do_receive(options: Options) -> Dict[str, Any]:
    folder = os.path.join(os.path.realpath(options.workdir), "trees", check_key(options.tree))
    header = check_header(sys.stdin.buffer.readline(HEADER_LIMIT))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    merged(header, load(os.path.join(folder, "tree.json")))
    size = sum(entry[0] for entry in header["files"].values())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise Failure("disk_full", "the disk of the host is full: %d bytes to receive, %d free" % (size, free))
    # Staged without the tree's lock: a push whose client fell silent keeps nobody else waiting.
    sweep_staging(folder)
    staging = os.path.join(folder, "staging-%d-%s" % (os.getpid(), os.urandom(4).hex()))
    own = take(staging + ".lock", wait=5.0)
    try:
        os.mkdir(staging)
        staged = unpack(header["files"], staging)
        lock = take(os.path.join(folder, "lock"), wait=TREE_WAIT_S)
        if lock is None:
            raise Failure("tree_busy", "another push to the same tree has been under way for %d s" % TREE_WAIT_S)
        try:
            # Another push may have come first: what counts is the tree as it is now.
            files = merged(header, load(os.path.join(folder, "tree.json")))
            commit(folder, files, header, staged)
        finally:
            os.close(lock)
        return {"digest": header["digest"], "files": len(header["files"]), "bytes": size}
    finally:
        remove_staging(staging, own)


def remove_staging(staging: str, lock: Optional[int]) -> None:
    remove_tree(staging)
    if lock is not None:
        os.close(lock)
    remove_tree(staging + ".lock")


def sweep_staging(folder: str) -> None:
    """Remove what killed pushes left behind; a living one holds the lock beside its staging folder."""
    for name in os.listdir(folder):
        if name.startswith("staging-") and name.endswith(".lock"):
            lock = take(os.path.join(folder, name))
            if lock is not None:
                remove_staging(os.path.join(folder, name[: -len(".lock")]), lock)


def check_header(line: bytes) -> Dict[str, Any]:
    if not line.endswith(b"\n"):
        raise Failure("cut_short", "the transfer ended in its header")
    try:
        header = json.loads(line.decode("utf-8"))
        if header["v"] != 1:
            raise Failure("bad_header", "the header is of version %r" % header["v"])
        for name, (size, sha256, mode) in header["files"].items():
            check_name(name)
            if type(size) is not int or size < 0 or type(mode) is not int or not 0 <= mode <= 0o777:
                raise Failure("bad_header", "the header gives %r an impossible size or mode" % name)
            if not isinstance(sha256, str) or not re.match(r"[0-9a-f]{64}\Z", sha256):
                raise Failure("bad_header", "the header gives %r an impossible sha256" % name)
        for name in header.setdefault("delete", []):
            check_name(name)
        if not isinstance(header["digest"], str) or not isinstance(header["base"], (str, type(None))):
            raise Failure("bad_header", "the header gives no digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("bad_header", "the header cannot be read: %s" % error)
    checked: Dict[str, Any] = header
    return checked


def merged(header: Dict[str, Any], tree: Optional[Dict[str, Any]]) -> Dict[str, List[Any]]:
    """The files of the tree as it will be, which must have the digest that the header promises."""
    files: Dict[str, List[Any]] = {}
    if header["base"] is not None:
        if tree is None or tree.get("digest") != header["base"]:
            raise Failure("need_full", "the tree on the host is another one than the changes are against")
        files.update(tree["files"])
    for name in header["delete"]:
        files.pop(name, None)
    files.update(header["files"])
    for name in files:
        above = name.rpartition("/")[0]
        while above:
            if above in files:
                raise Failure("bad_header", "%r is a file and a folder at once" % above)
            above = above.rpartition("/")[0]
    if digest_of(files) != header["digest"]:
        raise Failure("bad_header", "the files of the header do not have the digest that it names")
    return files


class Incoming:
    """The tar inside the gzip stream on stdin, a file that can only go forward. Tells its faults from the disk's."""

    def __init__(self) -> None:
        # 16: a gzip header is expected, and its check sum is verified.
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._packed = b""
        self._plain = b""
        self._taken = 0
        self._at = 0
        self._feed: Any = sys.stdin.buffer

    def some(self, size: int) -> memoryview:
        """At least one byte and at most `size`; none at the end."""
        while self._taken == len(self._plain):
            if self._inflate.eof:
                return memoryview(b"")
            packed = self._packed or self._feed.read1(PIPE)
            try:
                self._plain = self._inflate.decompress(packed, CHUNK)
            except zlib.error as error:
                raise Failure("bad_stream", "what arrived is not a gzip stream: %s" % error)
            self._taken = 0
            self._packed = self._inflate.unconsumed_tail
            if not packed and not self._plain and not self._inflate.eof:
                raise Failure("cut_short", "the transfer was cut short")
        part = memoryview(self._plain)[self._taken : self._taken + size]
        self._taken += len(part)
        self._at += len(part)
        return part

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.some(size)
            if not part:
                break
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def seek(self, position: int) -> None:
        while self._at < position:
            if not self.some(position - self._at):
                return

    def tell(self) -> int:
        return self._at


def unpack(wanted: Dict[str, List[Any]], staging: str) -> Dict[str, str]:
    """Name -> staged file, checked by size and sha256. Staged under numbers: no name of the archive reaches a path."""
    staged: Dict[str, str] = {}
    if not wanted:
        return staged
    incoming = Incoming()
    try:
        with tarfile.TarFile(fileobj=incoming) as archive:  # type: ignore[arg-type]
            for member in archive:
                name = member.name
                if name not in wanted:
                    raise Failure("refused", "%r is not in the header" % name)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise Failure("refused", "%r is a link, a folder or a device, not a plain file" % name)
                if name in staged:
                    raise Failure("refused", "%r arrived twice" % name)
                size, sha256, mode = wanted[name]
                if member.size != size:
                    raise Failure("damaged", "%r arrived with %d bytes, not %d" % (name, member.size, size))
                path = os.path.join(staging, str(len(staged)))
                # The archive stands at the first byte of the member: taken from below it, every byte is touched once.
                if copy_member(incoming, size, path) != sha256:
                    raise Failure("damaged", "%r did not arrive as it was sent" % name)
                # Now and not when it is moved: here the time is the network's, there the client waits for it.
                os.chmod(path, mode | 0o600)
                staged[name] = path
                archive.members = []  # type: ignore[attr-defined]  # Or the archive keeps every member it has passed.
    except tarfile.TarError:
        raise Failure("cut_short", "the transfer was cut short")
    if len(staged) < len(wanted):
        raise Failure("cut_short", "the transfer was cut short: %d of %d files arrived" % (len(staged), len(wanted)))
    return staged


def copy_member(source: Incoming, left: int, path: str) -> str:
    """Write the next `left` bytes to a new file; their sha256, or none where they end early."""
    total = hashlib.sha256()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        while left:
            part = source.some(left)
            if not part:
                return ""
            total.update(part)
            left -= len(part)
            while part:
                part = part[os.write(handle, part) :]
    finally:
        os.close(handle)
    return total.hexdigest()


def commit(folder: str, files: Dict[str, List[Any]], header: Dict[str, Any], staged: Dict[str, str]) -> None:
    """Move what was staged into place. tree.json is away while files change, so half a tree is never taken for one."""
    mark, top = os.path.join(folder, "tree.json"), os.path.join(folder, "files")
    if os.path.exists(mark):
        os.unlink(mark)
        sync_folder(folder)
    if header["base"] is None:
        remove_tree(top)
    os.makedirs(top, exist_ok=True)
    for name in header["delete"]:
        if name not in files:
            delete_below(top, name)
    made: Set[str] = set()
    for name, path in staged.items():
        target = make_parents(top, name, made)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        replace(path, target)
    save(mark, {"v": 1, "digest": header["digest"], "files": files})


def make_parents(top: str, name: str, made: Set[str]) -> str:
    """The path of `name` below `top`, with real folders all the way: a file or link in between gives way.

    `made`: the folders that were looked at before, to which this adds.
    """
    path = top
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if path in made:
            continue
        made.add(path)
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            os.unlink(path)
        if not os.path.isdir(path):
            os.mkdir(path)
    return os.path.join(path, name.rpartition("/")[2])


def delete_below(top: str, name: str) -> None:
    """Remove the file `name`, and the folders that this leaves empty."""
    path = top
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path) or not os.path.isdir(path):
            return
    target = os.path.join(path, name.rpartition("/")[2])
    if os.path.isdir(target) and not os.path.islink(target):
        return
    if os.path.lexists(target):
        os.unlink(target)
    while path != top:
        try:
            os.rmdir(path)
        except OSError:
            return
        path = os.path.dirname(path)


# --- probe -----------------------------------------------------------------------------------------------------------

LOOK_FOR_TORCH = r"""
import json, os, re, sys
sys.path[:] = [p for p in sys.path if p]
torch = cuda = None
def told(name):
    found = re.search(r"^%s\b[^=]*=\s*['\"]([^'\"]+)" % name, text, re.M)
    return found.group(1) if found else None
try:
    from importlib.util import find_spec
    spec = find_spec("torch")
    with open(os.path.join(os.path.dirname(spec.origin), "version.py")) as file:
        text = file.read()
    cuda, torch = told("cuda"), told("__version__")
except Exception:
    pass
if not torch:
    # What imports as much again as all the rest.
    try:
        from importlib.metadata import version
        torch = version("torch")
    except Exception:
        pass
print(json.dumps({"version": sys.version.split()[0], "path": sys.executable, "torch": torch, "cuda": cuda}))
"""


def do_probe(options: Options) -> Dict[str, Any]:
    chosen: Optional[Dict[str, Any]] = None
    for candidate in list(options.python) + [sys.executable]:
        found = ask_python(os.path.expanduser(candidate))
        if found and (chosen is None or (found["torch"] and not chosen["torch"])):
            chosen = found
        if chosen and chosen["torch"]:
            break
    if chosen is None:
        raise Failure("no_python", "no Python on the host can be run")
    driver, gpus = ask_nvidia()
    home = os.path.expanduser("~")
    return {
        "python": {"version": chosen["version"], "path": chosen["path"]},
        "torch": chosen["torch"],
        "cuda": chosen["cuda"],
        "driver": driver,
        "gpus": gpus,
        "cpus": cpu_count(),
        "disk_free": shutil.disk_usage(existing_part(options.workdir or home)).free,
        "os": os_name(),
        "home": home,
        "boot_id": boot_id(),
    }


def ask_python(path: str) -> Optional[Dict[str, Any]]:
    try:
        out = subprocess.run(
            [path, "-c", LOOK_FOR_TORCH],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
        ).stdout
        answer: Dict[str, Any] = json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])
        return answer
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def ask_nvidia() -> Tuple[Optional[str], List[Dict[str, Any]]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, []
    try:
        out = subprocess.run(
            [program, "--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        ).stdout.decode("utf-8", "replace")
        rows = [[part.strip() for part in line.split(",", 2)] for line in out.splitlines() if line.count(",") >= 2]
        gpus = [{"name": row[2], "memory_mib": int(row[1]) if row[1].isdigit() else None} for row in rows]
        return (rows[0][0] if rows else None), gpus
    except (OSError, subprocess.SubprocessError):
        return None, []


def cpu_count() -> int:
    if LINUX:
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def existing_part(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def os_name() -> str:
    import platform

    try:
        with open("/etc/os-release") as file:
            found = re.search(r'^PRETTY_NAME="?([^"\n]+)', file.read(), re.M)
            if found:
                return found.group(1)
    except OSError:
        pass
    if sys.platform == "darwin":
        return "macOS " + platform.mac_ver()[0]
    return (platform.system() + " " + platform.release()).strip()


# --- main ------------------------------------------------------------------------------------------------------------


def number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


# Verb -> what it does and its options: how each is read, and what it is where it is not given. `...`: it must be given.
RUN: Dict[str, Any] = {"run": (str, ...)}
OFFSETS: Dict[str, Any] = {"log": (number, 0), "events": (number, 0)}
VERBS: Dict[str, Tuple[Callable[[Options], Optional[Dict[str, Any]]], Dict[str, Any]]] = {
    "probe": (do_probe, {"run": (str, None), "python": (str, []), "workdir": (str, None)}),
    "receive": (do_receive, {"run": (str, None), "workdir": (str, ...), "tree": (str, ...)}),
    "start": (do_start, RUN),
    "_supervise": (do_supervise, {**RUN, "lock": (int, ...)}),
    "poll": (do_poll, {**RUN, **OFFSETS}),
    "follow": (do_follow, {**RUN, **OFFSETS, "beat": (float, 5.0)}),
    "stop": (do_stop, {**RUN, "reason": (str, "user"), "grace": (float, 10.0)}),
    "lease": (do_lease, {**RUN, "deadline": (float, None), "grace": (float, None)}),
    "manifest": (do_manifest, RUN),
    "read": (do_read, {**RUN, "name": (str, ...), "offset": (number, 0)}),
}


def parse(argv: List[str]) -> Options:
    """`VERB --option value --option=value ...`; argparse would take longer to import than most verbs take."""
    if not argv or argv[0] not in VERBS:
        raise Failure("usage", "a verb is expected first: %s" % ", ".join(v for v in VERBS if v[0] != "_"))
    verb, *rest = argv
    known = VERBS[verb][1]
    values = {name: list(value) if isinstance(value, list) else value for name, (_, value) in known.items()}
    while rest:
        name, given, text = rest.pop(0).partition("=")
        if not name.startswith("--") or name[2:] not in known:
            raise Failure("usage", "%s has no argument %s" % (verb, name))
        if not given:
            if not rest:
                raise Failure("usage", "a value is expected after %s" % name)
            text = rest.pop(0)
        read = known[name[2:]][0]
        try:
            value = read(text)
        except ValueError:
            raise Failure("usage", "%r is no value for %s" % (text, name))
        if isinstance(values[name[2:]], list):
            values[name[2:]].append(value)
        else:
            values[name[2:]] = value
    missing = ["--" + name for name, value in values.items() if value is ...]
    if missing:
        raise Failure("usage", "%s needs %s" % (verb, " and ".join(missing)))
    return Options(verb, values)


def main(argv: Optional[List[str]] = None) -> int:
    """Run one verb; its exit code. Answers and refusals are one JSON line (the two streaming verbs: see `refuse`)."""
    if sys.platform == "win32":
        for handle in (0, 1):
            msvcrt.setmode(handle, os.O_BINARY)
    options = None
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        looks = options.verb in LOOKS
        if looks:
            touch(Run(options.run))
        answer = VERBS[options.verb][0](options)
        if looks:
            touch(Run(options.run))
        if answer is not None:
            frame({"ok": True, **answer})
        return 0
    except BrokenPipeError:
        return 1  # The client went away; nobody is left to tell.
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        return refuse(options, failure)
    except OSError as error:
        return refuse(options, from_os(error))


def refuse(options: Optional[Options], failure: Failure) -> int:
    """Tell the client why not: on stdout, or on stderr where stdout carries a file's bytes or frames."""
    line = json.dumps({"ok": False, "code": failure.code, "message": failure.message}).encode() + b"\n"
    try:
        if options is not None and options.verb in ("read", "follow", "_supervise"):
            os.write(2, line)
        else:
            write_all(line)
    except OSError:
        pass
    return 1


def leave(code: int) -> None:
    """End this process without taking the interpreter apart first, which would take a sixth of a short verb's time."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
