"""A run that goes on from another's checkpoint, here or elsewhere, ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.told import read_events
from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.lifecycle import checkpoints
from cloudtrain.store import Store
from tests.region.whole_path.place import JOBS, ROOT, Place
from tests.region.whole_path.test_real_mnist import rows, timeless
from tests.region.whole_path.test_spot import instances_of, weights
from tests.region.whole_path.test_story import SSHD, sums_hold

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the cases look into /proc")

NAME, REST = "brave-otter", "calm-otter"
# It stands still in the second of three epochs, until it is asked to end.
STANDS = ("--epochs", "3", "--steps", "40", "--wait-at", "2:5")


def keeper(place: Place, *args: str, flags: tuple[str, ...] = ()) -> list[str]:
    return ["run", *place.flags, "--job", str(JOBS / "keeper"), "--name", NAME, "--yes", *flags, "--", *args]


def known(place: Place, name: str = NAME) -> checkpoints.Checkpoint | None:
    store = Store(place.home / "state" / "registry.sqlite")
    return checkpoints.latest(store.get(name), store.read_journal(name))


def stands(place: Place, name: str) -> None:
    """Until the job has come to where it waits, by its log on the host, which is this computer."""
    roots = [place.home, place.home.parent]

    def waits() -> bool:
        logs = {path for root in roots for path in root.rglob(f"runs/{name}*/console.log")}
        return any(b"epoch 2 step 5\n" in path.read_bytes() for path in logs)

    place.wait_for(waits)


def trickled(place: Place) -> bool:
    return place.folder(NAME).joinpath("run.json").exists() and known(place) is not None


@SSHD
def test_a_stopped_run_goes_on_in_mid_epoch(place: Place) -> None:
    place.cli(*keeper(place, *STANDS, flags=("-d",)))
    stands(place, NAME)
    place.cli("stop", NAME, "--yes")
    place.after()
    at = known(place)
    assert at is not None and (at.epoch, at.step) == (1, 5)
    done = place.cli("run", "--resume", NAME, "--name", REST, "--yes").stderr.decode()
    assert f"resume   from {NAME}, {at.where()}" in done
    folder = place.folder(REST)
    assert (folder / "weights.txt").read_text() == weights(3, 40)
    assert (folder / "console.log").read_text().startswith(f"goes on after epoch {at.epoch}, step {at.step}\n")
    receipt = json.loads((folder / "run.json").read_text())
    assert receipt["resumed_from"]["name"] == NAME and receipt["resumed_from"]["checkpoint"] == asdict(at)
    assert receipt["status"] == "succeeded"
    sums_hold(folder)
    assert f"resumed  from {NAME}" in place.cli("show", REST).stdout.decode()
    place.cli("verify", REST)


@SSHD
def test_what_had_come_down_is_enough_when_host_and_command_are_lost(place: Place) -> None:
    """kill -9 of the command, then the host's folder is gone: the last checkpoint that trickled down is a whole one."""
    with place.started(*keeper(place, *STANDS, "--ballast", "3000000")) as command:
        place.wait_for(lambda: trickled(place))
        command.send_signal(signal.SIGKILL)
        command.wait(30)
    os.kill(place.supervisor(NAME), signal.SIGKILL)
    place.wait_for(lambda: not place.processes(NAME), seconds=20)
    at = known(place)
    assert at is not None and (at.epoch, at.step) == (1, 0)
    place.cli("logs", NAME, code=6)
    place.cli("run", "--resume", NAME, "--local", "--name", REST, "--yes")
    assert (place.folder(REST) / "weights.txt").read_text() == weights(3, 40)


@SSHD
def test_log_lines_come_while_a_large_file_does(place: Place) -> None:
    place.environment = {**place.environment, "CLOUDTRAIN_TRICKLE_RATE": "0.5"}
    log, parts = place.folder(NAME) / "console.log", place.folder(NAME) / ".pull"
    options = ("--epochs", "2", "--steps", "20", "--pause", "0.2", "--wait-at", "2:20", "--ballast", "80000000")
    with place.started(*keeper(place, *options)) as command:
        place.wait_for(lambda: any(part.stat().st_size for part in parts.glob("*.part")))
        place.wait_for(lambda: b"epoch 2 step 20\n" in log.read_bytes(), seconds=30)
        [part] = parts.glob("*.part")
        assert 0 < part.stat().st_size < 80_000_000, "it would take 150 s at this rate"
        place.cli("stop", NAME, "--yes")
        command.communicate(timeout=60)
    assert (place.folder(NAME) / "ballast.bin").stat().st_size == 80_000_000
    assert not parts.exists()
    sums_hold(place.folder(NAME))


