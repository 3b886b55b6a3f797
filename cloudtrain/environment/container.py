"""A program's container: docker on the host pulls its image, or builds it of what was sent of the project."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudtrain.core.environment import Environment
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.environment.asked import Asked
from cloudtrain.environment.there import LIMIT_S, have_built
from cloudtrain.source.tree import Tree
from cloudtrain.transfer.supervisor import Supervisor

# Of the lines that docker gives of an image: the one by which it is the same everywhere.
_PINNED = re.compile(r"(?m)^[A-Za-z0-9][\w./:-]{0,200}@sha256:[0-9a-f]{64}$", re.ASCII)


def prepare(supervisor: Supervisor, asked: Asked, known: str, emit: Emit) -> tuple[Environment, str]:
    """Before the project is sent: the image is pulled, and a Dockerfile's needs a docker that can be used. What the
    image is known by is its lock.

    Args:
        known: the lock of the same image as another machine had it; "": none.

    Raises:
        ConnectionFailed: docker cannot be used or has no such image; the code says why.
    """
    made = Environment(python="python", source=asked.source, image="")
    if asked.dockerfile:
        have_built(supervisor, _request("0" * 16, {}), "", emit)
        return made, ""
    pinned = _PINNED.search(known)
    image = pinned.group() if pinned else asked.image
    key = hashlib.sha256(image.encode()).hexdigest()[:16]
    return _made(supervisor, replace(made, key=key, image=image), {"image": image}, emit)


def build(
    supervisor: Supervisor, made: Environment, asked: Asked, files: Tree, sent: Mapping[str, str], emit: Emit
) -> tuple[Environment, str]:
    """The same with the image of the Dockerfile, whose name is a hash of all that it may copy: one that is there is of
    these very files, and is taken.

    Args:
        sent: key and digest of the tree on the host, as `tree` and `digest`.

    Raises:
        UsageError: the Dockerfile is not among the `files`.
        ConnectionFailed: it could not be built; the code says why.
    """
    folder = asked.folder.relative_to(files.root).as_posix()
    below = {name: entry for name, entry in files.files.items() if name.startswith(f"{folder}/")}
    if f"{folder}/{asked.dockerfile}" not in below:
        raise UsageError(
            f"{asked.dockerfile} is not sent: an ignore rule keeps it here",
            hint=f"a line !{asked.dockerfile} in .cloudtrainignore sends it",
            consequence="nothing has trained",
            code="requirements",
        )
    decides = [1, asked.dockerfile, [(name[len(folder) :], *below[name]) for name in sorted(below)]]
    key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    image = f"cloudtrain/{key}"
    wanted = {"image": image, "folder": folder, "file": asked.dockerfile, **sent}
    return _made(supervisor, replace(made, key=key, image=image), wanted, emit)


def _request(key: str, docker: Mapping[str, str]) -> dict[str, Any]:
    tool = {"name": "docker", "version": "any"}
    return {"v": 1, "key": key, "python": "", "extends": [], "tool": tool, "docker": docker}


def _made(supervisor: Supervisor, made: Environment, wanted: Mapping[str, str], emit: Emit) -> tuple[Environment, str]:
    began = time.monotonic()
    emit(StepStarted("packages", f"{made.source}, by docker", LIMIT_S))
    answer = have_built(supervisor, _request(str(made.key), wanted), "", emit)
    lock = str(answer.get("lock") or "")
    how = "as the machine had it" if answer.get("was") is True else "kept for the next run on this machine"
    emit(StepDone("packages", f"{made.source}: image {made.image}, {how}", time.monotonic() - began))
    return replace(made, lock_sha256=hashlib.sha256(lock.encode()).hexdigest()), lock
