"""The places that every whole-path case runs in."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from tests.host.transport.sshd import Sshd, missing
from tests.region.whole_path.place import Place

PLACES = ["local", pytest.param("sshd", marks=pytest.mark.sshd), "emulated"]


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
def here(local_place: Any, tmp_path: Path) -> Iterator[Place]:
    """This computer, as a user has it; modules whose cases are about another place have a `here` of their own."""
    cwd = tmp_path / "my digits"
    cwd.mkdir()
    place: Place = local_place(tmp_path, cwd)
    try:
        yield place
    finally:
        place.cleanup()


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


@pytest.fixture
def emulated_place() -> Iterator[object]:
    regions: list[Region] = []

    def make(tmp_path: Path, cwd: Path) -> Place:
        region = Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1))
        regions.append(region.__enter__())

        def clean() -> None:
            check_record(region)

        flags = ["--instance", "g4dn.xlarge"]
        return Place("emulated", flags, tmp_path / "home", cwd, region.environment(), after=clean)

    yield make
    for region in regions:
        region.__exit__(None, None, None)


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    """An emulated account that is quick."""
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as opened:
        yield opened


@pytest.fixture
def in_account(region: Region, tmp_path: Path) -> Iterator[Place]:
    """This computer, pointed at that account."""
    if sys.platform == "win32":
        pytest.skip("the cases look into /proc")
    place = Place.in_account(region, tmp_path)
    try:
        yield place
    finally:
        place.cleanup()


def check_record(region: Region) -> None:
    """What must hold after every run, good or bad, by the region's own record."""
    assert not any(region.inventory().values()), region.inventory()
    launches = [call for call in region.calls("RunInstances") if not call["parameters"].get("DryRun")]
    assert len([call for call in launches if call["effect"]]) == 1
    tokens = [call["parameters"]["ClientToken"] for call in launches]
    assert all(tokens) and len(set(tokens)) == len(tokens)
    for call in launches:
        told = str(call["parameters"])
        assert "cloudtrain:managed" in told and "cloudtrain:run" in told and "cloudtrain:expires-at" in told
        assert "KeyName" not in told and "IamInstanceProfile" not in told
        assert (call["parameters"]["MinCount"], call["parameters"]["MaxCount"]) in (("1", "1"), (1, 1))
    assert not region.calls("CreateKeyPair") and not region.calls("ImportKeyPair") and not region.calls("CreateTags")
    for call in region.calls("AuthorizeSecurityGroupIngress"):
        told = str(call["parameters"])
        assert "127.0.0.1/32" in told and "0.0.0.0/0" not in told and "22" in told
    assert region.calls("TerminateInstances")
