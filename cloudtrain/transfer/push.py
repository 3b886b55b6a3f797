"""The push: one program start on the host brings the supervisor and what changed of the tree.

    stdin of `python -I -S -c BOOT`:  {"supervise": n, "load": LOADER} LF   n bytes: supervise.py, zlib
                                header of `receive` LF                gzip tar of the changed files

BOOT reads the first line and runs LOADER, which puts `supervise.py` into the run directory and runs it in the same
process with the rest of stdin (docs/structure.md, "Push").
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Emit, StepProgress
from cloudtrain.core.text import counted
from cloudtrain.source.archive import CHUNK, Archive
from cloudtrain.source.tree import FileEntry, Tree, digest_of, still_changing
from cloudtrain.transport.base import Completed, Transport

# No quotes, backslashes or dollars: whatever shell is on the way, there is nothing in it to take apart.
BOOT = "import json,sys;size,load=json.loads(sys.stdin.buffer.readline()).values();exec(load)"

# Runs on the host, Python >= 3.8. `size` comes from BOOT; the command line begins with WORKDIR and RUN_DIR.
# The supervisor is kept once for all runs, where Python leaves its compiled form beside it, and both are copied to the
# run directory: then no verb compiles it again. The time stamp is made from the content, because Python tells by time
# and size whether a compiled form is that of a source. Written aside and renamed: no folder ever holds half of one.
# It runs in this process, because stdin's buffer already holds bytes meant for it.
LOADER = """\
import errno, hashlib, json, os, sys, zlib
packed = sys.stdin.buffer.read(size)
if len(packed) != size:
    sys.exit("the connection ended early")
source = zlib.decompress(packed)
mark = hashlib.sha256(source).hexdigest()[:16]
stamp = int(mark[:7], 16)
def put(folder, name, content):
    path = os.path.join(folder, name)
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read() == content and os.stat(path).st_mtime == stamp:
                return
    os.makedirs(folder, 0o700, exist_ok=True)
    aside = "%s.%d.part" % (path, os.getpid())
    try:
        with open(aside, "wb") as file:
            file.write(content)
        os.utime(aside, (stamp, stamp))
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
workdir, run = sys.argv[1:3]
try:
    put(run, "supervise.py", source)
except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    why = "the disk of the host is full" if full else "%s cannot be written: %s" % (run, error.strerror)
    print(json.dumps({"ok": False, "code": "disk_full" if full else "refused", "message": why}))
    sys.exit(1)
once = os.path.join(workdir, "lib", mark)
try:
    put(once, "supervise.py", source)
except OSError:
    once = run
sys.path.append(once)
import supervise
try:
    with open(supervise.__spec__.cached, "rb") as file:
        put(os.path.join(run, "__pycache__"), os.path.basename(file.name), file.read())
except (OSError, TypeError):
    pass
sys.argv = [os.path.join(run, "supervise.py")] + sys.argv[3:]
supervise.leave(supervise.main())
"""

# Seconds without a byte in either direction; the host's own work after the last byte (checking and renaming a large
# tree) counts as silence.
QUIET_S = 120.0
_TITLE = "sync"
_TELL_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did.

    Attributes:
        files_sent: files whose content went over the wire; 0 for a tree that the host has.
        bytes_sent: bytes on stdin, compressed, with headers and supervisor.
        files_total: files of the tree.
        full: the host had nothing to build on, so everything was sent.
        seconds: from call to answer.
        digest: of the tree that the host now holds. It differs from the pushed tree's only if files changed meanwhile.
    """

    files_sent: int
    bytes_sent: int
    files_total: int
    full: bool
    seconds: float
    digest: str

    def summary(self) -> str:
        """For people, as the end of the step's line."""
        files = counted(self.files_total, "file")
        if not self.files_sent:
            return f"{files}, unchanged"
        which = "" if self.files_sent == self.files_total else f"{self.files_sent} of "
        return f"{which}{files}, {self.bytes_sent / 1024:,.0f} KiB sent"


def push(
    transport: Transport,
    tree: Tree,
    *,
    python: str,
    workdir: str,
    run_dir: str,
    key: str,
    target_id: str,
    emit: Emit,
) -> PushReport:
    """Make `WORKDIR/trees/KEY` on the host equal to `tree`, and put the supervisor into `run_dir`.

    Only the difference to what the host was last known to hold is sent; a host that holds something else says so and
    gets everything. A file that changes while it is sent is noticed, and the folder is scanned and sent once more.

    Args:
        python: interpreter on the host.
        workdir, run_dir: on the host, absolute or relative to its login directory.
        key: the tree's name there (`tree_key`).
        target_id: names the host; what is known of it is kept under this name.

    Raises:
        UsageError: files keep changing.
        ConnectionFailed: the link broke, or the host refused; its tree is as it was before, or already the new one.
    """
    started = time.monotonic()
    # Isolated, and without site-packages: nothing on the host can get in its way, and it starts twice as fast.
    boot = [python, "-I", "-S", "-c", BOOT, workdir, run_dir, "receive", "--workdir", workdir, "--tree", key]
    note = _note_of(target_id, workdir, key)
    known = _known(note)
    sent = 0
    for last in (False, True):
        body = _Body(tree, known, emit)
        answer = _exchange(transport, boot, body)
        sent += body.sent
        if answer.get("code") == "need_full" and known is not None:
            known = None
            body = _Body(tree, None, emit)
            answer = _exchange(transport, boot, body)
            sent += body.sent
        if body.changed is None:
            break
        if last:
            raise still_changing(body.changed)
        tree = tree.rescan()
    _accept(answer, tree)
    _remember(note, tree)
    return PushReport(
        files_sent=len(body.files),
        bytes_sent=sent,
        files_total=len(tree.files),
        full=known is None,
        seconds=time.monotonic() - started,
        digest=tree.digest,
    )


