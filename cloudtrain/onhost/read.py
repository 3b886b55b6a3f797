"""What a run has by now: the verbs `poll`, `manifest`, `send` and `read`."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys

from .base import CHUNK, TYPE_CHECKING, Failure, Later, Options, from_os
from .files import Run, as_bytes, check_name, file_size, load, touch
from .processes import look
from .results import Results
from .stream import frame, read_tail, whole_lines, write_all

if TYPE_CHECKING:
    import binascii
    import zlib
    from typing import Any, Dict, List
else:
    binascii = Later("binascii")
    zlib = Later("zlib")

POLL_CHUNK = 1024 * 1024
# Of a file in a frame: what a cut link loses.
PIECE = 32 * 1024


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


def do_manifest(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    over = look(run)[0] != "running"
    results = Results(run, over, options.most)
    answer: Dict[str, Any] = {"files": list(results.files()), "links": results.links}
    if run.results is not None:
        answer.update(growing=results.growing, beside=results.beside() if over else [])
    return answer


def do_send(options: Options) -> None:
    """Many files in one stream of frames: of each its bytes from an offset on, in pieces, the last one empty."""
    run = Run(options.run)
    asked = json.loads(zlib.decompress(binascii.a2b_base64(options.files)).decode())
    for number, (name, offset, most) in enumerate(asked):
        try:
            handle = open_result(run, name)
        except (Failure, OSError) as error:
            failure = error if isinstance(error, Failure) else from_os(error)
            frame({"k": "withheld", "i": number, "why": failure.message})
            continue
        try:
            os.lseek(handle, offset, os.SEEK_SET)
            while True:
                chunk = os.read(handle, min(PIECE, most))
                frame({"k": "file", "i": number, "n": len(chunk)}, chunk)
                most -= len(chunk)
                if not chunk:
                    break
        finally:
            os.close(handle)
        touch(run)


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
    failures = []
    for given in dict.fromkeys((name, as_bytes(name))):
        for parts in places_of(run, given):
            try:
                return open_plain(run, parts, name)
            except Failure as failure:
                failures.append(failure)
    raise next((failure for failure in failures if failure.code != "no_such_file"), failures[0])


def places_of(run: Run, name: str) -> List[List[str]]:
    """Where the file that is told by `name` may lie below the run directory, as `Results` names them."""
    parts = check_name(name).split("/")
    if name in ("console.log", "console.times", "events.jsonl", "exit.json", "spec.json"):
        return [parts]
    if parts[0] != "out" or len(parts) < 2:
        raise Failure("refused", "%r is not a file that is given out" % name)
    if run.results is None:
        return [parts]
    folder, inner = ["code", *run.results.split("/")], parts[1:]
    return [parts, folder + inner, *([inner] if inner[: len(folder)] == folder else [])]


def open_plain(run: Run, parts: List[str], name: str) -> int:
    """Open the plain file at `parts` below the run directory, told by `name`."""
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
