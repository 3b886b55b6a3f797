"""A registry that is torn, emptied or gone: told clearly, nothing is launched blindly, the machine is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.emulator.region import Region
from tests.region.crash.conftest import Killable, launched
from tests.region.crash.test_points import ended_well
from tests.region.whole_path.place import left

pytestmark = pytest.mark.timeout(600)


def garbage(registry: Path) -> None:
    registry.write_bytes(b"\x00not a registry\xff" * 500)


def cut_in_half(registry: Path) -> None:
    data = registry.read_bytes()
    for file in registry.parent.glob("registry.sqlite-*"):
        file.unlink()
    registry.write_bytes(data[: len(data) // 2])


def emptied(registry: Path) -> None:
    for file in registry.parent.glob("registry.sqlite-*"):
        file.unlink()
    registry.write_bytes(b"")


def torn_row(registry: Path) -> None:
    import sqlite3

    with sqlite3.connect(registry) as db:
        db.execute("UPDATE runs SET plan = substr(plan, 1, 40)")
    db.close()


def test_a_torn_registry_is_told_and_hides_no_machine(here: Killable, region: Region) -> None:
    here.killed("K6", *here.toy("torn-run"))
    (machine,) = [row["id"] for row in left(region)["instances"]]
    registry = here.home / "state" / "registry.sqlite"
    # What is in the log of a killed command goes into the file first, so that there is something to tear.
    here.cli("ls")
    kept = here.home.with_name("kept")
    shutil.copytree(here.home / "state", kept)
    # A row that cannot be read is that run's alone, and warned of by the others' commands.
    torn: tuple[tuple[Callable[[Path], None], list[list[str]]], ...] = (
        (garbage, [["logs", "torn-run"], here.toy("other-run")]),
        (cut_in_half, [here.toy("other-run")]),
        (torn_row, [here.toy("torn-run")]),
    )
    before = len(region.calls("RunInstances"))
    for tear, commands in torn:
        shutil.rmtree(here.home / "state")
        shutil.copytree(kept, here.home / "state")
        tear(registry)
        for argv in commands:
            told = here.cli(*argv, code=2).stderr.decode()
            assert "registry" in told and "move" in told and "away" in told, (tear.__name__, argv, told)
        done = here.cli("clean", "--yes")
        assert machine in done.stdout.decode() and b"going on without it" in done.stderr, tear.__name__
        assert " ends in " in done.stdout.decode() and len(left(region)["instances"]) == 1
    assert len(region.calls("RunInstances")) == before
    # An empty file is a new registry. The folder of the run is still there: its name is not taken twice.
    shutil.rmtree(here.home / "state")
    shutil.copytree(kept, here.home / "state")
    emptied(registry)
    assert b"already exists" in here.cli(*here.toy("torn-run"), code=2).stderr
    here.cli("adopt", machine)
    here.cli("logs", "torn-run")
    ended_well(here, "torn-run")
    assert launched(region, "torn-run") == 1 and left(region) == {}
