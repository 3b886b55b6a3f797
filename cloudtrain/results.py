"""The pull: finished files of a run, from the host into its folder here, each whole and verified or not there at all.

What arrives is decided by the host's manifest and the user's patterns, never by what a stream says. A file grows as
`DEST/.pull/HASH.part`, is checked against the manifest's size and sha256, fsynced, renamed. So a power cut, a full disk
or a kill -9 leaves parts, which the next pull resumes, and never a half-written file under its own name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

import filelock

from cloudtrain import disk, ignore
from cloudtrain.artifact_names import collisions, refusal
from cloudtrain.errors import ArtifactRefused, Busy, ConnectionFailed
from cloudtrain.events import Emit, StepProgress, Warned
from cloudtrain.transport.base import Stream

PARTS = ".pull"
SUMS = "SHA256SUMS"
QUIET_S = 60.0
WAIT_FOR_OTHER_S = 60.0
_TITLE = "pull"
_TELL_EVERY_S = 0.1
_CHUNK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Artifact(Protocol):
    """An entry of the host's manifest: name below `out/`, bytes, sha256 in lower-case hex."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...


Read = Callable[[str, int], Stream]
"""`Supervisor.read`: bytes of a file of the run directory from an offset on."""

E = TypeVar("E", bound=Artifact)


@dataclass(frozen=True, slots=True)
class PullReport(Generic[E]):
    """What a pull did.

    Attributes:
        files: entries whose file is here and verified, whether fetched now or before.
        bytes: fetched by this call.
        skipped: (name, reason) of what was left out on purpose: not in `outputs`, or over the cap.
    """

    files: tuple[E, ...] = ()
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def summary(self, folder: Path) -> str:
        """For people, as the end of the step's line."""
        count = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        left = f", {len(self.skipped)} left on the host" if self.skipped else ""
        return f"{count}, {sum(entry.size for entry in self.files) / 2**20:.1f} MiB verified in {folder}{left}"


def pull(
    read: Read,
    entries: Sequence[E],
    dest: Path,
    *,
    outputs: Sequence[str] = ("**",),
    emit: Emit,
    cap_bytes: int | None = None,
) -> PullReport[E]:
    """Bring the files that `entries` names and `outputs` allows into `dest`, small ones first.

    A file that is here already, equal to its entry, is not fetched. One file that cannot be had does not keep the
    others from coming: it is reported once all of them are here.

    Args:
        outputs: gitignore-style patterns of the names to bring; a later one wins, `!` leaves out.
        cap_bytes: size of all files together; what would go over it is skipped and named.

    Raises:
        ArtifactRefused: a file is not what the manifest says, or its name must not be written. All others are here.
        ConnectionFailed: the link broke, or the disk here is full (code `disk_full`). What is here is whole; call
            again.
        Busy: another command has been pulling into `dest` for a minute.
    """
    rules = ignore.parse("\n".join(outputs), "outputs")
    fetcher = _Fetcher(read, dest, emit)
    skipped: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    verified: list[E] = []
    with _alone(dest) as fold_case:
        wanted: list[E] = []
        for entry in entries:
            reason = refusal(entry.name)
            if reason is not None:
                refused.append((repr(entry.name), reason))
            elif not _allowed(rules, entry.name):
                skipped.append((entry.name, "not in outputs"))
            elif not _sound(entry):
                refused.append((repr(entry.name), "the manifest has no valid size and sha256 for it"))
            else:
                wanted.append(entry)
        wanted.sort(key=lambda entry: (entry.size, entry.name))
        clashes = collisions([entry.name for entry in wanted], fold_case=fold_case)
        fetcher.total = sum(entry.size for entry in wanted)
        room = cap_bytes
        for index, entry in enumerate(wanted):
            if index in clashes:
                refused.append((repr(entry.name), clashes[index]))
            elif room is not None and entry.size > room:
                skipped.append((entry.name, f"over the limit of {cap_bytes} bytes"))
            else:
                room = None if room is None else room - entry.size
                try:
                    fetcher.fetch(entry)
                    verified.append(entry)
                except ArtifactRefused as error:
                    refused.append((repr(entry.name), error.message))
    over = [name for name, reason in skipped if reason != "not in outputs"]
    if over:
        emit(Warned(f"{len(over)} files were left on the host: over the size limit: {', '.join(over[:3])}"))
    if refused:
        name, reason = refused[0]
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise ArtifactRefused(
            f"{name} was not taken: {reason}{more}",
            consequence="the copy on the host is untouched; every other file is here and verified",
            hint="look at it there, then pull again",
            detail="\n".join(f"{name}: {reason}" for name, reason in refused) if more else None,
        )
    return PullReport(tuple(verified), fetcher.bytes, skipped)


