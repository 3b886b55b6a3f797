"""Exports of a real tiny run are what its job told; what is missing is named with its command."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import tomllib
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.report import sources
from cloudtrain.report.export import PACKAGES, write_epochs
from cloudtrain.report.facts import Facts
from cloudtrain.report.notebook import LoadedRun
from tests.made import MadeRun
from tests.region.whole_path.place import Place

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def facts(trained: Place) -> Facts:
    """A real run of Model 3."""
    return sources.of_path(trained.folder("tiny-otter"))


@pytest.mark.mnist
def test_csv_is_what_the_job_wrote(trained: Place, facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "a b"
    done = trained.cli("export", "--to", "csv", "--out", str(out))
    assert done.stdout.decode().strip() == str(out / "metrics.csv") and b"tiny-otter: 2 epochs" in done.stderr
    assert [path.name for path in out.iterdir()] == ["metrics.csv"]
    with (out / "metrics.csv").open(newline="") as ours, (facts.folder / "metrics.csv").open(newline="") as theirs:
        rows, expected = list(csv.DictReader(ours)), list(csv.DictReader(theirs))
    assert list(rows[0]) == list(expected[0])
    for row, told in zip(rows, expected, strict=True):
        # The event is told a moment after the row is kept.
        assert row.pop("timestamp")[:15] == told.pop("timestamp")[:15]
        assert {key: float(value) for key, value in row.items()} == {key: float(value) for key, value in told.items()}


@pytest.mark.mnist
def test_tensorboard_reads_the_epochs(facts: Facts, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for _ in range(2):  # a second export takes the place of the first
        done = write_epochs(facts, "tensorboard", tmp_path)
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == [done.path.name]
    assert done.path.name.endswith(".tiny-otter")
    seen: dict[str, list[tuple[int, float]]] = {}
    for event in EventFileLoader(str(done.path)).Load():
        for value in event.summary.value:
            seen.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    assert set(seen) == {"loss/train", "loss/test", "accuracy/train", "accuracy/test", "learning rate"}
    expected = [(epoch.epoch, pytest.approx(epoch.test_acc, rel=1e-6)) for epoch in facts.epochs]
    assert seen["accuracy/test"] == expected


@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_without_an_epoch_there_is_nothing_to_write(made: MadeRun, tmp_path: Path, to: str) -> None:
    made.events = []
    with pytest.raises(UsageError, match="no finished epoch"):
        write_epochs(made.facts(), to, tmp_path / "out")


@pytest.mark.parametrize("module", ["tensorboard", "torch", "safetensors"])
def test_a_missing_package_is_named_with_its_command(
    made: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    there = set(PACKAGES) - {module}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: name if name in there else None)
    with pytest.raises(UsageError, match=f"^{module} is not installed here") as caught:
        if module == "tensorboard":
            write_epochs(made.facts(), "tensorboard", tmp_path / "out")
        else:
            LoadedRun(made.facts()).state_dict()
    assert caught.value.hint == f'python -m pip install "{PACKAGES[module]}"'
    assert caught.value.code == "no_extra"


def test_weights_that_were_changed_are_not_loaded(made: MadeRun) -> None:
    for module in ("torch", "safetensors"):
        pytest.importorskip(module, reason="the extra `local` is not installed")
    path = made.folder / "weights" / "best.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    made.receipt["artifacts"] = [{"name": "weights/best.safetensors", "size": 7, "sha256": sha256}]
    loaded = LoadedRun(made.facts())
    path.write_bytes(b"other w")
    with pytest.raises(UsageError, match="their sha256 does not match"):
        loaded.state_dict()
    with pytest.raises(UsageError, match="no weights of the last epoch"):
        loaded.state_dict("last")


def test_the_commands_install_what_the_extras_do() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {entry for name in ("local", "tensorboard") for entry in project["optional-dependencies"][name]}
    assert set(PACKAGES.values()) <= wanted


def test_the_default_folder_is_beside_the_runs(made: MadeRun) -> None:
    done = write_epochs(made.facts(), "csv", None)
    assert done.path == made.folder.parent.parent / "exports" / "brave-otter" / "metrics.csv"
