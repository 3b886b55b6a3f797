"""Exports of a real tiny run: each is loaded back and is the original; what is missing is named with its command."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import CloudtrainError, UsageError
from cloudtrain.report import exports, sources
from cloudtrain.report.exports import hub, network
from cloudtrain.report.facts import Facts
from cloudtrain.source.shipped import job_folder
from tests.made import MadeRun
from tests.region.whole_path.place import Place

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def facts(trained: Place) -> Facts:
    """A real run of Model 3."""
    return sources.of_path(trained.folder("tiny-otter"))


def no_code() -> Path:
    raise AssertionError("this needs no code")


def original(facts: Facts, which: str = "best") -> Any:
    """The run's network, made here."""
    import torch

    from job.models import build

    net = build(int(facts.settings["model"]))
    net.load_state_dict(torch.load(facts.folder / "weights" / f"{which}.pt", weights_only=True), strict=True)
    return net.eval()


def batches() -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(7)
    return [torch.randn(count, 1, 28, 28, generator=generator) for count in (1, 5)]


@pytest.mark.mnist
def test_pt2_answers_as_the_original(facts: Facts, tmp_path: Path) -> None:
    import torch

    done = exports.export(facts, "pt2", tmp_path, "last", job_folder)
    assert done.path == tmp_path / "model.pt2" and done.detail.startswith("weights of the last epoch; loaded back")
    loaded = torch.export.load(done.path).module()
    net = original(facts, "last")
    with torch.inference_mode():
        for batch in batches():
            assert (loaded(batch) - net(batch)).abs().max() < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.mnist
def test_onnx_is_one_file_that_answers_as_the_original(trained: Place, facts: Facts, tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module, reason="the extra `export` is not installed")
    import onnx.reference
    import torch

    out = tmp_path / "a b"
    done = trained.cli("export", "--to", "onnx", "--out", str(out))
    assert done.stdout.decode().strip() == str(out / "model.onnx") and b"loaded back" in done.stderr
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    assert 30_000 < (out / "model.onnx").stat().st_size < 300_000
    session = onnx.reference.ReferenceEvaluator(str(out / "model.onnx"))
    net = original(facts)
    with torch.inference_mode():
        for batch in batches():
            (answer,) = session.run(None, {"pictures": batch.numpy()})
            assert (torch.from_numpy(answer) - net(batch)).abs().max() < 1e-5


@pytest.mark.mnist
def test_csv_is_what_the_job_wrote(facts: Facts, tmp_path: Path) -> None:
    done = exports.export(facts, "csv", tmp_path, "best", no_code)
    with done.path.open(newline="") as ours, (facts.folder / "metrics.csv").open(newline="") as theirs:
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
        done = exports.export(facts, "tensorboard", tmp_path, "best", no_code)
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == [done.path.name]
    assert done.path.name.endswith(".tiny-otter")
    seen: dict[str, list[tuple[int, float]]] = {}
    for event in EventFileLoader(str(done.path)).Load():
        for value in event.summary.value:
            seen.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    assert set(seen) == {"loss/train", "loss/test", "accuracy/train", "accuracy/test", "learning rate"}
    expected = [(epoch.epoch, pytest.approx(epoch.test_acc, rel=1e-6)) for epoch in facts.epochs]
    assert seen["accuracy/test"] == expected


