"""README.md of a run's folder: the model card, made once, and never over what somebody wrote."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudtrain.report import card, markdown, page, record, words, write_facts
from cloudtrain.report.facts import Facts
from cloudtrain.report.sources import of_path
from cloudtrain.run_folder import files, generated, verify
from tests.made import MadeRun
from tests.region.whole_path.place import Place
from tests.unit.report.test_page import Reader


def original(facts: Facts, which: str = "best") -> Any:
    """The run's network, made here."""
    import torch

    from job.models import build

    net = build(int(facts.settings["model"]))
    net.load_state_dict(torch.load(facts.folder / "weights" / f"{which}.pt", weights_only=True), strict=True)
    return net.eval()


def put_weights(made: MadeRun, data: bytes) -> None:
    path = made.folder / "weights" / "best.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    made.receipt["artifacts"] = [{"name": "weights/best.safetensors", "size": len(data), "sha256": sha256}]


def front_matter(text: str) -> dict[str, object]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


@pytest.mark.mnist
def test_the_example_of_a_real_run_s_card_loads_the_network_that_was_trained(trained: Place, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "elsewhere" / "tiny otter"  # only what the folder holds may be needed
    shutil.copytree(trained.folder("tiny-otter"), folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    front = front_matter(text)
    assert front["library_name"] == "pytorch" and front["datasets"] == ["mnist"] and "mnist" in str(front["tags"])
    # A rehearsal on a part of the test set gives no figure for a leaderboard.
    assert "model-index" not in front and "No accuracy here is one of MNIST" in text
    assert "license" not in front and "## Licence" in text
    example = text.split("```python\n")[1].split("```")[0]
    assert len(example.splitlines()) <= 6
    check = (
        f"{example}\nimport torch\ntorch.save(network(torch.full((2, 1, 28, 28), 0.5)), '../answer.pt')\n"
        f"import job.models, os\nassert os.path.commonpath([code, job.models.__file__]) == code\n"
        f"import shutil\nshutil.rmtree(code)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", check], cwd=folder, check=True, timeout=120)
    answer = torch.load(folder.parent / "answer.pt", weights_only=True)
    with torch.inference_mode():
        assert torch.equal(answer, original(of_path(folder), "best")(torch.full((2, 1, 28, 28), 0.5)))
    # It is made here, so it is neither a result nor a stranger, and is not in the list of sums.
    assert not [check for check in verify.check(folder).checks if check.subject == "README.md"]
    assert b"README.md" not in files.sha256sums(folder).read_bytes()


def written(made: MadeRun) -> Path:
    write_facts(made.facts())
    return made.folder / "README.md"


def test_it_is_made_anew_until_somebody_edits_it(made: MadeRun) -> None:
    put_weights(made, b"weights")
    path = written(made)
    assert generated.is_mine(path)
    first = path.read_bytes()
    made.receipt["machine"]["gpus"] = [{"name": "A10G", "memory_mib": 1}]
    assert written(made).read_bytes() != first and generated.is_mine(path)
    assert front_matter(path.read_text(encoding="utf-8"))["model-index"]
    licensed = path.read_bytes().replace(b"library_name", b"license: mit\nlibrary_name")
    for edited in (licensed, licensed.replace(b"\n", b"\r\n")):  # as an editor on Windows leaves it
        path.write_bytes(edited)
        assert not generated.is_mine(path) and generated.is_derived(path, "README.md")
        assert written(made).read_bytes() == edited
    path.write_text("my notes")
    assert written(made).read_text() == "my notes" and not generated.is_derived(path, "README.md")


def test_a_result_of_that_name_and_a_run_without_weights_get_none(made: MadeRun) -> None:
    assert not written(made).exists()  # no weights
    put_weights(made, b"weights")
    made.receipt["artifacts"].append({"name": "Readme.md", "size": 1, "sha256": "0" * 64})
    assert not written(made).exists()
    made.receipt["artifacts"].pop()
    made.receipt["ended_how"] = None  # it trains
    assert not written(made).exists()
    made.receipt["ended_how"] = "stopped"
    assert "The run was stopped before its end." in written(made).read_text(encoding="utf-8")


def test_without_a_copy_of_the_code_the_weights_are_loaded_alone(made: MadeRun) -> None:
    put_weights(made, b"weights")
    made.receipt["train"]["module"] = "mine.train"
    assert 'state = safetensors.torch.load_file("weights/best.safetensors")' in (card.of_folder(made.facts()) or "")


def held_out(made: MadeRun, opened: float | None) -> Facts:
    made.metrics |= {"scored_on": "held-out training images", "headline": "test", "test": None}
    if opened is not None:
        matrix = [[990 if d == a else 0 for a in range(10)] for d in range(10)]
        made.metrics["test"] = {"epoch": 15, "test_loss": 0.02, "test_acc": opened, "confusion": matrix}
    return made.facts()


def test_figures_of_held_out_images_are_never_called_those_of_the_test_set(made: MadeRun) -> None:
    put_weights(made, b"weights")
    facts = held_out(made, 99.0)
    text = Reader(page.report(facts)).text
    assert "99.00 %" in text and "Nothing was picked on the test set" in text and "opened once, after epoch 15" in text
    assert "Accuracy on held-out training images went from" in text
    assert "9,900 of 9,900 test pictures are right" in text
    assert "that the weights of the last epoch, 15, got wrong" in text
    section = markdown.section(facts)
    assert "Test Accuracy: 99.00 (15th Epoch, the one look at it)" in section and "Best Test Accuracy" not in section
    told = record.build(facts)
    assert told["best"]["picked_on"] == "held-out training images"
    assert told["opened"] == {"epoch": 15, "test_loss": 0.02, "test_acc": 99.0}
    # The weights that are described are the best epoch's, which never saw the test set.
    assert "model-index" not in front_matter(card.of_folder(facts) or "")


def test_a_test_set_that_was_not_opened_has_no_figure(made: MadeRun) -> None:
    facts = held_out(made, None)
    text = Reader(page.report(facts)).text
    assert "accuracy on held-out training images in the last epoch" in text
    assert "The test set has not been opened." in text and facts.confusion is None
    assert words.picked_on(facts) == "held-out training images"
    assert "Test Accuracy" not in markdown.section(facts)