def test_what_cannot_go_on_says_why(local_place: object, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    place: Place = local_place(tmp_path, tmp_path / "cwd")  # type: ignore[operator]

    def refused(*argv: str) -> str:
        return place.cli("run", "--resume", *argv, code=2).stderr.decode()

    assert 'no run "nobody"' in refused("nobody")
    place.cli(*keeper(place, "--epochs", "1"))
    assert "has finished" in (told := refused(NAME)) and f"cloudtrain rerun {NAME}" in told
    job = ["--job", str(JOBS / "keeper"), "--local", "--yes"]
    place.cli("run", *job, "--name", "quiet-otter", "-d", "--", *STANDS, "--silent")
    assert "has not ended" in refused("quiet-otter")
    stands(place, "quiet-otter")
    place.cli("stop", "quiet-otter", "--yes")
    assert "no checkpoint of quiet-otter is here" in refused("quiet-otter")
    place.cli("run", *job, "--name", "slow-otter", "-d", "--", *STANDS)
    stands(place, "slow-otter")
    place.cli("stop", "slow-otter", "--yes")
    for flags in (["--epochs", "5"], ["--seed", "2"], ["--model", "1"], ["--job", "."], ["--config", "x"]):
        assert f"{flags[0]} cannot be given with --resume" in refused("slow-otter", *flags)
    assert "-- cannot be given with --resume" in refused("slow-otter", "--", "--epochs", "9")
    checkpoint = place.folder("slow-otter") / "checkpoints" / "last.json"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole + b" ")
    assert "it is not what its host had" in refused("slow-otter")
    checkpoint.write_bytes(whole)
    before = place.cli("ls", "-q").stdout
    plan = place.cli("run", "--resume", "slow-otter", "--plan").stderr.decode()
    assert "resume   from slow-otter" in plan and place.cli("ls", "-q").stdout == before


# The shipped job on the real data set: not a bit of what comes out may differ.

TRAIN = ["--job", "job", "--model", "2", "--epochs", "3", "--seed", "7", "--device", "cpu", "--yes"]
SUBSET = ["--", "--subset", "4000"]


def shipped(case: Callable[..., None]) -> Callable[..., None]:
    """Marks of the cases that train for real."""
    torch = importlib.util.find_spec("torch") is not None
    for mark in (pytest.mark.mnist, pytest.mark.slow, pytest.mark.timeout(900)):
        case = mark(case)
    return pytest.mark.skipif(not torch, reason="training here needs the extra `local`")(case)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all that follows lies below, machines of the region too: by it `Place` knows its processes."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def region(folder: Path, mnist: Path) -> Iterator[Region]:
    with Region(folder / "region", timing=Timing(pending_s=0.1, boot_s=0.1), data=mnist) as made:
        yield made


def shipped_job(folder: Path, environment: dict[str, str]) -> Place:
    """This computer, with the shipped job. A copy: all runs are of the same code, whoever edits it meanwhile."""
    shutil.copytree(ROOT / "job", folder / "cwd" / "job", ignore=shutil.ignore_patterns("__pycache__"))
    return Place("local", ["--local"], folder / "home", folder / "cwd", environment)


@pytest.fixture(scope="module")
def here(folder: Path, mnist: Path, region: Region) -> Iterator[Place]:
    place = shipped_job(folder, {"CLOUDTRAIN_DATA": str(mnist), **region.environment()})
    yield place
    place.cleanup()


@pytest.fixture(scope="session")
def undisturbed(made_once: Callable[[str, Callable[[Path], None]], Path], mnist: Path) -> Path:
    """The results of a run that nothing interrupts."""

    def train(folder: Path) -> None:
        place = shipped_job(folder, {"CLOUDTRAIN_DATA": str(mnist)})
        place.cli("run", "--local", *TRAIN, "--name", "whole-otter", *SUBSET, timeout=300)

    return made_once("undisturbed", train) / "cwd" / "runs" / "whole-otter"


def in_epoch(here: Place, name: str, number: int) -> None:
    """Wait until a run is in that epoch."""

    def look() -> bool:
        steps = [event for event in read_events(here.folder(name) / "events.jsonl") if event["kind"] == "step"]
        return bool(steps) and steps[-1]["epoch"] >= number

    here.wait_for(look, seconds=300)