def fetch(read: Read, name: str, path: Path) -> None:
    """Replace `path` by the host's whole file `name` ("console.log"), which no manifest describes.

    Raises:
        ConnectionFailed: the link broke or the disk is full; `path` is as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _full_disk_told(path.parent), _open_part(aside, fresh=True) as file:
            with read(name, 0) as stream:
                while chunk := _next(stream, name):
                    file.write(chunk)
                problem = _check_end(stream, name)
                if problem is not None:
                    raise ArtifactRefused(f"{name} was not taken: {problem}", consequence="what is here is as it was")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        disk.sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sha256(path: Path) -> str | None:
    """Hex sha256 of a file, or None if there is none."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    except FileNotFoundError:
        return None
    return total.hexdigest()


def sha256sums(dest: Path) -> Path:
    """Write `DEST/SHA256SUMS` for `sha256sum -c`: every plain file below `dest` but `run.json`, which is rewritten.

    Raises:
        OSError: a file cannot be read, or the list not be written.
    """
    lines = []
    for path in sorted(dest.rglob("*")):
        name = path.relative_to(dest).as_posix()
        aside = name.startswith(PARTS + "/") or name.endswith(".part") or name in (SUMS, "run.json")
        if aside or path.is_symlink() or not path.is_file() or any(c in name for c in "\\\n\r"):
            continue
        lines.append(f"{sha256(path)}  {name}\n")
    disk.write_durably(dest / SUMS, "".join(lines).encode(), mode=0o644)
    return dest / SUMS


class _Fetcher:
    """Brings one file after the other; knows how much of the whole is done."""

    def __init__(self, read: Read, dest: Path, emit: Emit) -> None:
        self.total = 0
        self.bytes = 0
        self._read = read
        self._dest = dest
        self._emit = emit
        self._done = 0
        self._told_at = 0.0

    def fetch(self, entry: Artifact) -> None:
        """Make `DEST/NAME` equal to `entry`.

        Raises:
            ArtifactRefused: the host's file is another one, twice.
        """
        target = _place(self._dest, entry.name)
        with _full_disk_told(self._dest):
            if _is_plain(target) and target.stat().st_size == entry.size and sha256(target) == entry.sha256:
                self._tell(entry, entry.size)
                return
            mark = hashlib.sha256(f"{entry.name}\0{entry.sha256}".encode()).hexdigest()[:32]
            part = self._dest / PARTS / f"{mark}.part"
            done = self._done
            for last in (False, True):
                problem = self._download(entry, part)
                if problem is None:
                    break
                part.unlink()
                self._done = done
                if last:
                    raise ArtifactRefused(problem)
            _make_folders(self._dest, target.parent)
            part.replace(target)
            disk.sync_folder(target.parent)

    def _download(self, entry: Artifact, part: Path) -> str | None:
        """Complete `part`; what is wrong with it then, for people, or None."""
        with _open_part(part, fresh=False) as file:
            total, have = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK):
                total.update(chunk)
                have += len(chunk)
            if have > entry.size:
                return "it is longer than its manifest says"
            self._tell(entry, have)
            if have < entry.size:
                if shutil.disk_usage(part.parent).free < entry.size - have:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with self._read(f"out/{entry.name}", have) as stream:
                    while chunk := _next(stream, entry.name):
                        have += len(chunk)
                        if have > entry.size:
                            return "it is longer than its manifest says"
                        file.write(chunk)
                        total.update(chunk)
                        self.bytes += len(chunk)
                        self._tell(entry, len(chunk))
                    if have < entry.size:
                        return _check_end(stream, entry.name) or "it is shorter than its manifest says"
            file.flush()
            os.fsync(file.fileno())
        return None if total.hexdigest() == entry.sha256 else "its sha256 is not the one in the manifest"

    def _tell(self, entry: Artifact, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S or self._done >= self.total:
            self._told_at = now
            self._emit(StepProgress(_TITLE, entry.name, done=self._done, total=self.total, unit="B"))


def _next(stream: Stream, name: str) -> bytes:
    try:
        return stream.read(QUIET_S)
    except TimeoutError as error:
        raise ConnectionFailed(
            f"nothing came of {name} for {QUIET_S:.0f} s",
            hint="pull again; it goes on where it stopped",
            consequence="the copy on the host is untouched",
        ) from error


def _check_end(stream: Stream, name: str) -> str | None:
    """Why the host ended the stream early, in its words; None if it says all was well."""
    done = stream.finish(QUIET_S)
    if done.exit_code == 0:
        return None
    said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.exit_code}"])[-1]
    with suppress(ValueError, TypeError, KeyError):
        said = str(json.loads(said)["message"])
    return f"the host does not give it: {said[:200]}"


