"""A spot machine is taken back while a job trains on it that does not listen: its end is on the disk in time, even if
nobody can hear of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import discard
from cloudtrain.core.instance import Instance
from cloudtrain.source import tree
from cloudtrain.transfer import push
from cloudtrain.transfer.frames import End, Notice
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Transport
from tests.region.ec2.conftest import Trip

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an emulated machine needs a POSIX shell")

RUN = "cloudtrain/runs/brave-otter"
# It takes longer to save than the machine has.
DEAF = """\
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("saving", flush=True))
print("x" * 100_000, flush=True)
end = time.monotonic() + 600
while time.monotonic() < end:
    time.sleep(0.1)
"""
# The machine's time after the notice, in seconds: the test needs a part of it to start the job on a busy computer.
LEAD_S = 24


def trains(trip: Trip, transport: Transport, instance: Instance, folder: Path) -> Supervisor:
    (folder / "deaf.py").parent.mkdir()
    (folder / "deaf.py").write_text(DEAF)
    files = tree.scan(folder, cache=None)
    pushed = push.push(
        transport,
        files,
        python=instance.python,
        workdir=instance.workdir,
        run_dir=RUN,
        key="deaf",
        target_id=instance.id,
        emit=discard,
    )
    supervisor = Supervisor(transport, instance.python, RUN, instance.workdir)
    spec = {"v": 1, "run": "brave-otter", "tree": "deaf", "digest": pushed.digest, "env": {}, "lasts": None}
    spec |= {"argv": ["python3", "package/deaf.py"], "grace": 5, "spot": bool(instance.details.spot)}
    assert supervisor.start(spec).started
    return supervisor


def left_behind(trip: Trip, instance: Instance) -> dict[str, Any]:
    """The exit record on the machine's disk, read while the machine is still there."""
    machine = trip.region.machines()[instance.id]
    record = machine.root / "home" / "ubuntu" / RUN / "exit.json"
    for _ in range(10 * LEAD_S + 200):
        if record.exists():
            return dict(json.loads(record.read_bytes()))
        time.sleep(0.1)
    raise AssertionError("the machine went without an exit record")


@pytest.mark.parametrize("frozen", [False, True], ids=["followed", "frozen link"])
def test_the_end_is_on_the_disk_before_the_machine_goes(trip_of: Any, tmp_path: Path, frozen: bool) -> None:
    freeze = ("freeze:600:60000",) if frozen else ()
    trip: Trip = trip_of(f"spot-notice:0:{LEAD_S}", *freeze, spot=True)
    instance = trip.acquire()
    ends = time.time() + LEAD_S + 2
    with trip.open(instance) as transport:
        supervisor = trains(trip, transport, instance, tmp_path / "package")
        heard: list[Notice | End] = []
        with supervisor.follow(beat=2.0) as frames:
            if frozen:
                record = left_behind(trip, instance)
                with pytest.raises(ConnectionFailed):
                    list(frames)
            else:
                heard = [frame for frame in frames if isinstance(frame, (Notice, End))]
                record = left_behind(trip, instance)
    assert (record["code"], record["stop"]) == (-9, "spot") and record["at"] < ends
    if not frozen:
        notice, end = heard
        assert isinstance(notice, Notice) and notice.kind == "spot" and notice.ends and notice.ends <= ends
        assert isinstance(end, End) and end.exit is not None and end.exit.stop == "spot"
    trip.release(instance)
    assert trip.left() == {}
