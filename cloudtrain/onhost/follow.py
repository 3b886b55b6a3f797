"""The verb `follow`: log, events and what else happens to a run, as it happens."""

from __future__ import annotations

import os
import select
import sys
import time

from .base import CHUNK, LINUX, TYPE_CHECKING, Later, Options, whole_number
from .files import Run, file_size, load
from .processes import look
from .stream import frame, read_tail, whole_lines

if TYPE_CHECKING:
    import ctypes
    import subprocess
    import threading
    from typing import Any, Callable, Dict, List, Optional
else:
    ctypes = Later("ctypes")
    subprocess = Later("subprocess")
    threading = Later("threading")

LOOK_EVERY_S = 0.5
GPU_EVERY_S = 2


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
            index, *numbers = map(whole_number, parts)
            if len(parts) == 4 and index is not None:
                busy, used, total = numbers
                self._rows[index] = {"busy": busy, "used_mib": used, "total_mib": total, "at": time.monotonic()}

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