def _allowed(rules: Sequence[ignore.Rule], name: str) -> bool:
    """Whether the last of `rules` that speaks of `name`, or of a folder it lies in, lets it through."""
    parts = name.split("/")
    for rule in reversed(rules):
        if any(rule.matches(parts[:depth], is_dir=depth < len(parts)) for depth in range(1, len(parts) + 1)):
            return not rule.negated
    return False


def _sound(entry: Artifact) -> bool:
    size, sha = entry.size, entry.sha256
    return (
        type(size) is int
        and size >= 0
        and type(sha) is str
        and len(sha) == 64
        and not set(sha) - set("0123456789abcdef")
    )


def _is_plain(path: Path) -> bool:
    """Whether a plain file is at `path` itself; a link to one is not."""
    with suppress(OSError, ValueError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _is_folder(path: Path) -> bool:
    """Whether a folder is at `path` itself; a link or a Windows junction to one is not."""
    with suppress(OSError, ValueError):
        status = path.lstat()
        reparse = getattr(status, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
        return stat.S_ISDIR(status.st_mode) and not reparse
    return False


def _present(path: Path) -> bool:
    return os.path.lexists(path)


def _place(dest: Path, name: str) -> Path:
    """Where `name` goes below `dest`.

    Raises:
        ArtifactRefused: a link, or something else that is no folder, is in the way.
    """
    path = dest
    *folders, last = name.split("/")
    for segment in folders:
        path = path / segment
        if _present(path) and not _is_folder(path):
            raise ArtifactRefused(f"{path} here is a link or a file, not a folder")
    if _is_folder(path / last):
        raise ArtifactRefused(f"{path / last} here is a folder")
    return path / last


def _make_folders(dest: Path, folder: Path) -> None:
    path = dest
    for segment in folder.relative_to(dest).parts:
        if not _present(path / segment):
            (path / segment).mkdir()
            disk.sync_folder(path)
        path = path / segment


@contextmanager
def _open_part(part: Path, *, fresh: bool) -> Iterator[BinaryIO]:
    """`part` for reading and appending. Anything there but a plain file of one name is replaced, never written into."""
    if _present(part) and (fresh or not _is_plain(part) or part.lstat().st_nlink > 1):
        part.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(part, flags, 0o666), "r+b") as file:
        yield file


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Failures of this computer's disk as errors that say so."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        full = error.errno in _FULL
        said = (error.strerror or str(error)).lower()
        raise ConnectionFailed(
            f"{folder} takes no more data: {said}" if full else f"{folder} cannot be written: {said}",
            hint="free space on this computer and pull again" if full else "make the folder writable and pull again",
            consequence="nothing is lost: the host has it all, and what arrived is kept",
            code="disk_full" if full else "folder",
        ) from error


@contextmanager
def _alone(dest: Path) -> Iterator[bool]:
    """Keep other pulls out of `dest`; yields whether its file system ignores case.

    Parts of a pull that fails stay for the next one; after one that went well nothing of it is left.

    Raises:
        Busy: another pull has it.
    """
    folder = dest / PARTS
    lock = filelock.FileLock(folder / "lock", timeout=0)
    deadline = time.monotonic() + WAIT_FOR_OTHER_S
    while True:
        with _full_disk_told(dest):
            if _present(folder) and not _is_folder(folder):
                raise NotADirectoryError(errno.ENOTDIR, f"{PARTS} in it is not a folder")
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
                break
            except FileNotFoundError:  # another pull has just tidied the folder away
                pass
            except filelock.Timeout:
                pass
        if time.monotonic() >= deadline:
            raise Busy(
                f"another command is pulling into {dest}",
                hint="let it end, then pull again",
                consequence="this one changed nothing",
            )
        time.sleep(0.05)
    try:
        yield (folder / "LOCK").exists()
        for part in folder.glob("*.part"):  # of versions that are no longer asked for
            part.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            if os.name != "nt" and not any(folder.glob("*.part")):
                (folder / "lock").unlink()  # while it is held: whoever waits for it sees that it is gone
                folder.rmdir()
        lock.release()
