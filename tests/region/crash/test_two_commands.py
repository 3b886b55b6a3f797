"""Two commands on one run: the second follows, reading only, or is refused; they never both act."""

from __future__ import annotations

from cloudtrain.emulator.region import Region
from tests.region.crash.conftest import Killable, launched
from tests.region.crash.test_points import ended_well
from tests.region.whole_path.place import left


def test_while_the_machine_boots_the_second_is_refused_or_waits(here: Killable, region: Region) -> None:
    region.inject("slow-boot:9s")
    with here.started(*here.toy("boot-run")) as first:
        here.wait_for(lambda: launched(region, "boot-run") == 1 and here.shown("boot-run")["state"] == "booting")
        with here.started(*here.toy("boot-run")) as again:
            told = here.cli("stop", "boot-run", "--yes", code=8).stderr.decode()
            assert "another command is acting on boot-run" in told and "this one changed nothing" in told
            assert first.poll() is None
            for command in (first, again):
                _, said = command.communicate(timeout=120)
                assert command.returncode == 0, said.decode()
    ended_well(here, "boot-run")
    assert launched(region, "boot-run") == 1 and left(region) == {}


def test_after_a_kill_two_commands_at_once_start_and_end_it_once(here: Killable, region: Region) -> None:
    here.killed("K5:2", *here.toy("both-run"))
    with here.started("logs", "both-run") as one, here.started("logs", "both-run") as other:
        for command in (one, other):
            _, said = command.communicate(timeout=120)
            assert command.returncode == 0, said.decode()
    ended_well(here, "both-run")
    assert launched(region, "both-run") == 1 and left(region) == {}
    ends = [call for call in region.calls("TerminateInstances") if call["effect"]]
    assert len([call for call in ends if call["parameters"]["InstanceId.1"] == _machine(region)]) == 1


def _machine(region: Region) -> str:
    """The instance that was started last."""
    return list(region.machines())[-1]
