"""`runs/NAME/code.tar.gz`: exactly what was sent for a run, and how it becomes a folder again.

The bytes depend on the files alone: names in order, no times, no owners. So two runs of the same code have the same
archive.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Emit, Warned
from cloudtrain.core.notes import CodeCopy, Journal, RunNotes, SentCode
from cloudtrain.run_folder.artifacts import misshapen
from cloudtrain.source import git
from cloudtrain.source.archive import Archive
from cloudtrain.source.ignore import OWN_FILE
from cloudtrain.source.tree import FileEntry, Tree, digest_of, scan, unpacked

NAME = "code.tar.gz"
# A package that brings its own data is not copied into each of its runs.
MOST_BYTES = 256 * 1024 * 1024


def keep(folder: Path, tree: Tree, digest: str, target_id: str, journal: Journal, emit: Emit) -> None:
    """Keep a copy of what was sent to `target_id`, the tree with `digest`, in `folder`; note in `journal` what it was.

    A copy that cannot be made is reported, and does not stop the run.
    """
    copy, why = None, None
    if tree.bytes > MOST_BYTES:
        why = f"it has {tree.bytes / 2**20:.0f} MiB, more than {MOST_BYTES / 2**20:.0f}"
    else:
        try:
            if tree.digest != digest:
                tree = tree.rescan()
            copy = pack(tree, folder / NAME) if tree.digest == digest else None
            why = None if copy else "its files have changed since they were sent"
        except (OSError, UsageError) as error:
            why = error.message if isinstance(error, UsageError) else (error.strerror or str(error)).lower()
    if why:
        emit(Warned(f"no copy of the code is kept with the run: {why}", hint="rerun needs the folder as it is now"))
    known = git.state(tree.source, tree.files) if tree.digest == digest else None
    journal.write(
        RunNotes(code=SentCode(digest=digest, archive=copy, git=known.record() if known else None, target_id=target_id))
    )


def check_names(files: Iterable[str]) -> None:
    """The names under which files are to be sent could be kept: a run whose copy nobody can unpack is not repeatable.

    Raises:
        UsageError: one could not.
    """
    for name in files:
        reason = misshapen(_below(name))
        if reason is not None:
            raise UsageError(
                f"the copy of the code cannot hold the file {name!r}: {reason}",
                hint=f"rename it, or leave it out by a line in {OWN_FILE}",
                consequence="nothing was started",
                code="bad_file_name",
            )


def _below(name: str) -> str:
    """A name in an archive as a path that begins with a folder."""
    return f"code/{name}"


def kept(notes: RunNotes, target_id: str) -> bool:
    """Whether the journal says that the code was sent to `target_id` before."""
    return notes.code is not None and notes.code.target_id == target_id


def pack(tree: Tree, path: Path) -> CodeCopy | None:
    """Write `tree` to `path`, whole or not at all; None if its files are not what the scan found.

    Raises:
        OSError: it cannot be written.
    """
    total, size = hashlib.sha256(), 0
    archive = Archive(tree.root, tree.files, lambda _: None)
    with suppress(disk.Discard), disk.written(path, mode=0o644) as file:
        for chunk in archive:
            file.write(chunk)
            total.update(chunk)
            size += len(chunk)
        if archive.changed is not None:
            raise disk.Discard
        return CodeCopy(size, total.hexdigest())
    return None


def entries(path: Path) -> dict[str, FileEntry]:
    """The files in the archive at `path`, hashed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no archive of this kind.
    """
    return {name: entry for name, entry, _ in _members(path)}


def unpack(path: Path, digest: str, source_name: str) -> Path:
    """The folder `source_name` of the archive at `path`, below the state folder; made once for each `digest`.

    Raises:
        UsageError: the archive does not hold the code with this digest.
        OSError: it cannot be read, or the folder not be written.
    """
    home = disk.private_dir(unpacked())
    place = home / digest[:32]
    if _holds(place / source_name, digest):
        return place / source_name
    aside = Path(tempfile.mkdtemp(prefix=f".{digest[:8]}.", dir=home))
    try:
        # Whatever repository this computer's state folder lies in, its rules are not for this code.
        (aside / ".git").write_text("gitdir: none\n", encoding="utf-8")
        try:
            for name, entry, data in _members(path):
                target = aside / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                target.chmod(entry.mode)
        except ValueError as error:
            raise _not_it(path, str(error)) from error
        if not _holds(aside / source_name, digest):
            raise _not_it(path, "it unpacks to something else")
        shutil.rmtree(place, ignore_errors=True)
        aside.replace(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place / source_name


def _holds(source: Path, digest: str) -> bool:
    try:
        return scan(source, cache=None).digest == digest
    except UsageError:
        return False


def _not_it(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} does not hold the code of the run: {why}",
        hint="restore it from a copy, or start a new run",
        consequence="nothing was started",
        code="no_code",
    )


def _members(path: Path) -> Iterator[tuple[str, FileEntry, bytes]]:
    """Name, entry and content of each file of an archive, which may come from a stranger."""
    room = MOST_BYTES
    try:
        with disk.plain(path) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                if not member.isreg() or misshapen(_below(member.name)) or (room := room - member.size) < 0:
                    raise ValueError(f"{member.name!r} is not a file that was sent")
                stream = archive.extractfile(member)
                data = stream.read() if stream is not None else b""
                mode = 0o755 if member.mode & 0o100 else 0o644
                yield member.name, FileEntry(len(data), hashlib.sha256(data).hexdigest(), mode), data
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError("it is not a complete gzip tar") from error


def digest_in(path: Path) -> str:
    """The digest of the tree in the archive at `path`.

    Raises:
        OSError, ValueError: as `entries`.
    """
    return digest_of(entries(path))