class _Body:
    """Everything that one `receive` reads from stdin; iterate once."""

    def __init__(self, tree: Tree, known: Mapping[str, FileEntry] | None, emit: Emit) -> None:
        base = known if known is not None else {}
        self.files = {path: entry for path, entry in tree.files.items() if base.get(path) != entry}
        self._tree = tree
        self._known = known
        self._emit = emit
        self._total = sum(entry.size for entry in self.files.values())
        self._done = 0
        self._told_at = 0.0
        self._archive = Archive(tree.root, self.files, self._progress)
        self._head = 0

    @property
    def changed(self) -> str | None:
        """A file that was not what the scan found; the stream was cut short."""
        return self._archive.changed

    @property
    def sent(self) -> int:
        """Bytes handed to the transport."""
        return self._head + self._archive.sent

    def __iter__(self) -> Iterator[bytes]:
        supervisor = zlib.compress(supervisor_source(), 6)
        header = {
            "v": 1,
            "base": None if self._known is None else digest_of(self._known),
            "digest": self._tree.digest,
            "files": self.files,
            "delete": [] if self._known is None else sorted(self._known.keys() - self._tree.files.keys()),
        }
        head = b"".join(
            (
                json.dumps({"supervise": len(supervisor), "load": LOADER}).encode() + b"\n",
                supervisor,
                json.dumps(header).encode() + b"\n",
            )
        )
        for start in range(0, len(head), CHUNK):
            chunk = head[start : start + CHUNK]
            self._head += len(chunk)
            yield chunk
        yield from self._archive

    def _progress(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S or self._done == self._total:
            self._told_at = now
            detail = f"{len(self.files)} of {len(self._tree.files)} files"
            self._emit(StepProgress(_TITLE, detail, done=self._done, total=self._total, unit="B"))


def supervisor_source() -> bytes:
    """`supervise.py` as it is sent to hosts."""
    return (resources.files("cloudtrain") / "onhost" / "supervise.py").read_bytes()


def _exchange(transport: Transport, argv: list[str], body: _Body) -> dict[str, Any]:
    """Send `body`, return the host's answer. A body that was cut short has none: the caller looks at `changed`."""
    try:
        done = transport.run(argv, stdin=body, timeout=QUIET_S)
    except ConnectionFailed:
        if body.changed is not None:
            return {}
        raise
    return {} if body.changed is not None else _answer(done)


def _answer(done: Completed) -> dict[str, Any]:
    """The JSON object in the last line of stdout; login scripts may have printed before it.

    Raises:
        ConnectionFailed: there is none.
    """
    line = (done.stdout.strip().splitlines() or [b""])[-1]
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "ok" not in answer:
        said = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
        raise ConnectionFailed(
            f"the host could not receive the files (exit code {done.exit_code})",
            hint="cloudtrain needs Python 3.8 or newer there",
            consequence="training has not started",
            code="push_failed",
            detail=said[-2000:] or None,
        )
    return answer


def _accept(answer: dict[str, Any], tree: Tree) -> None:
    """Check that the host now holds exactly `tree`.

    Raises:
        ConnectionFailed: it does not.
    """
    if not answer.get("ok"):
        code = str(answer.get("code") or "refused")
        raise ConnectionFailed(
            f"the host refused the files: {answer.get('message') or code}",
            hint="free space on the host, then run again" if code == "disk_full" else None,
            consequence="training has not started",
            code=code if code == "disk_full" else "push_failed",
        )
    if answer.get("digest") != tree.digest:
        raise ConnectionFailed(
            "the files that arrived are not the files that were sent",
            consequence="training has not started",
            code="push_failed",
            detail=f"sent {tree.digest}, host has {answer.get('digest')}",
        )


def _note_of(target_id: str, workdir: str, key: str) -> Path:
    """Where is kept what a host was last known to hold."""
    host = hashlib.sha256(f"{target_id}\0{workdir}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return disk.cache_dir() / "trees" / host / f"{key}.json"


def _known(note: Path) -> dict[str, FileEntry] | None:
    """The files of the host's tree, or None if nothing (readable) is known."""
    try:
        saved = json.loads(note.read_bytes())
        files = {str(path): FileEntry(*entry) for path, entry in saved["files"].items()}
        return files if saved["v"] == 1 and digest_of(files) == saved["digest"] else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _remember(note: Path, tree: Tree) -> None:
    """A note that cannot be written costs a full push next time, nothing else."""
    with suppress(OSError):
        disk.private_dir(note.parent)
        disk.write_durably(note, json.dumps({"v": 1, "digest": tree.digest, "files": tree.files}).encode())
