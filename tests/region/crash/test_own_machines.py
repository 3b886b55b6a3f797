"""The same crash points where the machine is one's own: nothing to leak, nothing trained twice, no result lost."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.transport.ssh_keys import fingerprint
from tests.host.transport.sshd import Sshd, missing
from tests.region.crash.conftest import Killable
from tests.region.crash.test_points import ended_well

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the cases look into /proc")


@pytest.fixture
def this_computer(tmp_path: Path) -> Iterator[Killable]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("training here needs the extra `local`")
    (tmp_path / "cwd").mkdir()
    place = Killable("local", ["--local"], tmp_path / "home", tmp_path / "cwd")
    yield place
    place.cleanup()


@pytest.fixture
def a_host(tmp_path: Path) -> Iterator[Killable]:
    if reason := missing():
        pytest.skip(reason)
    server = Sshd(tmp_path / "sshd", settings=('ForceCommand cd $HOME && eval "$SSH_ORIGINAL_COMMAND"',))
    server.start()
    flags = ["--host", f"{server.user}@127.0.0.1:{server.port}", "--identity", str(server.identity)]
    flags += ["--host-key", fingerprint(server.host_key)]
    (tmp_path / "cwd").mkdir()
    place = Killable("host", flags, tmp_path / "home", tmp_path / "cwd")
    yield place
    place.cleanup()
    server.stop()


def all_killed(place: Killable) -> None:
    """A chain as in `test_points`: each command ends at the next point of a run on such a machine."""
    command = place.toy("own-run")
    for point in ("K5", "K6", "K7"):
        place.killed(point, *command)
        command = ["logs", "own-run"]
    place.cli("pull", "own-run")
    ended_well(place, "own-run")
    receipt = json.loads((place.folder("own-run") / "run.json").read_text())
    assert receipt["exit_code"] == 0
    told = [json.loads(line) for line in (place.folder("own-run") / "events.jsonl").read_text().splitlines()]
    assert [one["kind"] for one in told].count("start") == 1


def test_on_this_computer(this_computer: Killable) -> None:
    all_killed(this_computer)


@pytest.mark.sshd
def test_on_a_host_of_ones_own(a_host: Killable) -> None:
    all_killed(a_host)
