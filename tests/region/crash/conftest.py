"""One region for all crashes of a test process, and a command line that can be killed at a named point."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudtrain.core import crash
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from tests import commands
from tests.region.whole_path.place import Place, left


@dataclass
class Killable(Place):
    """A place whose commands can be killed from inside."""

    def killed(self, point: str, *argv: str) -> None:
        """Run `cloudtrain ARGV`, which must end by `kill -9` at `point`."""
        done = commands.run(*argv, cwd=self.cwd, env={**self.env(), crash.VARIABLE: point}, timeout=120)
        assert done.returncode == -signal.SIGKILL, f"exit {done.returncode} at {point}:\n{done.stderr.decode()}"


@pytest.fixture(scope="session")
def one_region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    if sys.platform == "win32":
        pytest.skip("an emulated machine needs a POSIX shell")
    timing = Timing(pending_s=0.05, boot_s=0.0, stopping_s=0.05, shutting_down_s=0.05)
    with Region(tmp_path_factory.mktemp("crash") / "region", timing=timing) as opened:
        yield opened


@pytest.fixture
def region(one_region: Region) -> Iterator[Region]:
    """The shared region, with nothing in it before and after."""
    yield one_region
    one_region.faults.replace([])
    standing = left(one_region)
    if standing:
        # A test that failed must not spoil the next one.
        clients = Clients(None, one_region.name, one_region.endpoint_url, one_region.access_key)
        for row in standing.get("instances", []):
            clients.ec2.terminate_instances(InstanceIds=[row["id"]])
        deadline = time.monotonic() + 30
        while left(one_region).get("instances") and time.monotonic() < deadline:
            time.sleep(0.1)
        for row in standing.get("security_groups", []):
            clients.ec2.delete_security_group(GroupId=row["id"])


@pytest.fixture
def here(region: Region, tmp_path: Path) -> Iterator[Killable]:
    place = Killable.in_account(region, tmp_path)
    yield place
    place.cleanup()


def launched(region: Region, name: str) -> int:
    """How many instances the launches of run `name` have made."""
    calls = [call for call in region.calls("RunInstances") if f"'{name}'" in str(call["parameters"])]
    return len([call for call in calls if call["effect"]])
