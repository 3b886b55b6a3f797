"""Which version of the code a run was: commit, and one hash over everything that is not in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from cloudtrain.core.text import counted
from cloudtrain.source.tree import FileEntry

# No fsmonitor and no locks: looking must not run the repository's programs or disturb another git.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")
_STATUS = "status --porcelain=v1 -z --no-renames --untracked-files=normal --ignored --ignore-submodules=none -- ."
_NOT_TRACKED = ("??", "!!")


@dataclass(frozen=True, slots=True)
class GitState:
    """The state of a folder in its repository.

    Attributes:
        commit: full hash.
        abbreviated: the same, as short as git shows it.
        uncommitted: how many files and new folders in it are not as committed, sent or not.
        diff_sha256: over `path NUL size NUL sha256 NUL mode LF` of each sent file that is not as committed, and
            `path NUL LF` of what is tracked, has changed and is not sent, or gone, in byte order; paths are those in
            the repository. None if nothing that is tracked has changed, and all that is sent is tracked.
    """

    commit: str
    abbreviated: str
    uncommitted: int
    diff_sha256: str | None

    def __str__(self) -> str:
        """For people: "1a2b3c4" or "1a2b3c4 + 2 uncommitted files"."""
        more = f" + {counted(self.uncommitted, 'uncommitted file')}" if self.uncommitted else ""
        return f"{self.abbreviated}{more}"

    def record(self) -> dict[str, str | bool | None]:
        """For the receipt."""
        return {"commit": self.commit, "dirty": self.diff_sha256 is not None, "diff_sha256": self.diff_sha256}


def state(source: Path, files: Mapping[str, FileEntry], *, timeout: float = 20.0) -> GitState | None:
    """What git says of the folder `source`, of which `files` were sent (keys begin with the folder's own name).

    None without git, without a repository or a commit, or when git takes longer than `timeout` seconds a question.
    """
    ask = partial(_ask, source, timeout)
    try:
        prefix, _, commit = ask("rev-parse", "--show-prefix", "HEAD").removesuffix("\n").rpartition("\n")
        abbreviated = ask("rev-parse", "--short", "HEAD").strip()
        lines = ask(*_STATUS.split()).split("\0")[:-1]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    kinds = {line[3:].rstrip("/"): line[:2] for line in lines}
    sent = {prefix + path.partition("/")[2]: entry for path, entry in files.items()}
    differing = {path for path, kind in kinds.items() if kind not in _NOT_TRACKED and path not in sent}
    differing |= {path for path in sent if not kinds.keys().isdisjoint(accumulate(path.split("/"), "{}/{}".format))}
    total = hashlib.sha256()
    for name, path in sorted((os.fsencode(path), path) for path in differing):
        entry = sent.get(path)
        known = b"%d\0%s\0%d" % (entry.size, entry.sha256.encode(), entry.mode) if entry else b""
        total.update(b"%s\0%s\n" % (name, known))
    return GitState(
        commit=commit,
        abbreviated=abbreviated,
        uncommitted=sum(not line.startswith("!!") for line in lines),
        diff_sha256=total.hexdigest() if differing else None,
    )


def tracked(source: Path, *, timeout: float = 20.0) -> frozenset[str]:
    """Paths below the folder `source` that git tracks; none without git or a repository."""
    try:
        return frozenset(_ask(source, timeout, "ls-files", "-z", "--", ".").split("\0")[:-1])
    except (OSError, subprocess.SubprocessError, ValueError):
        return frozenset()


def _ask(source: Path, timeout: float, *arguments: str) -> str:
    return subprocess.run(
        [*_GIT, "-C", str(source), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=timeout,
        encoding="utf-8",
        errors="surrogateescape",
    ).stdout