@pytest.mark.mnist
def test_the_card_can_be_loaded_as_it_says(facts: Facts, tmp_path: Path) -> None:
    import torch
    import yaml

    done = exports.export(facts, "hub", tmp_path, "last", job_folder)
    text = (done.path / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "pytorch" and front["datasets"] == ["mnist"]
    # A rehearsal on a part of the test set gives no figure for a leaderboard.
    assert "model-index" not in front and "No accuracy here is one of MNIST" in text
    assert "license" not in front and "## Licence" in text
    example = text.split("```python\n")[1].split("```")[0]
    check = f"{example}\nimport torch\ntorch.save(network(torch.full((2, 1, 28, 28), 0.5)), 'answer.pt')\n"
    subprocess.run([sys.executable, "-c", check], cwd=done.path, check=True, timeout=120)
    answer = torch.load(done.path / "answer.pt", weights_only=True)
    with torch.inference_mode():
        assert torch.equal(answer, original(facts, "last")(torch.full((2, 1, 28, 28), 0.5)))


def test_the_card_of_a_whole_run_has_its_result(made: MadeRun, tmp_path: Path) -> None:
    import yaml

    put_weights(made, b"weights")
    done = exports.export(made.facts(), "hub", tmp_path, "best", job_folder)
    front = yaml.safe_load((done.path / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.9944}]
    assert result["dataset"]["name"] == "MNIST"
    assert (done.path / "model.safetensors").read_bytes() == b"weights"
    assert (done.path / "job" / "models.py").read_bytes() == (job_folder() / "models.py").read_bytes()
    assert not (done.path / "job" / "train.py").exists()


def test_the_card_has_all_that_the_network_needs_of_its_package(tmp_path: Path) -> None:
    package = tmp_path / "net"
    (package / "deep").mkdir(parents=True)
    sources = {
        "__init__.py": "",
        "models.py": "from net import layers\nfrom . import deep\nimport net.odd.thing\ndef build(model): ...\n",
        "layers.py": "from net.scale import scale\nimport torch\n",
        "scale.py": "scale = 2\n",
        "train.py": "import net.models\n",
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    (package / "deep" / "__init__.py").write_text("")
    found = hub.network_code(package)
    assert set(found) == {"__init__.py", "models.py", "layers.py", "scale.py", "deep/__init__.py"}
    (package / "models.py").write_text("network = None\n")
    assert hub.network_code(package) == {}


def put_weights(made: MadeRun, data: bytes) -> None:
    import hashlib

    path = made.folder / "weights" / "best.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    made.receipt["artifacts"] = [{"name": "weights/best.safetensors", "size": len(data), "sha256": sha256}]


@pytest.mark.parametrize("to", ["hub", "onnx", "pt2"])
def test_weights_that_were_changed_are_refused(made: MadeRun, tmp_path: Path, to: str) -> None:
    put_weights(made, b"weights")
    facts = made.facts()
    (made.folder / "weights" / "best.safetensors").write_bytes(b"other w")
    with pytest.raises(UsageError, match="their sha256 is another one"):
        exports.export(facts, to, tmp_path / "out", "best", no_code)
    with pytest.raises(UsageError, match="no weights of the last epoch"):
        exports.export(facts, to, tmp_path / "out", "last", no_code)
    assert not (tmp_path / "out").exists()


def test_code_that_knows_no_network_is_told(made: MadeRun, tmp_path: Path) -> None:
    put_weights(made, b"weights")
    package = tmp_path / "mine"
    package.mkdir()
    (package / "train.py").write_text("print('hello')\n")
    made.receipt["train"]["module"] = "mine.train"
    with pytest.raises(UsageError, match="cannot be asked for its network") as caught:
        exports.export(made.facts(), "pt2", tmp_path / "out", "best", lambda: package)
    assert "models.py" in str(caught.value.hint)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_of_the_exporter_is_an_error_with_its_last_words(made: MadeRun, tmp_path: Path) -> None:
    put_weights(made, b"weights")
    package = tmp_path / "mine"
    package.mkdir()
    (package / "models.py").write_text("raise SystemExit('nothing here')\n")
    made.receipt["train"]["module"] = "mine.train"
    with pytest.raises(CloudtrainError, match="could not be exported") as caught:
        exports.export(made.facts(), "pt2", tmp_path / "out", "best", lambda: package)
    assert "nothing here" in str(caught.value.detail)


@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_without_an_epoch_there_is_nothing_to_write(made: MadeRun, tmp_path: Path, to: str) -> None:
    made.events = []
    with pytest.raises(UsageError, match="no finished epoch"):
        exports.export(made.facts(), to, tmp_path / "out", "best", no_code)


@pytest.mark.parametrize(("to", "module"), [("onnx", "onnxscript"), ("pt2", "torch"), ("tensorboard", "tensorboard")])
def test_a_missing_package_is_named_with_its_command(
    made: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, module: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))
    with pytest.raises(UsageError, match=f"{module} is not installed here") as caught:
        exports.export(made.facts(), to, tmp_path / "out", "best", no_code)
    assert caught.value.hint == f'python -m pip install "{network.PACKAGES[module]}"'
    assert caught.value.code == "no_extra"


def test_the_commands_install_what_the_extras_do() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {entry for name in ("local", "export", "tensorboard") for entry in project["optional-dependencies"][name]}
    assert set(network.PACKAGES.values()) <= wanted


def test_the_default_folder_is_beside_the_runs(made: MadeRun) -> None:
    done = exports.export(made.facts(), "csv", None, "best", no_code)
    assert done.path == made.folder.parent.parent / "exports" / "brave-otter" / "metrics.csv"
