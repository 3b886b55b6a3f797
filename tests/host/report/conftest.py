"""A real tiny run of the shipped job, made once for all workers, and folders of runs made by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import filelock
import pytest

from tests.made import made as made
from tests.region.whole_path.place import Place


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, mnist: Path, worker_id: str) -> Place:
    """A place with a run of the shipped job on few pictures, tiny-otter. Not to be changed."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("training here needs the extra `local`")
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "report-runs"
    place = Place("local", ["--local"], folder / "home", folder / "my digits", {"CLOUDTRAIN_DATA": str(mnist)})
    with filelock.FileLock(f"{folder}.lock", timeout=280):
        if not (folder / "done").exists():
            place.cwd.mkdir(parents=True)
            flags = ["--name", "tiny-otter", "--model", "3", "--device", "cpu", "--epochs", "2", "--yes"]
            place.cli("run", "--local", *flags, "--", "--subset", "600", timeout=250)
            (folder / "done").touch()
    return place


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """Which xdist worker this is; "master" without xdist."""
    return str(getattr(request.config, "workerinput", {"workerid": "master"})["workerid"])
