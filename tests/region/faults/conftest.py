"""One region for all cases of a test process; a case that must have its own says so."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from tests.region.faults.matrix import Case
from tests.region.faults.scene import KeptLogs, Scene, Struck
from tests.region.whole_path.place import Place

TIMING = Timing(pending_s=0.1, boot_s=0.1, stopping_s=0.1, shutting_down_s=0.1)


@contextlib.contextmanager
def opened(folder: Path, *script: str) -> Iterator[Region]:
    region = Region(folder, timing=TIMING)
    region.faults = Struck()
    region.faults.add(*script)
    with region:
        yield region


@pytest.fixture(scope="session")
def shared_region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    with opened(tmp_path_factory.mktemp("faults") / "region") as region:
        yield region


@pytest.fixture
def scene_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Case], Scene]]:
    """Makes the scene of a case; what the case leaves in the region is taken away afterwards."""
    if sys.platform == "win32":
        pytest.skip("an emulated machine needs a POSIX shell")
    with contextlib.ExitStack() as stack:

        def make(case: Case) -> Scene:
            if case.own:
                region = stack.enter_context(opened(tmp_path / "region", *case.script))
            else:
                region = request.getfixturevalue("shared_region")
                stack.callback(emptied, region)
            logs = stack.enter_context(KeptLogs())
            (tmp_path / "work").mkdir()
            own = {
                # Empty is unset, for botocore as for us; the developer's own must not shine through.
                **{key: "" for key in os.environ if key.startswith("AWS_")},
                **region.environment(),
                **dict(case.environment),
            }
            place = Place("faults", ["--instance", "g4dn.xlarge"], tmp_path / "home", tmp_path / "work", own)
            stack.callback(place.cleanup)
            scene = Scene(region, place, logs, hurried=case.hurried)
            if case.own:
                scene._wanted += case.script
            else:
                scene.inject(*case.script)
            return scene

        yield make


def emptied(region: Region) -> None:
    """Take away what a case that failed has left, so that it does not spoil the next one."""
    region.faults.replace([])
    assert isinstance(region.faults, Struck)
    region.faults.met.clear()
    deadline = time.monotonic() + 30
    while any(region.inventory().values()) and time.monotonic() < deadline:
        clients = Clients(None, region.name, region.endpoint_url, region.access_key)
        with contextlib.suppress(Exception):
            for row in region.inventory()["instances"]:
                clients.ec2.terminate_instances(InstanceIds=[row["id"]])
            for row in region.inventory()["security_groups"]:
                clients.ec2.delete_security_group(GroupId=row["id"])
        time.sleep(0.2)
    assert not any(region.inventory().values())
