"""Links among results: `last.ckpt` to a file, `latest` to a folder. Here, too, they lead to a result of the same run
alone: as a link or, where this computer can make none, as a copy."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from cloudtrain.core import disk


def leads(folder: Path, name: str, to: str) -> bool:
    """Whether `name` below `folder` is a link to `to` below it, or a copy of that."""
    path, target = folder / name, folder / to
    if path.is_symlink():
        there = posixpath.join(posixpath.dirname(name), path.readlink().as_posix())
        return posixpath.normpath(there) == to and (disk.is_plain(target) or disk.is_folder(target))
    copies = [path] if disk.is_plain(path) else [one for one in path.rglob("*") if disk.is_plain(one)]
    return bool(copies) and all(_equal(one, target / one.relative_to(path)) for one in copies)


def stay_inside(folder: Path, path: Path) -> bool:
    """Whether `path`, below `folder`, is a link of the kind that `make` makes."""
    if not path.is_symlink():
        return False
    there = Path(os.path.normpath(path.parent.relative_to(folder) / path.readlink()))
    return not there.is_absolute() and there.parts[0] != ".."


def make(folder: Path, name: str, to: str, files: Iterable[str]) -> None:
    """Make `name` below `folder` lead to `to`, which is below it and there.

    Args:
        files: what may be copied of `to`, by names below `folder`.

    Raises:
        FileNotFoundError: `to` is not there.
        OSError: `name` cannot be written.
    """
    path, target = folder / name, folder / to
    if leads(folder, name, to) and path.is_symlink():
        return
    if not disk.is_plain(target) and not disk.is_folder(target):
        raise FileNotFoundError(to)
    aside = path.with_name(f".{path.name[:80]}.link.part")
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(target, path.parent), target_is_directory=disk.is_folder(target))
        aside.replace(path)
    except OSError:
        # No right to make links, a file system without them, or a folder that was made of an earlier one.
        aside.unlink(missing_ok=True)
        for one in (folder / file for file in files if f"{file}/".startswith(f"{to}/")):
            copy = path / one.relative_to(target)
            if disk.is_plain(one) and not _equal(copy, one):
                copy.parent.mkdir(parents=True, exist_ok=True)
                disk.copy_verified(one, copy, disk.sha256(one) or "")


def _equal(one: Path, other: Path) -> bool:
    return disk.is_plain(one) and disk.is_plain(other) and disk.sha256(one) == disk.sha256(other)
