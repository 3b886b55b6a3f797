"""Programs of this computer, by absolute paths: never one that lies in the project that is worked on."""

from __future__ import annotations

import os
from pathlib import Path


def find(name: str, *, beside: Path) -> str | None:
    """Absolute path of the program `name`, None where there is none.

    Only absolute folders of PATH are asked, never the current one (Windows would begin with it), and none in the
    project of the folder `beside`: that is its repository, or itself where there is none.
    """
    project = top(beside).resolve()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder.strip('"'), f"{name}.exe" if os.name == "nt" else name)
        if not path.is_absolute() or not path.is_file() or not os.access(path, os.X_OK):
            continue
        if not any(place.is_relative_to(project) for place in (path.parent.resolve(), path.resolve())):
            return str(path)
    return None


def top(folder: Path) -> Path:
    """The nearest folder from `folder` upwards that is the top of a git repository, else `folder` itself."""
    return next((one for one in (folder, *folder.parents) if os.path.lexists(one / ".git")), folder)
