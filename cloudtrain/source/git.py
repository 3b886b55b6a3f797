"""Which version of the code a run was: commit, and one hash over everything that is not in it.

The files are compared here: git would run what the repository's settings name as a filter.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.core.notes import GitRecord
from cloudtrain.core.text import counted
from cloudtrain.source.repository import Ask, NoAnswer, asking
from cloudtrain.source.tree import FileEntry

_LINK, _SUBMODULE = "120000", "160000"
_NO = ("false", "no", "off", "0")
_CHUNK = 1 << 20
# What Git LFS commits in the place of a file.
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


@dataclass(frozen=True, slots=True)
class GitState:
    """The state of a folder in its repository.

    Attributes:
        commit: full hash.
        abbreviated: the same, as short as git shows it.
        uncommitted: how many files are not as committed: those that are tracked and have changed or gone, and those
            that are sent and not tracked.
        diff_sha256: over `path NUL size NUL sha256 NUL mode LF` of each sent file that is not as committed, and
            `path NUL LF` of what is tracked, has changed and is not sent, or gone, in byte order; paths are those in
            the repository. None if nothing that is tracked has changed, and all that is sent is tracked.
    """

    commit: str
    abbreviated: str
    uncommitted: int
    diff_sha256: str | None

    def __str__(self) -> str:
        """Human-readable: "1a2b3c4" or "1a2b3c4 + 2 uncommitted files"."""
        more = f" + {counted(self.uncommitted, 'uncommitted file')}" if self.uncommitted else ""
        return f"{self.abbreviated}{more}"

    def record(self) -> GitRecord:
        """For the receipt."""
        return GitRecord(commit=self.commit, dirty=self.diff_sha256 is not None, diff_sha256=self.diff_sha256)


def state(source: Path, files: Mapping[str, FileEntry], *, timeout: float = 20.0) -> GitState | None:
    """What the commit of the folder `source` says of it, of which `files` were sent (keys begin with its own name).

    None without git, without a repository or a commit, or when it takes longer than `timeout` seconds.
    """
    until = time.monotonic() + timeout
    try:
        ask = asking(source, timeout)
        prefix, _, commit = ask(source, "rev-parse", "--show-prefix", "HEAD").removesuffix("\n").rpartition("\n")
        abbreviated = ask(source, "rev-parse", "--short", "HEAD").strip()
        told = ask(source, "config", "--get-regexp", r"^core\.(autocrlf|filemode)$", fails=1).lower()
        habits = {name: value for name, _, value in (line.partition(" ") for line in told.splitlines())}
        sent = {path.partition("/")[2]: entry for path, entry in files.items()}
        differing = set(sent)
        for path, mode, name in _committed(ask, source, commit):
            if time.monotonic() > until:
                return None
            if _as_committed(source / path, mode, name, sent.get(path), habits):
                differing.discard(path)
            else:
                differing.add(path)
    except (NoAnswer, OSError, ValueError, RecursionError):
        return None  # RecursionError: a crafted repository may nest submodules without an end
    total = hashlib.sha256()
    for name_, path in sorted((os.fsencode(prefix + path), path) for path in differing):
        entry = sent.get(path)
        known = b"%d\0%s\0%d" % (entry.size, entry.sha256.encode(), entry.mode) if entry else b""
        total.update(b"%s\0%s\n" % (name_, known))
    return GitState(
        commit=commit,
        abbreviated=abbreviated,
        uncommitted=len(differing),
        diff_sha256=total.hexdigest() if differing else None,
    )


def _committed(ask: Ask, folder: Path, tree: str, lead: str = "") -> Iterator[tuple[str, str, str]]:
    """(path seen from the source, mode, hash) of each file of the commit `tree` in `folder`; of a submodule that is
    there, the files of the commit that it should be at."""
    for line in ask(folder, "ls-tree", "-r", "-z", tree).split("\0")[:-1]:
        about, _, path = line.partition("\t")
        mode, _, name = about.split(" ")
        if mode != _SUBMODULE:
            yield lead + path, mode, name
        elif (folder / path / ".git").exists():
            try:
                yield from _committed(ask, folder / path, name, f"{lead}{path}/")
            except NoAnswer:
                yield lead + path, mode, name  # that commit is not there: it differs


def _as_committed(file: Path, mode: str, name: str, sent: FileEntry | None, habits: Mapping[str, str]) -> bool:
    """Whether `file` is the blob `name` as git would have it: line ends and the right to run it by its settings
    `habits`. What a filter has made of it differs, but for Git LFS."""
    try:
        here = file.lstat().st_mode
        if mode == _LINK and stat.S_ISLNK(here):
            return _blob(name, os.fsencode(file.readlink())) == name
        if not stat.S_ISREG(here) or mode == _SUBMODULE:
            return False
        runs = os.name != "nt" and habits.get("core.filemode") not in _NO
        if mode != _LINK and runs and (mode == "100755") != bool(here & 0o100):
            return False
        if _hash(name, file) == name:
            return True
        if sent is not None and _blob(name, _POINTER.format(sent.sha256, sent.size).encode()) == name:
            return True
        if habits.get("core.autocrlf", "false") in _NO:
            return False
        data = file.read_bytes()
        return b"\0" not in data and _blob(name, data.replace(b"\r\n", b"\n")) == name
    except OSError:
        return False


def _blob(like: str, data: bytes) -> str:
    """Hash of a blob in the kind of hash that `like` is."""
    start = b"blob %d\0" % len(data) + data
    return (hashlib.sha256(start) if len(like) == 64 else hashlib.sha1(start, usedforsecurity=False)).hexdigest()


def _hash(like: str, file: Path) -> str:
    """The same of what `file` holds."""
    with file.open("rb") as stream:
        start = b"blob %d\0" % os.fstat(stream.fileno()).st_size
        total = hashlib.sha256(start) if len(like) == 64 else hashlib.sha1(start, usedforsecurity=False)
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()
