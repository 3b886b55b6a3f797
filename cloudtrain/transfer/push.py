"""The push: one program start on the host brings the supervisor and what changed of the tree.

    stdin of `python -I -S -c BOOT`:  {"supervise": n, "load": LOADER} LF   n bytes: the program's sources, zlib
                                header of `receive` LF                gzip tar of the changed files

BOOT reads the first line and runs LOADER, which puts the program into the run directory and runs it in the same
process with the rest of stdin (docs/protocol.md, "Push").
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.decode import count, fields
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Emit, StepProgress
from cloudtrain.core.text import counted
from cloudtrain.source.archive import CHUNK, Archive
from cloudtrain.source.tree import FileEntry, Tree, digest_of, still_changing
from cloudtrain.transfer.answers import last_object
from cloudtrain.transfer.first_line import FirstLine
from cloudtrain.transfer.program import BOOT, LOADER, packed
from cloudtrain.transport.base import Completed, Transport

# Seconds without a byte in either direction; the host's own work after the last byte (checking and renaming a large
# tree) counts as silence.
QUIET_S = 120.0
_TITLE = "sync"
_NOT_STARTED = "training has not started"
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
        """Human-readable, as the end of the step's line."""
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
    gets everything. A push that was cut short goes on at the byte where it was. A file that changes while it is sent is
    noticed, and the folder is scanned and sent once more.

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
    boot = [python, "-I", "-S", "-c", BOOT, workdir, run_dir]
    of_tree = ["--workdir", workdir, "--tree", key]
    note = _note_of(target_id, workdir, key)
    known, begun = _known(note), note.with_suffix(".begun")
    left = _left(_exchange(transport, [*boot, "left", *of_tree], [packed(LOADER)])) if begun.exists() else {}
    with suppress(OSError):  # what cannot be noted is sent anew if this push is cut short
        disk.private_dir(note.parent)
        begun.touch()
    sent = 0
    for last in (False, True):
        body = _Body(tree, known, left, emit)
        answer = _send(transport, [*boot, "receive", *of_tree], body)
        sent += body.sent
        if answer.get("code") in ("need_full", "cut_short", "damaged") and (known is not None or left):
            known, left = None, {}
            body = _Body(tree, None, left, emit)
            answer = _send(transport, [*boot, "receive", *of_tree], body)
            sent += body.sent
        if body.changed is None:
            break
        if last:
            raise still_changing(body.changed)
        tree = tree.rescan()
    _accept(answer, tree)
    _remember(note, tree)
    with suppress(OSError):
        begun.unlink()
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

    def __init__(self, tree: Tree, known: Mapping[str, FileEntry] | None, left: Mapping[str, int], emit: Emit) -> None:
        base = known if known is not None else {}
        self.files = {path: entry for path, entry in tree.files.items() if base.get(path) != entry}
        self._begun = {path: left[e.sha256] for path, e in self.files.items() if 0 < left.get(e.sha256, 0) <= e.size}
        self._tree = tree
        self._known = known
        self._emit = emit
        self._total = sum(entry.size for entry in self.files.values())
        to_send = {path: e for path, e in self.files.items() if self._begun.get(path, -1) < e.size}
        self._done = self._total - sum(entry.size for entry in to_send.values())
        self._told_at = 0.0
        self._archive = Archive(tree.root, to_send, self._progress, self._begun)
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
        header = {
            "v": 1,
            "base": None if self._known is None else digest_of(self._known),
            "digest": self._tree.digest,
            "files": self.files,
            "left": {self.files[path].sha256: size for path, size in self._begun.items()},
            "delete": [] if self._known is None else sorted(self._known.keys() - self._tree.files.keys()),
        }
        head = packed(LOADER) + json.dumps(header).encode() + b"\n"
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


def _send(transport: Transport, argv: list[str], body: _Body) -> dict[str, Any]:
    """Send `body`, return the host's answer. A body that was cut short has none: the caller looks at `changed`."""
    try:
        answer = _exchange(transport, argv, body)
    except ConnectionFailed:
        if body.changed is None:
            raise
        return {}
    return {} if body.changed is not None else answer


def _exchange(transport: Transport, argv: list[str], stdin: Iterable[bytes]) -> dict[str, Any]:
    first = FirstLine()
    done = transport.run([*argv, first.argument], stdin=stdin, timeout=QUIET_S, awaits=first.line)
    return _answer(first.answer(done, _NOT_STARTED))


def _left(answer: Mapping[str, Any]) -> dict[str, int]:
    """Of what pushes that were cut short have left on the host: bytes by sha256."""
    try:
        return {sha256: count(size) for sha256, size in fields(answer.get("left")).items()}
    except ValueError:
        return {}


def _answer(done: Completed) -> dict[str, Any]:
    """The answer in stdout.

    Raises:
        ConnectionFailed: there is none.
    """
    answer = last_object(done.stdout)
    if answer is None:
        said = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
        raise ConnectionFailed(
            f"the host could not receive the files (exit code {done.exit_code})",
            hint="cloudtrain needs Python 3.8 or newer there",
            consequence=_NOT_STARTED,
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
            consequence=_NOT_STARTED,
            code=code if code == "disk_full" else "push_failed",
        )
    if answer.get("digest") != tree.digest:
        raise ConnectionFailed(
            "the files that arrived are not the files that were sent",
            consequence=_NOT_STARTED,
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
