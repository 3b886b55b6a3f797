"""How git is asked, and which files of a folder it has.

A repository may be a stranger's, and its settings can make git run programs: to watch files, to filter them, to fetch
what is missing. So git is asked for what its index, its objects and its ignore files hold, and for nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from cloudtrain.core import programs

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
# An index can be made to name more than a disk holds.
_MOST_BYTES = 256 << 20
_LIMIT_S = 60.0

Ask = Callable[..., str]


class NoAnswer(Exception):
    """Git is not there, does not know the folder, or gives no answer in time and of reasonable length."""


def asking(source: Path, timeout: float) -> Ask:
    """Asks git something in a folder; `fails` is an exit code that means "nothing". All answers together take at most
    `timeout` seconds.

    Raises:
        NoAnswer: there is no git; the function that is returned raises it, too.
    """
    git = programs.find("git", beside=source)
    if git is None:
        raise NoAnswer
    until = time.monotonic() + timeout
    off = [word for name, value in _OFF.items() for word in ("-c", f"{name}={value}")]
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("GIT_")}

    def ask(folder: Path, *arguments: str, fails: int = 0) -> str:
        line = [git, "--no-pager", *off, "-C", str(folder), *arguments]
        nothing, own = subprocess.DEVNULL, {**environment, **_ENVIRONMENT}
        try:
            program = subprocess.Popen(line, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, env=own)
        except (OSError, ValueError) as error:
            raise NoAnswer from error
        timer = threading.Timer(max(0.01, until - time.monotonic()), program.kill)
        timer.start()
        try:
            with program:
                told = program.stdout.read(_MOST_BYTES + 1) if program.stdout else b""
                if len(told) > _MOST_BYTES:
                    program.kill()
        finally:
            timer.cancel()
        if program.returncode not in (0, fails) or len(told) > _MOST_BYTES:
            raise NoAnswer
        return told.decode("utf-8", "surrogateescape")

    return ask


class Members:
    """The files of a folder that its repository has: those that git tracks, whatever a rule says of them, and those
    that no ignore rule of git keeps out."""

    def __init__(self, source: Path, ask: Ask) -> None:
        self._source, self._ask = source, ask
        self._tracked: dict[str, bool] = {}  # of the folders that they lie in, too
        self.add("")

    def add(self, folder: str) -> None:
        """Ask for those of the repository in `folder` ("", or a path below the source that ends with a slash).

        Raises:
            NoAnswer: git gives none.
        """
        asked = ("ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard")
        for line in self._ask(self._source / folder, *asked).split("\0")[:-1]:
            path, tracked = _key(folder + line[2:].removesuffix("/")), not line.startswith("?")
            while path and (path not in self._tracked or tracked > self._tracked[path]):
                self._tracked[path] = tracked
                path = path.rpartition("/")[0]

    def tracked(self, path: str) -> bool | None:
        """Whether git tracks the file at `path`, or something in the folder; None: it has nothing there."""
        return self._tracked.get(_key(path))


def members(source: Path) -> Members | None:
    """What the repository around the folder `source` has of it; of repositories in it, once they are added.

    None without a repository, or if its rules leave the whole folder out, which was named all the same.

    Raises:
        NoAnswer: git gives none.
    """
    top = programs.top(source)
    if not os.path.lexists(top / ".git"):
        return None
    ask = asking(source, _LIMIT_S)
    return None if top != source and ask(source, "check-ignore", ".", fails=1) else Members(source, ask)


def _key(path: str) -> str:
    """What two spellings of one name have in common, where file systems take them for one."""
    return path if sys.platform == "linux" else unicodedata.normalize("NFC", path).casefold()
