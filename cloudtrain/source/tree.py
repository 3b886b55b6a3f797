"""What a source folder holds that will be sent: names, sizes, hashes, and one digest over all of it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.source import ignore

# A file written within this long before it was hashed may change again without its time changing: FAT keeps times in
# steps of 2 s, network folders have clocks of their own. Such files are hashed again next time.
RACY_NS = 2_000_000_000
_ATTEMPTS = 3


class FileEntry(NamedTuple):
    """A file to send: bytes, lower-case hex, and 0o644 or 0o755 (only whether it may be run survives the journey)."""

    size: int
    sha256: str
    mode: int


class Skipped(NamedTuple):
    """A file or folder (final "/") that stays here, the rule that says so, and its bytes where they are known."""

    path: str
    rule: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """What will be sent.

    Attributes:
        root: folder that the paths are relative to: the parent of the source folder.
        files: by path, POSIX style; the first name in each is the source folder's own, as in "job/train.py".
        digest: of all files (`digest_of`).
        bytes: their total size.
        skipped: what stays here and why, in the order of the walk.
    """

    root: Path
    files: Mapping[str, FileEntry]
    digest: str
    bytes: int
    skipped: list[Skipped] = field(default_factory=list)
    source: Path = field(default=Path())
    cache: Path | None = None
    runs_dir: Path | None = None

    def rescan(self) -> Tree:
        """The same folder as it is now.

        Raises:
            UsageError: as `scan`.
        """
        return scan(self.source, cache=self.cache, runs_dir=self.runs_dir)


def digest_of(files: Mapping[str, FileEntry]) -> str:
    """sha256 over `path NUL size NUL sha256 NUL mode LF` of files in byte order of the paths (numbers in decimal)."""
    total = hashlib.sha256()
    for name, path in sorted((path.encode(), path) for path in files):
        size, sha256, mode = files[path]
        total.update(b"%s\0%d\0%s\0%d\n" % (name, size, sha256.encode(), mode))
    return total.hexdigest()


def tree_key(source: Path) -> str:
    """Short stable name of a source folder on hosts: its name, made plain, and a hash of where it is."""
    path = _absolute(source)
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in path.name.lower()).strip("-")
    return f"{plain[:24] or 'tree'}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"


def scan(source: Path, *, cache: Path | None, runs_dir: Path | None = None) -> Tree:
    """Find and hash what will be sent of `source`.

    Args:
        source: a folder; it arrives under its own name, so that `python -m job.train` finds the package.
        cache: the cache folder, whose `trees/` remembers hashes between calls; None for no memory. A file whose size,
            times and inode are as remembered is not read again.
        runs_dir: where results go on this computer; never sent. A folder `runs` directly in `source` is not either.

    Raises:
        UsageError: it is no folder, holds nothing to send, or a file in it cannot be read or named.
    """
    source = _absolute(source)
    if not source.name:
        raise _refused(f"{source} has no name to be sent under", "choose a folder below it")
    if not source.is_dir():
        what = "is not a folder" if source.exists() else "does not exist"
        raise _refused(f"the training package {source} {what}", "name the folder that holds it", "no_source")
    memory = _Memory.load(cache, source)
    skipped: list[Skipped] = []
    files: dict[str, FileEntry] = {}
    for path, file in sorted(_walk(source, runs_dir, skipped), key=lambda found: os.fsencode(found[0])):
        try:
            path.encode()
        except UnicodeEncodeError:
            raise _refused(
                f"the name of {path!r} is not valid UTF-8", "rename or ignore the file", "bad_file_name"
            ) from None
        files[path] = memory.entry(path, file)
    if not files:
        raise _refused(
            f"nothing in {source} is left to send", f"see its {ignore.GIT_FILE} and {ignore.OWN_FILE}", "empty_source"
        )
    memory.save()
    return Tree(
        root=source.parent,
        files=files,
        digest=digest_of(files),
        bytes=sum(entry.size for entry in files.values()),
        skipped=skipped,
        source=source,
        cache=cache,
        runs_dir=runs_dir,
    )


def _absolute(source: Path) -> Path:
    # Not resolve(): a link `job -> v2` is sent as `job`.
    return Path(os.path.abspath(source))  # noqa: PTH100


def _refused(message: str, hint: str, code: str = "usage") -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was sent", code=code)


def _walk(source: Path, runs_dir: Path | None, skipped: list[Skipped]) -> Iterator[tuple[str, Path]]:
    """Every file to send as (path it is sent under, where it is); fills `skipped`."""
    above, lead = ignore.rules_above(source)
    real = source.resolve()
    runs = runs_dir.resolve() if runs_dir is not None else None
    pending = [(source, (), above)]  # type: list[tuple[Path, tuple[str, ...], ignore.Rules]]
    while pending:
        folder, names, outer = pending.pop()
        rules = outer.below(folder, "".join(f"{name}/" for name in names), len(lead) + len(names))
        try:
            found = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise _refused(
                f"cannot read the folder {folder}: {error.strerror}",
                "make it readable, or ignore it",
                "unreadable_file",
            ) from error
        folders = []
        for entry in found:
            below = (*names, entry.name)
            path = "/".join((source.name, *below))
            link = entry.is_symlink() or _is_junction(entry)
            is_dir = entry.is_dir(follow_symlinks=False) and not link
            rule = rules.verdict((*lead, *below), is_dir=is_dir)
            if rule is None and is_dir:
                rule = _folder_rule(Path(entry.path), below, runs)
            elif rule is None and link:
                rule = _link_rule(Path(entry.path), real, above, lead)
            elif rule is None and not entry.is_file(follow_symlinks=False):
                rule = "not a plain file"
            if rule is not None:
                skipped.append(Skipped(path + "/" if is_dir else path, rule, None if is_dir or link else _size(entry)))
            elif is_dir:
                folders.append((Path(entry.path), below, rules))
            else:
                yield path, Path(entry.path)
        pending.extend(reversed(folders))


def _folder_rule(folder: Path, names: tuple[str, ...], runs: Path | None) -> str | None:
    if (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir():
        return "default: virtual environment (pyvenv.cfg or conda-meta in it)"
    if names == ("runs",) or (runs is not None and folder.resolve() == runs):
        return "default: results of runs"
    return None


def _link_rule(link: Path, real: Path, above: ignore.Rules, lead: tuple[str, ...]) -> str | None:
    """Why a link is not sent: it must lead to a plain file inside the tree that would be sent itself."""
    try:
        target = link.resolve(strict=True)
        plain = stat.S_ISREG(target.stat().st_mode)
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    if not target.is_relative_to(real):
        return "a link out of the folder"
    if not plain:
        return "a link to a folder" if target.is_dir() else "a link to what is not a plain file"
    names = target.relative_to(real).parts
    folder, rules = real, above
    for depth, name in enumerate(names, start=1):
        rules = rules.below(folder, "".join(f"{part}/" for part in names[: depth - 1]), len(lead) + depth - 1)
        folder = folder / name
        is_dir = depth < len(names)
        rule = rules.verdict((*lead, *names[:depth]), is_dir=is_dir)
        if rule is None and is_dir:
            rule = _folder_rule(folder, names[:depth], None)
        if rule is not None:
            return f"a link to {'/'.join(names)}, which stays here ({rule})"
    return None


def _is_junction(entry: os.DirEntry[str]) -> bool:
    # Windows' folder links are not symlinks to Python 3.11; following one could leave the tree or never end.
    attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0) if os.name == "nt" else 0
    return bool(attributes & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)) and entry.is_dir(follow_symlinks=False)


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return None


class _Memory:
    """Hashes of a folder's files by what `stat` says of them, kept in the cache folder between calls."""

    def __init__(self, file: Path | None, known: dict[str, list[object]]) -> None:
        self._file = file
        self._known = known
        self._seen: dict[str, list[object]] = {}

    @classmethod
    def load(cls, cache: Path | None, source: Path) -> _Memory:
        """What is remembered of `source`; anything unreadable counts as nothing."""
        if cache is None:
            return cls(None, {})
        file = cache / "trees" / f"{tree_key(source)}.stat.json"
        known: object = None
        with suppress(OSError, ValueError, RecursionError):
            saved = json.loads(file.read_bytes())
            known = saved.get("files") if isinstance(saved, dict) and saved.get("v") == 1 else None
        return cls(file, known if isinstance(known, dict) else {})

    def entry(self, path: str, file: Path) -> FileEntry:
        """Size, hash and mode of `file`, read only if it may differ from what is remembered.

        Raises:
            UsageError: it cannot be read, or does not hold still.
        """
        try:
            for _ in range(_ATTEMPTS):
                before = file.stat()
                remembered = self._known.get(path)
                if (
                    isinstance(remembered, list)
                    and remembered[:-1] == _identity(before)
                    and disk.is_sha256(remembered[-1])
                ):
                    self._seen[path] = remembered
                    return FileEntry(before.st_size, str(remembered[-1]), _mode(before))
                started = time.time_ns()
                sha256, size = _hash(file)
                after = file.stat()
                if _identity(before) == _identity(after) and size == after.st_size:
                    if max(after.st_mtime_ns, after.st_ctime_ns) < started - RACY_NS:
                        self._seen[path] = [*_identity(after), sha256]
                    return FileEntry(size, sha256, _mode(after))
        except OSError as error:
            raise _refused(
                f"cannot read {file}: {error.strerror}", "make it readable, or ignore it", "unreadable_file"
            ) from error
        raise still_changing(str(file))

    def save(self) -> None:
        """Keep what was seen. A cache that cannot be written costs time, nothing else."""
        if self._file is None or self._seen == self._known:
            return
        with suppress(OSError):
            disk.private_dir(self._file.parent)
            disk.write_durably(self._file, json.dumps({"v": 1, "files": self._seen}).encode())


def still_changing(name: str) -> UsageError:
    """The error for a file that is written to while it is sent."""
    return _refused(f"{name} keeps changing while it is read", "stop what writes to it, or ignore it", "file_changes")


def _identity(status: os.stat_result) -> list[object]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _hash(file: Path) -> tuple[str, int]:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()


def _mode(status: os.stat_result) -> int:
    # Windows has no such bit: what it reports is guessed from the suffix, and would make the digest differ between
    # two computers that hold the same files.
    return 0o755 if os.name != "nt" and status.st_mode & stat.S_IXUSR else 0o644
