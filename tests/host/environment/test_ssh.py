"""Environments on a host behind a real SSH server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment import uv
from cloudtrain.transport.local import LocalTransport
from cloudtrain.transport.ssh import connect
from cloudtrain.transport.ssh_keys import Keys
from tests.host.environment.conftest import Host, says
from tests.host.transport.conftest import sshd as sshd
from tests.wheels import wheel

pytestmark = pytest.mark.sshd


@pytest.fixture
def far(sshd: Any, image: Path, tmp_path: Path) -> Iterator[Host]:
    """A machine that is reached by SSH; its work folder is the test's own."""
    keys = Keys((sshd.identity,))
    with connect("127.0.0.1", sshd.port, sshd.user, keys, sshd.host_key) as transport:
        machine = Host(transport, tmp_path, image, workdir=str(tmp_path / "far"))
        machine.put_uv(str(tmp_path / "far"))
        yield machine


def test_over_ssh_nothing_of_this_computers_environment_is_needed(
    far: Host, wheels: Path, project: Callable[..., JobSpec]
) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath\n"})
    made = far.prepare(job)
    assert says(made.python, "import ctmath, torch; print(ctmath.version)") == "1.5"
    began = time.monotonic()
    assert far.prepare(job, run="calm-heron") == made and time.monotonic() - began < 1


def test_a_link_that_goes_leaves_no_installation_behind(
    far: Host, wheels: Path, project: Callable[..., JobSpec]
) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath\n"})
    tool = Path(far.workdir, "tools", f"uv-{uv.VERSION}", "uv")
    tool.unlink()
    tool.write_text("#!/bin/sh\necho $$ > ../pid\nexec sleep 60\n")
    tool.chmod(0o700)
    ended: list[BaseException] = []

    def prepare() -> None:
        try:
            far.prepare(job)
        except (CloudtrainError, OSError) as error:
            ended.append(error)

    waiting = threading.Thread(target=prepare)
    waiting.start()
    pid = Path(far.workdir, "pid")
    until(lambda: pid.exists() and pid.read_text().strip() != "")
    far.transport.close()
    waiting.join(20)
    assert ended
    until(lambda: not Path("/proc", pid.read_text().strip()).exists())
    tool.unlink()
    tool.symlink_to(uv.here())
    with LocalTransport(far.login) as transport:
        again = Host(transport, far.login, far.python, workdir=far.workdir)
        assert says(again.prepare(job).python, "import ctmath; print(ctmath.version)") == "1.5"


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "not within 20 s"
        time.sleep(0.02)