def checkpoint_is_here(here: Place, name: str) -> None:
    """Wait in the second epoch until the checkpoint of the first has come down. The training is held meanwhile: on a
    quick computer its rest is over sooner."""
    in_epoch(here, name, 2)
    jobs = [pid for pid, command in here.processes(name).items() if "job.train" in command]
    assert jobs
    for pid in jobs:
        os.kill(pid, signal.SIGSTOP)
    here.wait_for(lambda: known(here, name) is not None)
    for pid in jobs:
        os.kill(pid, signal.SIGCONT)


def same(one: Path, other: Path) -> None:
    """Weights, predictions and metrics are the same bits; only times differ."""
    files = ("weights/best.safetensors", "weights/last.safetensors", "predictions.csv", "model_summary.json")
    for name in files:
        digests = {hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (one, other)}
        assert len(digests) == 1, name
    documents = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (one, other)]
    assert timeless(documents[0]) == timeless(documents[1])
    assert rows(one / "metrics.csv") == rows(other / "metrics.csv")
    lines = [(folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for folder in (one, other)]
    assert len(lines[0]) == 3
    assert [timeless(json.loads(line)) for line in lines[0]] == [timeless(json.loads(line)) for line in lines[1]]


# Each of these is two trainings. As a rule a checkpoint of mid-epoch goes on on this computer and one of a boundary on
# another machine. The keeper above and in test_spot.py, whose weights are a hash over every step, goes all four ways;
# tests/host/job/test_train.py resumes the real job from both kinds.
LONG = pytest.mark.skipif("CLOUDTRAIN_TEST_LONG" not in os.environ, reason="CLOUDTRAIN_TEST_LONG=1 runs it")


@shipped
@pytest.mark.parametrize(
    "interruption", [pytest.param(True, id="mid-epoch"), pytest.param(False, id="boundary", marks=LONG)]
)
def test_stop_and_resume_change_no_bit(here: Place, undisturbed: Path, interruption: bool) -> None:
    name = f"{'halved' if interruption else 'first'}-otter"
    with here.started("run", "--local", *TRAIN, "--name", name, *SUBSET) as command:
        if interruption:
            in_epoch(here, name, 2)
            here.cli("stop", name, "--yes", timeout=120)
        else:
            # Its last checkpoint is the one of the first epoch: nobody asks it to save.
            checkpoint_is_here(here, name)
            os.kill(here.supervisor(name), signal.SIGKILL)
        command.communicate(timeout=120)
    at = known(here, name)
    assert at is not None and at.epoch in (1, 2) and bool(at.step) is interruption
    here.cli("run", "--resume", name, "--name", f"{name}-2", "--yes", timeout=300)
    same(here.folder(f"{name}-2"), undisturbed)


@shipped
@pytest.mark.parametrize(
    "notice", [pytest.param(True, id="mid-epoch", marks=LONG), pytest.param(False, id="without-a-word")]
)
def test_a_spot_instance_that_is_taken_changes_no_bit(
    here: Place, region: Region, undisturbed: Path, notice: bool
) -> None:
    # The notice is heard within 5 s, wherever the training is by then: seldom, between two epochs.
    for number in range(3):
        name = f"{'warned' if notice else 'lost'}-otter-{number}"
        start = taken(here, region, name, notice=notice)
        same(here.folder(name), undisturbed)
        if not notice or start["resumed"]["step"]:
            return
    pytest.fail("no notice came in mid-epoch")


def taken(here: Place, region: Region, name: str, *, notice: bool) -> dict[str, Any]:
    """A spot run whose instance is taken back, with a notice or without a word, goes on: its second `start` event."""
    from cloudtrain.emulator.aws.core import SPOT_TERMINATION

    spot = ("run", "--instance", "g4dn.xlarge", "--spot", "--max-time", "30m")
    with here.started(*spot, *TRAIN, "--name", name, *SUBSET) as command:
        if notice:
            in_epoch(here, name, 1)
        else:
            checkpoint_is_here(here, name)
        [instance] = [one for one in instances_of(region) if one.state == "running"]
        if notice:
            region.core.lives._notice(instance, 60.0, lambda act: act)
        else:
            region.core.lives.terminate(instance, SPOT_TERMINATION)
        _, told = command.communicate(timeout=300)
    assert command.returncode == 0, told.decode()
    folder = here.folder(name)
    [over] = json.loads((folder / "run.json").read_text())["attempts"]
    # Without a notice the machine's own shutdown may still be heard of before the link is gone.
    assert over["exit"]["stop"] in (("spot",) if notice else (None, "shutdown"))
    assert not any(region.inventory().values())
    starts = [event for event in read_events(folder / "events.jsonl") if event["kind"] == "start"]
    assert len(starts) == 1 and starts[0]["resumed"]
    return dict(starts[0])
