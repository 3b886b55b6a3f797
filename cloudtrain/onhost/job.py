"""The job's process."""

from __future__ import annotations

import os
import sys

from .base import LINUX, TYPE_CHECKING, UNKILLABLE_S, Later
from .container import argv_of
from .files import Run
from .processes import end_processes, send

if TYPE_CHECKING:
    import ctypes
    import shutil
    import signal
    import subprocess
    from typing import Any, Callable, Dict, List, Optional
else:
    ctypes = Later("ctypes")
    shutil = Later("shutil")
    signal = Later("signal")
    subprocess = Later("subprocess")

JOB_VARIABLES = ("CLOUDTRAIN_OUT", "CLOUDTRAIN_EVENTS", "CLOUDTRAIN_RUN", "CLOUDTRAIN_RESUME")


class Job:
    """The job's process, and the orphans of it that come to this supervisor."""

    def __init__(self, run: Run, spec: Dict[str, Any], lock: int, secrets: Dict[str, str]) -> None:
        self.code: Optional[int] = None
        environment = {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}
        if sys.platform == "win32":
            # The log is UTF-8 everywhere, and a bar of block characters is no reason to die.
            environment.setdefault("PYTHONUTF8", "1")
        if spec.get("bin"):
            if os.path.exists(os.path.join(os.path.dirname(spec["bin"]), "pyvenv.cfg")):
                environment["VIRTUAL_ENV"] = os.path.dirname(spec["bin"])
            environment["PATH"] = os.pathsep.join(filter(None, [spec["bin"], environment.get("PATH")]))
        told = {
            **spec["env"],
            **secrets,
            "CLOUDTRAIN_OUT": run.path("out"),
            "CLOUDTRAIN_EVENTS": run.path("events.jsonl"),
            "CLOUDTRAIN_RUN": run.dir,
            "PYTHONUNBUFFERED": "1",
        }
        if spec.get("imports"):
            # Absolute: a script may go elsewhere before it starts Python.
            imports = os.path.join(run.path("code"), *spec["imports"].split("/"))
            shells = None if spec.get("container") else environment.get("PYTHONPATH")
            before = told.get("PYTHONPATH", shells)
            told["PYTHONPATH"] = os.pathsep.join(filter(None, [imports, before]))
        argv, cwd, dies_by = spec["argv"], os.path.join(run.path("code"), spec.get("cwd") or ""), 9
        if spec.get("container"):
            argv, dies_by = argv_of(run, spec, cwd, told), signal.SIGTERM  # which docker passes on
            told.pop("HOME", None)
        environment.update(told)
        log = os.open(
            run.path("console.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644
        )
        options: Dict[str, Any] = {
            "cwd": cwd,
            "env": environment,
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
        }
        self._windows_job: Any = None
        try:
            if sys.platform == "win32":
                self._process = self._spawn_windows(argv, options)
            else:
                self._process = subprocess.Popen(
                    argv, start_new_session=True, pass_fds=(lock,), preexec_fn=die_with_parent(dies_by), **options
                )
        except OSError as error:
            os.write(log, ("cloudtrain: cannot run %s: %s\n" % (argv[0], error.strerror)).encode("utf-8", "replace"))
            raise
        finally:
            os.close(log)
        self.pid = self._process.pid

    def _spawn_windows(self, argv: List[str], options: Dict[str, Any]) -> subprocess.Popen[bytes]:
        """Started suspended, so that it is inside the job object before it can start anything itself."""
        suspended, no_breakaway_group = 0x4, 0x200
        # Windows looks a program up in this process's PATH.
        argv = [shutil.which(argv[0], path=options["env"].get("PATH")) or argv[0], *argv[1:]]
        process = subprocess.Popen(argv, creationflags=suspended | no_breakaway_group, **options)
        if sys.platform == "win32":
            from .windows import windows_job_object

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


def die_with_parent(number: int) -> Optional[Callable[[], None]]:
    """What a child does before it becomes the job: ask Linux to get this signal when its parent dies."""
    if not LINUX:
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(1, number, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(127)

    return before_exec
