"""The places that every whole-path case runs in."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.sshd import Sshd, missing
from tests.whole_path.place import Place

PLACES = ["local", pytest.param("sshd", marks=pytest.mark.sshd)]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """One target, empty."""
    if sys.platform == "win32":
        pytest.skip("the cases look into /proc")
    cwd = tmp_path / "a folder, žluťoučký"
    cwd.mkdir()
    made = request.getfixturevalue(f"{request.param}_place")(tmp_path, cwd)
    try:
        yield made
    finally:
        made.cleanup()


@pytest.fixture
def local_place() -> object:
    def make(tmp_path: Path, cwd: Path) -> Place:
        if importlib.util.find_spec("torch") is None:
            pytest.skip("training here needs the extra `local`")
        return Place("local", ["--local"], tmp_path / "home", cwd)

    return make


@pytest.fixture
def sshd_place() -> Iterator[object]:
    servers: list[Sshd] = []

    def make(tmp_path: Path, cwd: Path) -> Place:
        if reason := missing():
            pytest.skip(reason)
        # Sessions begin in the server's own home folder and not in the developer's.
        server = Sshd(tmp_path / "sshd", settings=('ForceCommand cd $HOME && eval "$SSH_ORIGINAL_COMMAND"',))
        servers.append(server)
        server.start()
        from cloudtrain.transport.ssh_keys import fingerprint

        flags = ["--host", f"{server.user}@127.0.0.1:{server.port}", "--identity", str(server.identity)]
        flags += ["--host-key", fingerprint(server.host_key)]
        return Place("sshd", flags, tmp_path / "home", cwd)

    yield make
    for server in servers:
        server.stop()
