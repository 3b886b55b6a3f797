"""Which settings a project's file may not decide by itself: those of money, and of whom this computer trusts.

A project's file often comes with a repository, from somebody else. What it says of the job holds. What it says of the
settings below holds once the user has agreed to it by `cloudtrain trust`: the agreement is to these values in this
file, and ends when one of them changes. A file that others can write decides none of them.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

from cloudtrain.config import table
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.plan import DEFAULT_LIMIT_S
from cloudtrain.core.spec import Limits

# Any value of these: of a machine, whose login gets the key and sudo, and of its tags, by which AWS tells who pays and
# who else may log in and end it.
_ALWAYS = {each.name for each in table.SETTINGS.values() if each.part in ("ec2", "host")} - {"boot_limit"} | {
    "if_i_vanish",
    "secrets",  # their values leave this computer
}
# More than what holds without the file; where nobody has set that, it is this.
_LIMITS = {
    "max_time": DEFAULT_LIMIT_S,
    "max_cost": inf,
    "grace": Limits().grace_s,
    "spot_restarts": float(Limits().spot_restarts),
    "confirm_above": 0.0,
}
# One outside the project.
_FOLDERS = ("job", "runs_dir")
SETTINGS = (*_ALWAYS, *_LIMITS, *_FOLDERS)
# What waives the question before money is spent is no matter of a file at all unless the user has agreed to it.
CONSENT = "confirm_above"

UNTRUSTED = "is not trusted with that"
_WITHOUT_FLAG = {"runs_dir": "CLOUDTRAIN_RUNS_DIR", CONSENT: "--yes", "tags": "--tag KEY=VALUE"}


def needed(name: str, value: Any, before: Any, folder: Path) -> bool:
    """Whether a project's file in `folder` needs the user's word to set `name` to `value`, which is `before` without
    it (None: not set)."""
    if name in _LIMITS:
        return bool(value > (_LIMITS[name] if before is None else before))
    return name in _ALWAYS or (name in _FOLDERS and not _real(folder, value).is_relative_to(folder.resolve()))


def digest(values: Mapping[str, Any], folder: Path) -> str:
    """Hex sha256 of those of a file's settings that can need trust, folders by where they really are."""
    said = {name: value for name, value in values.items() if name in SETTINGS}
    said |= {name: str(_real(folder, said[name])) for name in _FOLDERS if name in said}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def holds(path: Path, digest: str) -> bool:
    """Whether the user has agreed to these settings of the file at `path`."""
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        return bool(json.loads(_note(path).read_bytes()).get("sha256") == digest)
    return False


def agree(path: Path, digest: str) -> None:
    """Keep that the user has agreed.

    Raises:
        UsageError: the state folder cannot be written.
    """
    note = _note(path)
    try:
        disk.private_dir(note.parent)
        disk.write_durably(note, json.dumps({"path": str(path.resolve()), "sha256": digest}).encode())
    except OSError as error:
        raise UsageError(
            f"{note.parent} cannot be written: {error.strerror}",
            hint="make the folder writable, or set CLOUDTRAIN_HOME to another one",
            consequence="nothing was changed",
            code="folder",
        ) from error


def refusal(origin: str, fault: str, names: Iterable[str], asked: str) -> UsageError:
    """The error for the setting `asked` that must not be taken from the file `origin`, which sets `names` like it."""
    flag = _WITHOUT_FLAG.get(asked, f"{table.SETTINGS[asked].option} or {table.SETTINGS[asked].variable}")
    itself = f"give {flag} yourself"
    named = ", ".join(sorted(names))
    return UsageError(
        f"{origin} sets {named}, and {fault}",
        hint=f"cloudtrain trust {shlex.quote(origin)} shows it and asks; or {itself}"
        if fault == UNTRUSTED
        else f"{itself}, or set it in your own {disk.config_dir() / 'config.toml'}",
        consequence="nothing was started",
        code="not_trusted",
    )


def _real(folder: Path, value: str) -> Path:
    """Where a folder that a setting names really is; the root if that cannot be told, so that it is in no project."""
    try:
        return (folder / value).resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(folder.anchor)


def _note(path: Path) -> Path:
    return disk.state_dir() / "trusted" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
