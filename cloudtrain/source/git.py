"""Which version of the code a run was: commit, and one hash over everything that is not in it.

A repository may be a stranger's, and its settings can make git run programs: to watch files, to filter them, to fetch
what is missing. So git is asked for what its objects hold, and for nothing else; the files are compared here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.core import programs
from cloudtrain.core.notes import GitRecord
from cloudtrain.core.text import counted
from cloudtrain.source.tree import FileEntry

# Beats the repository's own settings: none of these questions needs a program, and none gets one.
_OFF = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "protocol.allow": "never",
    "safe.bareRepository": "explicit",
}
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",  # what is missing is fetched by no protocol, whatever the repository allows
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
_LINK, _SUBMODULE = "120000", "160000"
_NO = ("false", "no", "off", "0")
_CHUNK = 1 << 20
# What Git LFS commits in the place of a file.
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"

Ask = Callable[..., str]


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
        tracked: paths below the folder that the commit has, those in its submodules too.
    """

    commit: str
    abbreviated: str
    uncommitted: int
    diff_sha256: str | None
    tracked: frozenset[str]

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
    git = programs.find("git", beside=source)
    if git is None:
        return None
    until = time.monotonic() + timeout
    try:
        ask = _asking(git, until)
        prefix, _, commit = ask(source, "rev-parse", "--show-prefix", "HEAD").removesuffix("\n").rpartition("\n")
        abbreviated = ask(source, "rev-parse", "--short", "HEAD").strip()
        told = ask(source, "config", "--get-regexp", r"^core\.(autocrlf|filemode)$", fails=1).lower()
        habits = {name: value for name, _, value in (line.partition(" ") for line in told.splitlines())}
        sent = {path.partition("/")[2]: entry for path, entry in files.items()}
        differing, tracked = set(sent), set()
        for path, mode, name in _committed(ask, source, commit):
            if time.monotonic() > until:
                return None
            tracked.add(path)
            if _as_committed(source / path, mode, name, sent.get(path), habits):
                differing.discard(path)
            else:
                differing.add(path)
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError):
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
        tracked=frozenset(tracked),
    )


def _asking(git: str, until: float) -> Ask:
    """Asks `git` something in a folder; `fails` is an exit code that means "nothing". Nobody waits past `until`."""
    off = [word for name, value in _OFF.items() for word in ("-c", f"{name}={value}")]
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("GIT_")}

    def ask(folder: Path, *arguments: str, fails: int = 0) -> str:
        done = subprocess.run(
            [git, "--no-pager", *off, "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(0.01, until - time.monotonic()),
            encoding="utf-8",
            errors="surrogateescape",
            env={**environment, **_ENVIRONMENT},
        )
        if done.returncode not in (0, fails):
            raise subprocess.CalledProcessError(done.returncode, arguments)
        return done.stdout

    return ask


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
            except subprocess.CalledProcessError:
                yield lead + path, mode, name  # that commit is not there: it differs


def _as_committed(file: Path, mode: str, name: str, sent: FileEntry | None, habits: Mapping[str, str]) -> bool:
    """Whether `file` is the blob `name` as git would have it: line ends and the right to run it by its settings
    `habits`. What a filter has made of it differs, but for Git LFS."""
    try:
        if mode == _LINK and file.is_symlink():
            return _blob(name, os.fsencode(file.readlink())) == name
        if file.is_symlink() or not file.is_file() or mode == _SUBMODULE:
            return False
        runs = os.name != "nt" and habits.get("core.filemode") not in _NO
        if mode != _LINK and runs and (mode == "100755") != bool(file.stat().st_mode & 0o100):
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
