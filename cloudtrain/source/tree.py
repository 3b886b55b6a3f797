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
from cloudtrain.source import ignore, repository
from cloudtrain.source.repository import NoAnswer

# A file written within this long before it was hashed may change again without its time changing: FAT keeps times in
# steps of 2 s, network folders have clocks of their own. Such files are hashed again next time.
RACY_NS = 2_000_000_000
_ATTEMPTS = 3
MOST_FOLDERS = 1000


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
        unasked: there is a repository, and git gave no answer for it.
        folders: those of which no file is sent, the first `MOST_FOLDERS`: a program may write into one that is there.
    """

    root: Path
    files: Mapping[str, FileEntry]
    digest: str
    bytes: int
    skipped: list[Skipped] = field(default_factory=list)
    source: Path = field(default=Path())
    cache: Path | None = None
    runs_dir: Path | None = None
    unasked: bool = False
    folders: tuple[str, ...] = ()

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
    walk = _Walk(source, runs_dir)
    files: dict[str, FileEntry] = {}
    for path, file in sorted(walk.files.items(), key=lambda found: os.fsencode(found[0])):
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
    within = {path.rpartition("/")[0] for path in files}
    while above := {path.rpartition("/")[0] for path in within} - within:
        within |= above
    return Tree(
        root=source.parent,
        files=files,
        digest=digest_of(files),
        bytes=sum(entry.size for entry in files.values()),
        skipped=walk.skipped,
        source=source,
        cache=cache,
        runs_dir=runs_dir,
        unasked=walk.unasked,
        folders=tuple(path for path in walk.folders if path not in within and path.isprintable())[:MOST_FOLDERS],
    )


def _absolute(source: Path) -> Path:
    # Not resolve(): a link `job -> v2` is sent as `job`.
    return Path(os.path.abspath(source))  # noqa: PTH100


def _refused(message: str, hint: str, code: str = "usage") -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was sent", code=code)


class _Folder(NamedTuple):
    """A folder to look into.

    Attributes:
        names: that lead to it from the source.
        stays: why what is in it stays here, "" if it does not; of what git tracks and of what a rule of cloudtrain's
            own names the opposite may hold. None: each file's own case.
    """

    path: Path
    names: tuple[str, ...]
    rules: ignore.Rules
    stays: str | None


class _Walk:
    """What is found in a source folder.

    Attributes:
        files: to send: where each is, by the path it is sent under.
        folders: all that a program may look for, also where nothing in them is sent.
        skipped, unasked: as `Tree` has them.
    """

    def __init__(self, source: Path, runs_dir: Path | None) -> None:
        self.files: dict[str, str] = {}
        self.skipped: list[Skipped] = []
        self.unasked = False
        self.folders: list[str] = []
        self._source = source
        self._runs = runs_dir.resolve() if runs_dir is not None else None
        self._links: list[tuple[str, str, str | None]] = []
        if source.parent.parent == unpacked():
            every = (file for file in source.rglob("*") if file.is_file())
            self.files = {file.relative_to(source.parent).as_posix(): str(file) for file in every}
            return
        try:
            self._git = repository.members(source)
        except NoAnswer:
            self._git, self.unasked = None, True
        rules, self._lead = ignore.rules_above(source, asked=self._git is not None)
        pending = [_Folder(source, (), rules, None)]
        while pending:
            pending += reversed(list(self._look_into(pending.pop())))
        self._add_links()

    def _look_into(self, at: _Folder) -> Iterator[_Folder]:
        """Note what is in a folder; the folders below it that are to be looked into."""
        try:
            found = sorted(os.scandir(at.path), key=lambda entry: entry.name)
        except OSError as error:
            raise _refused(
                f"cannot read the folder {at.path}: {error.strerror}",
                "make it readable, or ignore it",
                "unreadable_file",
            ) from error
        rules, below = at.rules, "".join(f"{name}/" for name in at.names)
        there = {entry.name for entry in found}
        if there & {ignore.GIT_FILE, ignore.OWN_FILE}:
            rules = rules.below(at.path, below, len(self._lead) + len(at.names))
        if self._git is not None and below and at.stays is None and ".git" in there:
            with suppress(NoAnswer):  # then it has no files, as the repository around it sees it
                self._git.add(below)
        at = at._replace(rules=rules)
        for entry in found:
            path = f"{self._source.name}/{below}{entry.name}"
            link = entry.is_symlink() or _is_junction(entry)
            is_dir = entry.is_dir(follow_symlinks=False) and not link
            names = (*at.names, entry.name)
            stays, within = self._judged(at, names, is_dir)
            if is_dir and not (stays or "").startswith("default:"):
                self.folders.append(path)
            if link and stays in (None, "", ignore.GIT_IGNORED):
                self._links.append((path, entry.path, stays or None))
            elif is_dir and (not stays or (stays == ignore.GIT_IGNORED and rules.bring_back_below(self._lead + names))):
                yield _Folder(at.path / entry.name, names, rules, within)
            elif stays or not entry.is_file(follow_symlinks=False):
                size = None if is_dir else _size(entry)
                self.skipped.append(Skipped(path + "/" * is_dir, stays or "not a plain file", size))
            else:
                self.files[path] = entry.path

    def _judged(self, at: _Folder, names: tuple[str, ...], is_dir: bool) -> tuple[str | None, str | None]:
        """Why a file or folder in the folder `at` stays here, "" or None if it does not; and the same of what is in it.

        `at.stays` is what holds for all that lies beside it.
        """
        path = self._lead + names
        own = ignore.last(at.rules.own, path, is_dir)
        named = own is not None and own.negated and own.spelled_out
        tracked = self._git.tracked("/".join(names)) if self._git is not None else None
        default = ignore.default_rule(names[-1], is_dir=is_dir)
        default = self._folder_rule(at.path / names[-1], names) if is_dir and not default else default
        if default and not named and not (tracked and default.startswith(ignore.MADE_AGAIN)):
            return default, None
        if own is not None:
            return ("", "" if named else at.stays) if own.negated else (own.origin, None)
        if tracked:
            return None, default or at.stays
        stays = at.stays
        if stays is None and self._git is not None:
            stays = ignore.GIT_IGNORED if tracked is None else None
        elif stays is None:
            rule = ignore.last(at.rules.git, path, is_dir)
            stays = None if rule is None or rule.negated else ignore.GIT_IGNORED
        return stays, stays

    def _folder_rule(self, folder: Path, names: tuple[str, ...]) -> str | None:
        if (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir():
            return "default: virtual environment (pyvenv.cfg or conda-meta in it)"
        results = self._runs is not None and folder.name == self._runs.name and folder.resolve() == self._runs
        if results or names == ("runs",) or (folder.name == "wandb" and any(folder.glob("*run-*"))):
            return "default: results of runs"
        return None

    def _add_links(self) -> None:
        """A link must lead to a plain file inside the source that is sent itself."""
        real, links = self._source.resolve(), {}
        for path, link, stays in self._links:
            why = stays
            try:
                target = Path(link).resolve(strict=True)
                if not target.is_relative_to(real):
                    why = "a link out of the folder"
                elif not stat.S_ISREG(target.stat().st_mode):
                    why = "a link to a folder" if target.is_dir() else "a link to what is not a plain file"
                elif f"{self._source.name}/{target.relative_to(real).as_posix()}" not in self.files:
                    why = "a link to what stays here"
            except (OSError, RuntimeError):
                why = "a link that leads nowhere"
            if why is None:
                links[path] = link
            else:
                self.skipped.append(Skipped(path, why))
        self.files |= links


def unpacked() -> Path:
    """Where copies of what was sent are unpacked (`run_folder/code_copy.py`), each in a folder of its own. All that is
    there was sent, so no rule counts."""
    return disk.state_dir() / "code"


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

    def entry(self, path: str, file: str) -> FileEntry:
        """Size, hash and mode of `file`, read only if it may differ from what is remembered.

        Raises:
            UsageError: it cannot be read, or does not hold still.
        """
        try:
            for _ in range(_ATTEMPTS):
                before = os.stat(file)  # noqa: PTH116, a Path each would take longer than all else
                remembered = self._known.get(path)
                if (
                    isinstance(remembered, list)
                    and remembered[:-1] == _identity(before)
                    and disk.is_sha256(remembered[-1])
                ):
                    self._seen[path] = remembered
                    return FileEntry(before.st_size, str(remembered[-1]), _mode(before))
                started = time.time_ns()
                sha256, size = _hash(Path(file))
                after = os.stat(file)  # noqa: PTH116
                if _identity(before) == _identity(after) and size == after.st_size:
                    if max(after.st_mtime_ns, after.st_ctime_ns) < started - RACY_NS:
                        self._seen[path] = [*_identity(after), sha256]
                    return FileEntry(size, sha256, _mode(after))
        except OSError as error:
            raise _refused(
                f"cannot read {file}: {error.strerror}", "make it readable, or ignore it", "unreadable_file"
            ) from error
        raise still_changing(file)

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
