"""Settings files: which of them count in a folder, what stands in them, and whether they are this user's own."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cloudtrain.core.errors import UsageError

NAME = "cloudtrain.toml"
_PYPROJECT = "pyproject.toml"
MOST = 1 << 20  # bytes; nobody writes that many settings


@dataclass(frozen=True, slots=True)
class File:
    """A settings file.

    Attributes:
        table: its settings, as TOML has them.
        fault: why it is not this user's own, in words, to follow "it"; None: nobody else could write it.
    """

    path: Path
    table: Mapping[str, Any]
    fault: str | None = None


def read(path: Path) -> File | None:
    """The file at `path`, of a pyproject.toml its table `[tool.cloudtrain]`; None where there is none.

    Raises:
        UsageError: it cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            fault = _fault(file)
            data = file.read(MOST + 1)
        if len(data) > MOST:
            raise ValueError(f"it has more than {MOST >> 20} MiB")
        # Editors on Windows begin a file with a byte order mark, which TOML does not know.
        table: Any = tomllib.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", hint="correct or remove that file", code="bad_setting"
        ) from error
    if path.name == _PYPROJECT:
        for name in ("tool", "cloudtrain"):
            table = table.get(name) if isinstance(table, dict) else None
    return File(path, table, fault) if isinstance(table, dict) else None


def of_project(here: Path) -> File | None:
    """The nearest cloudtrain.toml, or pyproject.toml with a table for us, from the folder `here` upwards.

    Not above the top of a repository or the user's home, nor in a folder that belongs to somebody else than `here`.

    Raises:
        UsageError: as `read`.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - that of pathlib raises where there is none
    whose = _owner(here)
    for folder in (here, *here.parents):
        if _owner(folder) != whose:
            break
        for path in (folder / NAME, folder / _PYPROJECT):
            if path.is_file() and (folder == here or _owner(path) == whose) and (found := read(path)) is not None:
                return found
        if os.path.lexists(folder / ".git") or folder in (home, home.resolve()):
            break
    return None


def _owner(path: Path) -> int:
    """User id that a path belongs to; on Windows all are one."""
    try:
        return path.stat().st_uid
    except OSError:
        return -1


def _fault(file: BinaryIO) -> str | None:
    if os.name == "nt":
        return None
    status = os.fstat(file.fileno())
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    return "can be written by every user of this computer" if status.st_mode & stat.S_IWOTH else None
