"""Row 35: EC2 takes a spot instance back."""

from __future__ import annotations

from tests.region.faults.matrix import TERMINATED, Case
from tests.region.faults.scene import NAME, Scene
from tests.region.whole_path.place import JOBS

KEEPER = JOBS / "keeper"
SPOT = "tests/region/whole_path/test_spot.py"
STEPS = ("--epochs", "3", "--steps", "60", "--pause", "0.1")


def _interrupted(scene: Scene) -> None:
    scene.run(*STEPS, flags=("--spot", "--spot-restarts", "0"), job=KEEPER)
    assert (scene.folder / "checkpoints" / "last.json").exists()


def _goes_on(scene: Scene) -> None:
    scene.run(*STEPS, flags=("--spot",), job=KEEPER)
    assert (scene.folder / "weights.txt").exists()


CASES = (
    Case(
        row=35,
        way="goes on",
        fault="EC2 takes the spot instance back, with notice",
        how="`spot-notice:3s:25s`, `--spot`; the job saves, its checkpoint comes here and goes on to another machine",
        script=("spot-notice:3s:25s",),
        play=_goes_on,
        sees=("EC2 takes this spot instance back", "another spot instance is launched (1 of at most 3 times)"),
        code=0,
        money=TERMINATED,
        launches=2,
        also=(
            f"{SPOT}::test_a_notice_saves_in_mid_epoch_and_the_run_goes_on_elsewhere",
            f"{SPOT}::test_a_machine_that_goes_without_a_word_costs_one_epoch",
        ),
    ),
    Case(
        row=35,
        way="interrupted",
        fault="EC2 takes the spot instance back, and no other one is wanted",
        how="`spot-notice:3s:25s`, `--spot --spot-restarts 0`; what the job saved is here",
        script=("spot-notice:3s:25s",),
        play=_interrupted,
        sees=("EC2 takes this spot instance back", f"cloudtrain run --resume {NAME}"),
        code=7,
        money=TERMINATED,
    ),
)
