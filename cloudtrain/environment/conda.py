"""A conda environment, made on the host of an environment.yml by micromamba, which resolves it there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping

from cloudtrain.core.environment import Environment
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.environment.asked import Asked
from cloudtrain.environment.interpreter import examine
from cloudtrain.environment.there import LIMIT_S, have_built
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Transport

VERSION = "2.8.1-0"
FILES = f"https://github.com/mamba-org/micromamba-releases/releases/download/{VERSION}/"
# Of a platform, as uv calls it, how it begins -> the program below FILES, and its sha256.
PROGRAMS: Mapping[str, tuple[str, str]] = {
    "x86_64-manylinux": (
        "micromamba-linux-64",
        "9689782d863c05a1bf5d2d371ba527104e7a4eb4310c1637d8653b751aed9c82",
    ),
    "aarch64-manylinux": (
        "micromamba-linux-aarch64",
        "e5ba23b5945aa49dfd11022e592a510d2686a8feee810e00140b73c9fdf0ba2a",
    ),
}


def make(
    transport: Transport, supervisor: Supervisor, asked: Asked, platform: str, emit: Emit
) -> tuple[Environment, str]:
    """The environment that `asked` names, and the list of its packages by URL. Its key is of the file: channels move,
    and one that is made stays as it is.

    Raises:
        ConnectionFailed: it could not be made; the code says why.
    """
    began = time.monotonic()
    decides = json.dumps([1, "conda", dict(asked.texts), platform.partition("_2_")[0]], sort_keys=True)
    path, sha256 = next((one for name, one in PROGRAMS.items() if platform.startswith(name)), ("", ""))
    request = {
        "v": 1,
        "key": hashlib.sha256(decides.encode()).hexdigest()[:16],
        "python": "",
        "extends": [],
        "tool": {"name": "micromamba", "version": VERSION, "url": FILES + path if path else "", "sha256": sha256},
    }
    there = supervisor.environment(request)
    lock = there.lock
    if there.ready:
        emit(StepDone("packages", f"{asked.source}, as an earlier run had it (envs/{request['key']})"))
    else:
        emit(StepStarted("packages", f"{asked.source}, by micromamba", LIMIT_S))
        files = {"file": asked.conda, "files": asked.sent()}
        lock = str(have_built(supervisor, {**request, "conda": files}, platform, emit).get("lock") or "")
        kept = f"{asked.source} installed, kept for the next run on this machine (envs/{request['key']})"
        emit(StepDone("packages", kept, time.monotonic() - began))
    found = examine(transport, there.python)
    torch = found.has.get("torch") if found else None
    made = Environment(
        python=there.python,
        bin=there.bin,
        source=asked.source,
        key=str(request["key"]),
        version=found.version if found else "",
        system=platform.partition("_2_")[0],
        torch=torch,
        torch_of="lock" if torch else None,
        packages=sum("://" in line for line in lock.splitlines()),
        lock_sha256=hashlib.sha256(lock.encode()).hexdigest(),
        conda=True,
    )
    return made, lock
