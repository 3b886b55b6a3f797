"""Which version of the code a run was: commit, and one hash over everything that is not in it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.source.tree import FileEntry


@dataclass(frozen=True, slots=True)
class GitFacts:
    """The state of a folder in its repository.

    Attributes:
        commit: full hash.
        dirty: something in the folder is not as committed.
        diff_sha256: over `git diff HEAD` of the folder, then `path NUL size NUL sha256 NUL mode LF` of each untracked
            file that was sent, in byte order; None if not dirty.
    """

    commit: str
    dirty: bool
    diff_sha256: str | None


# No fsmonitor, no locks, no programs of the repository's: looking must not run or disturb anything. And nothing of the
# user's configuration may change the bytes of the diff.
_GIT = "git --no-optional-locks -c core.fsmonitor=false -c core.quotepath=true -c diff.orderFile=/dev/null"
_GIT += " -c diff.suppressBlankEmpty=false -c diff.interHunkContext=0"
_DIFF = "diff HEAD --no-color --no-ext-diff --no-textconv --no-renames --full-index --binary --unified=3"
_DIFF += " --diff-algorithm=myers --no-indent-heuristic --src-prefix=a/ --dst-prefix=b/ --ignore-submodules=none"
_DIFF += " --submodule=short -- ."


def facts(source: Path, files: Mapping[str, FileEntry], *, timeout: float = 20.0) -> GitFacts | None:
    """What git says of the folder `source`, of which `files` were sent (keys begin with the folder's own name).

    None without git, without a repository or a commit, or when git takes longer than `timeout` seconds a question.
    """

    def ask(*arguments: str) -> bytes:
        return subprocess.run(
            [*_GIT.split(), "-C", str(source), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=timeout,
        ).stdout

    try:
        commit = ask("rev-parse", "HEAD").decode("ascii").strip()
        tracked = {name.decode("utf-8", "surrogateescape") for name in ask("ls-files", "-z", "--", ".").split(b"\0")}
        diff = ask(*_DIFF.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    total, dirty = hashlib.sha256(diff), bool(diff)
    for path in sorted(files, key=lambda name: name.encode()):
        if path.partition("/")[2] not in tracked:
            size, sha256, mode = files[path]
            total.update(b"%s\0%d\0%s\0%d\n" % (path.encode(), size, sha256.encode(), mode))
            dirty = True
    return GitFacts(commit, dirty, total.hexdigest() if dirty else None)
