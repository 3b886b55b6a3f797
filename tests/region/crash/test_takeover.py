"""A command that is killed anywhere in a takeover (`run --on`): one owner, one timer, and the next command goes on."""

from __future__ import annotations

import time

import pytest

from cloudtrain.billing import expiry
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.store import Run, Store
from tests.lease_end import lease_end
from tests.region.crash.conftest import Killable, launched
from tests.region.crash.points import TAKEOVER
from tests.region.crash.test_points import ended_well
from tests.region.whole_path.place import left

pytestmark = pytest.mark.timeout(300)


def runs(here: Killable) -> tuple[Run, Run, Store]:
    store = Store(here.home / "state" / "registry.sqlite")
    return store.get("first"), store.get("second"), store


def test_a_takeover_whose_every_command_is_killed_ends_well(here: Killable, region: Region) -> None:
    here.cli(*here.toy("first", flags=(*here.flags, "--keep", "30m")))
    old_end = expiry.kept_until(Store(here.home / "state" / "registry.sqlite").get("first"))
    command = [*here.toy("second", flags=("--on", "first", "--max-time", "1h"))]
    began = time.time()
    for case in TAKEOVER:
        here.killed(case.name, *command)
        old, new, store = runs(here)
        [machine] = left(region)["instances"]
        [lives] = [each for each in region.core.lives.machines.values() if each.root.exists()]
        is_new = case.name != "K9"
        # One owner: the one run that has it in its row, its journal and its tokens has it in all of them.
        owners = {run.name for run in (old, new) if run.life.may_exist}
        noted = {run.name for run in (old, new) if store.read_notes(run.name, Ec2Notes).instance}
        assert owners == noted == {"second" if is_new else "first"}, case
        assert (store.read_journal("first").handed_to == "second") == is_new
        # One timer, which no crash has moved past what was agreed to.
        assert lease_end(lives.root) == old_end
        ends_by = store.read_notes("second", Ec2Notes).ends_by
        assert ends_by is None if not is_new else began + 3599 <= ends_by <= time.time() + 3600  # type: ignore[operator]
        # Its tags say so last; what names it and what ends it goes by the registry.
        assert (machine["tags"]["cloudtrain:run"] == "second") == (case.name == "K11")
        if case.name == "K10":
            told = here.cli("clean").stdout.decode()
            assert " second " in told and " first " not in told and case.judged in told, told
            assert "taken over by second" in here.cli("stop", "first", "--yes").stderr.decode()
            assert [each["id"] for each in left(region)["instances"]] == [machine["id"]]
    here.cli("logs", "second")
    ended_well(here, "second")
    assert (launched(region, "first"), launched(region, "second")) == (1, 0) and left(region) == {}
    assert not (here.home / "state" / "keys" / "first").exists()
