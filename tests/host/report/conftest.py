"""A real tiny run of the shipped job, made once for all workers, and folders of runs made by hand."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.made import made as made
from tests.region.whole_path.place import Place


@pytest.fixture(scope="session")
def trained(made_once: Callable[[str, Callable[[Path], None]], Path], mnist: Path) -> Place:
    """A place with a run of the shipped job on few pictures, tiny-otter. Not to be changed."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("training here needs the extra `local`")

    def place(folder: Path) -> Place:
        return Place("local", ["--local"], folder / "home", folder / "my digits", {"CLOUDTRAIN_DATA": str(mnist)})

    def train(folder: Path) -> None:
        (folder / "my digits").mkdir()
        flags = ["--name", "tiny-otter", "--model", "3", "--device", "cpu", "--epochs", "2", "--yes"]
        place(folder).cli("run", "--local", *flags, "--", "--subset", "600", timeout=250)

    return place(made_once("report-runs", train))
