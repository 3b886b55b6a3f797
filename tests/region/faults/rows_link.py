"""Rows 21, 23, 24, 33, 36, 37 and 39: a link that breaks while files go, while the log comes, while results come."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.lease_end import lease_end
from tests.region.faults.matrix import TERMINATED, Case
from tests.region.faults.rows_launch import NO_INSTANCE
from tests.region.faults.scene import JOBS, NAME, Scene
from tests.region.whole_path.place import JOBS as TOYS

ODD = JOBS / "odd"
WEIGHTS = 3_000_000


def heavy_job(scene: Scene, size: int) -> Path:
    """The toy job with a file beside it that no compression shrinks."""
    job = scene.place.home.parent / "heavy"
    shutil.copytree(TOYS / "toy", job)
    (job / "blob.bin").write_bytes(random.Random(1).randbytes(size))
    return job


def _cut_push(scene: Scene) -> None:
    scene.run(job=heavy_job(scene, 600_000))


def _cut_log(scene: Scene) -> None:
    """Six cuts, each somewhere in the handshake, the login or the log."""
    lengths = random.Random(23)
    scene.relayed()
    with scene.started(*scene.toy("--pause", "0.03", "--lines", "60", "--epochs", "3")) as command:
        scene.until(scene.here)
        scene.inject(*(f"cut:{lengths.randrange(400, 9000)}" for _ in range(6)))
        command.wait(100)


def _freeze(scene: Scene) -> None:
    scene.relayed()
    with scene.started(*scene.toy("--pause", "0.05", "--lines", "60", "--epochs", "3")) as command:
        scene.until(scene.here)
        scene.inject("freeze:60s:1")
        command.wait(100)
    assert scene.seconds < 60


def _reboot(scene: Scene) -> None:
    scene.run("--pause", "0.1", "--lines", "100", "--epochs", "50", flags=("-d",))
    machine = scene.machine()
    before = lease_end(machine.root)
    scene.region.core.lives.reboot(scene.instance())
    scene.until(lambda: machine.boots == 2 and lease_end(machine.root) == before)
    scene.cli("logs", NAME)


def _sshd_away(scene: Scene) -> None:
    with scene.started(*scene.toy("--pause", "0.05", "--lines", "60", "--epochs", "2")) as command:
        scene.until(scene.here)
        scene.region.wait_for(scene.machine().drop_sshd(1.5))
        command.wait(100)


def _sshd_gone(scene: Scene) -> None:
    """sshd ends in mid-training and stays away."""
    with scene.started(*scene.toy("--pause", "0.1", "--lines", "100", "--epochs", "50")) as command:
        scene.until(scene.here)
        machine = scene.machine()
        scene.region.wait_for(machine.drop_sshd(None))
        command.wait(100)
    log = machine.home / "cloudtrain" / "runs" / NAME / "console.log"
    size = log.stat().st_size
    scene.until(lambda: log.stat().st_size > size)


def _cut_pull(scene: Scene) -> None:
    scene.relayed()
    with scene.started(*scene.toy("--weights", str(WEIGHTS), "--silent", "2", job=ODD)) as command:
        scene.until(scene.here)
        scene.inject("cut:1000000", "cut:700000")
        command.wait(100)
    assert (scene.folder / "weights.bin").stat().st_size == WEIGHTS
    assert not list(scene.folder.rglob("*.part"))


def _cut_pull_for_good(scene: Scene) -> None:
    scene.relayed()
    with scene.started(*scene.toy("--weights", str(WEIGHTS), "--silent", "2", job=ODD)) as command:
        scene.until(scene.here)
        scene.inject("cut:30000:*")
        command.wait(100)
    assert not (scene.folder / "weights.bin").exists()


def _pull(scene: Scene) -> None:
    scene.cli("pull", NAME)
    assert scene.code == 0 and (scene.folder / "weights.bin").stat().st_size == WEIGHTS


CASES = (
    Case(
        row=21,
        fault="The connection is reset while the job's files are sent",
        how="`reset-push:200000` with 600 kB to send; what arrived is thrown away, all hashes are checked before the "
        "start",
        script=("reset-push:200000",),
        play=_cut_push,
        sees=("connection lost", "trying again"),
        code=0,
        money=TERMINATED,
        also=("tests/host/transfer/test_push.py::test_a_cut_link_leaves_the_old_tree_and_the_next_push_heals",),
    ),
    Case(
        row=23,
        fault="The connection breaks in the middle of the log, again and again",
        how="six times `cut:N`, N of a seeded choice: in the handshake, the login and the stream",
        play=_cut_log,
        sees=("connection lost; training goes on. Reconnecting", "reconnected"),
        code=0,
        money=TERMINATED,
        hurried=True,
        also=(
            "tests/host/onhost/test_follow.py::test_cut_streams_resume_without_a_byte_lost_or_doubled",
            "tests/host/transport/test_ssh_faults.py::test_a_reset_while_reading",
        ),
    ),
    Case(
        row=24,
        fault="The connection is dead without a word, as when a laptop changes its network",
        how="`freeze:60s`; the silence is noticed (within 12 s, here 3) and a new connection made",
        play=_freeze,
        sees=("connection lost; training goes on. Reconnecting", "reconnected"),
        code=0,
        money=TERMINATED,
        hurried=True,
        also=("tests/host/transport/test_ssh_faults.py::test_a_peer_that_falls_silent_is_noticed",),
    ),
    Case(
        row=33,
        way="comes back",
        fault="The machine's sshd ends in mid-training and comes back",
        how="sshd of the machine ends, and is there again after 1.5 s",
        hurried=True,
        play=_sshd_away,
        sees=("connection lost; training goes on. Reconnecting", "reconnected"),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=33,
        way="stays away",
        fault="The machine's sshd ends in mid-training and stays away",
        how="sshd of the machine ends; the training goes on",
        hurried=True,
        play=_sshd_gone,
        sees=("did not answer on port", "the last on its console:", "cloudtrain logs"),
        code=6,
        money="may be running at $0.536 an hour",
        alive="it parks itself, with its disk, by",
        mend=lambda scene: scene.cli("clean", "--all", "--yes") and None,
        then="`cloudtrain clean --all --yes` ends it without its results; the lease parks it with them",
        log="part",
    ),
    Case(
        row=36,
        fault="The machine reboots in mid-training",
        how="`run -d`, a reboot, `cloudtrain logs`; the lease holds on, the job was told to save",
        play=_reboot,
        sees=("was ended with its machine, which was shut down",),
        code=7,
        money=NO_INSTANCE,
        log="whole",
    ),
    Case(
        row=37,
        fault="The connection breaks in the middle of a result, twice",
        how="`cut:1000000`, `cut:700000` with 3 MB of weights; what had arrived is not sent again",
        play=_cut_pull,
        sees=("connection lost", "trying again", "checksums verified"),
        code=0,
        money=TERMINATED,
        hurried=True,
        also=("tests/unit/transfer/test_pull.py",),
    ),
    Case(
        row=39,
        fault="The results cannot be pulled at all",
        how="`cut:30000:*` from the training on",
        play=_cut_pull_for_good,
        sees=(f"cloudtrain pull {NAME} goes on where this one stopped", "what arrived is kept"),
        code=6,
        money="may be running at $0.536 an hour",
        alive="it parks itself, with its disk, by",
        hurried=True,
        mend=_pull,
        then="`cloudtrain pull` goes on where it stopped, then ends it",
    ),
)
