"""No unit test starts a process, opens a connection or sleeps: what needs that is in tests/host or tests/region."""

from __future__ import annotations

import errno
import multiprocessing.process
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_PROCESSES = ((multiprocessing.process.BaseProcess, "start"), (os, "fork"), (os, "posix_spawn"), (os, "system"))
_NETWORK = ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket.socket, "bind"))


@pytest.fixture(autouse=True)
def nothing_but_python() -> Iterator[list[str]]:
    """What starts a process, uses the network or sleeps fails at once, or at the test's end if something caught that.

    There is no git and no ssh either: whatever asks for them is answered as on a computer without; nor does the
    training program that comes along say what it would do. The value is what
    the test has done so far of all that.
    """
    broken: list[str] = []

    def refuse(what: str) -> None:
        broken.append(f"A unit test {what}: it belongs in tests/host or tests/region.")
        pytest.fail(broken[-1])

    def refusing(what: str) -> Callable[..., Any]:
        return lambda *_, **__: refuse(what)

    def process(_: Any, command: Any, *__: Any, **___: Any) -> None:
        if not isinstance(command, str) and (Path(command[0]).stem == "git" or "job.options" in command):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
        refuse(f"starts a process ({command})")

    def sleep(seconds: float) -> None:
        if seconds > 0:
            refuse(f"sleeps for {seconds} s")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", process)
        patch.setattr("cloudtrain.transport.ssh_config.client", lambda: None)
        for place, name in _PROCESSES:
            if hasattr(place, name):  # Windows has no fork
                patch.setattr(place, name, refusing(f"starts a process ({name})"))
        for place, name in _NETWORK:
            patch.setattr(place, name, refusing(f"uses the network ({name})"))
        patch.setattr(time, "sleep", sleep)
        yield broken
    if broken:
        pytest.fail(broken[0])
