"""The shipped job on real MNIST through the command line: a killed command changes not a bit of what comes out."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.region.whole_path.place import Place
from tests.region.whole_path.test_story import sums_hold

pytestmark = [
    pytest.mark.mnist,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the cases look into /proc"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="training here needs the extra `local`"),
]

# A rehearsal of the real thing: more images would show nothing more.
SETTINGS = ["--local", "--model", "3", "--epochs", "2", "--seed", "7", "--device", "cpu", "--yes"]
SUBSET = ["--", "--subset", "1500"]
TIMES = {"timestamp", "seconds", "t", "time", "rate", "at", "started", "ended", "images_per_second"}


def train_both(here: Place) -> None:
    """A run that nothing disturbs; and the same, whose command is killed in mid-training and taken up by another."""
    here.cwd.mkdir()
    here.cli("run", *SETTINGS, "--name", "calm-otter", *SUBSET, timeout=250)
    name = "brave-otter"
    events = here.folder(name) / "events.jsonl"
    with here.started("run", *SETTINGS, "--name", name, *SUBSET) as command:
        here.wait_for(lambda: events.exists() and b'"step"' in events.read_bytes(), seconds=200)
        command.send_signal(signal.SIGKILL)
        command.wait(30)
    assert here.shown(name)["state"] == "running"
    assert here.processes(name), "the training went down with the command"
    here.cli("logs", name, timeout=250)


@pytest.fixture(scope="session")
def here(made_once: Callable[[str, Callable[[Path], None]], Path], mnist: Path) -> Place:
    """This computer, with the data set at hand, and both runs."""

    def place(folder: Path) -> Place:
        return Place("local", ["--local"], folder / "home", folder / "cwd", {"CLOUDTRAIN_DATA": str(mnist)})

    def fill(folder: Path) -> None:
        try:
            train_both(place(folder))
        finally:
            place(folder).cleanup()

    return place(made_once("real-mnist", fill))


@pytest.fixture
def undisturbed(here: Place) -> Path:
    """The folder of the run that nothing disturbed."""
    return here.folder("calm-otter")


@pytest.fixture
def killed(here: Place) -> Path:
    """The folder of the run whose command was killed."""
    return here.folder("brave-otter")


def timeless(value: Any) -> Any:
    """`value` without what the clock has a say in."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES and "second" not in key}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [timeless(row) for row in csv.DictReader(file)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", ["undisturbed", "killed"])
def test_every_result_is_there_and_right(which: str, request: pytest.FixtureRequest, here: Place) -> None:
    import safetensors.torch
    import torch

    from job.models import build
    from tests.host.job.test_train import RESULTS

    folder: Path = request.getfixturevalue(which)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert present >= RESULTS | {"run.json", "console.log", "events.jsonl", "SHA256SUMS"}
    sums_hold(folder)
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    assert listed == present - {"run.json", "SHA256SUMS", "report.html"}
    [on_host] = (here.home / "state" / "local" / "runs").glob(f"{folder.name}-*")
    assert (folder / "console.log").read_bytes() == (on_host / "console.log").read_bytes()
    assert (folder / "events.jsonl").read_bytes() == (on_host / "events.jsonl").read_bytes()
    receipt = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert receipt["status"] == "succeeded"
    assert receipt["log"]["sha256"] == hashlib.sha256((folder / "console.log").read_bytes()).hexdigest()
    for kind in ("best", "last"):
        state = torch.load(folder / "weights" / f"{kind}.pt", weights_only=True)
        build(3).load_state_dict(state, strict=True)
        same = safetensors.torch.load_file(folder / "weights" / f"{kind}.safetensors")
        assert state.keys() == same.keys()
        assert all(torch.equal(state[key], same[key]) for key in state)
    assert not here.processes(folder.name)


@pytest.mark.timeout(600)
def test_a_killed_command_changes_no_bit_of_the_result(undisturbed: Path, killed: Path) -> None:
    for name in ("weights/best.safetensors", "weights/last.safetensors", "predictions.csv", "model_summary.json"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes(), name
    one, other = (json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (undisturbed, killed))
    assert timeless(other) == timeless(one)
    assert rows(killed / "metrics.csv") == rows(undisturbed / "metrics.csv")
    epochs = [
        [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (undisturbed, killed)
    ]
    assert len(epochs[0]) == 2 and epochs[0] == epochs[1]
