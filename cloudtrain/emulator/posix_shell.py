"""The shell of an emulated machine: this computer's, and on Windows the one that comes with Git."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import PureWindowsPath


def find(
    platform: str = sys.platform,
    *,
    which: Callable[[str], str | None] = shutil.which,
    exists: Callable[[str], bool] = os.path.isfile,
    environment: Mapping[str, str] = os.environ,
) -> str | None:
    """Path of a POSIX shell; None on a Windows without Git.

    Windows has a `bash.exe` of its own, which starts the Linux subsystem: that one sees other files and is passed over.
    """
    if platform != "win32":
        return which("bash") or "/bin/sh"
    places = []
    git = which("git")
    if git is not None:
        places.append(PureWindowsPath(git).parent.parent)
    for variable, below in (("ProgramFiles", "Git"), ("LocalAppData", r"Programs\Git"), ("ProgramFiles(x86)", "Git")):
        if environment.get(variable):
            places.append(PureWindowsPath(environment[variable]) / below)
    for place in places:
        program = str(place / "bin" / "bash.exe")
        if exists(program):
            return program
    return None
