"""The small pieces, each by itself: schedule, optimiser, averaged weights, augmentation, cores, files."""

from __future__ import annotations

import ast
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from job import cores, files, models, optim, recipes
from job.augment import move, normalise
from job.data import Split
from job.evaluate import confusion, evaluate, per_class
from job.events import EventLog
from job.recipes import RECIPES, Affine


def a_picture() -> torch.Tensor:
    """1 x 28 x 28 bytes: a bright square off the middle."""
    picture = torch.zeros(1, 28, 28, dtype=torch.uint8)
    picture[:, 8:14, 12:20] = 255
    return picture


@pytest.mark.parametrize("epochs", [1, 5, 15])
def test_rate_rises_falls_and_fits_any_length(epochs: int) -> None:
    recipe, steps = RECIPES["best"][1], 937 * epochs
    rates = [optim.rate(step, steps, recipe) for step in range(steps)]
    assert rates[0] == pytest.approx(0.04 * 0.02)
    assert max(rates) == pytest.approx(0.02, rel=1e-4)
    assert rates[-1] == pytest.approx(0.001 * 0.02)
    top = rates.index(max(rates))
    assert top == pytest.approx(0.2 * steps, abs=1)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_rate_of_a_very_short_run_is_a_number(steps: int) -> None:
    assert all(0 < optim.rate(step, steps, RECIPES["best"][3]) <= 0.01 for step in range(steps))


def test_seed_recipe_is_constant_and_keeps_the_last_batch() -> None:
    recipe = recipes.choose("seed", 1, "cpu")
    assert {optim.rate(step, 100, recipe) for step in range(100)} == {0.01}
    assert not recipe.drop_last and (recipe.batch_size, recipes.choose("seed", 1, "cuda").batch_size) == (64, 128)


def test_recipes_are_complete_and_flags_win() -> None:
    assert {name: sorted(by_model) for name, by_model in RECIPES.items()} == {
        name: [1, 2, 3] for name in ("best", "fast", "seed")
    }
    assert all(recipe.name == name for name, by_model in RECIPES.items() for recipe in by_model.values())
    assert [RECIPES["best"][model].lr for model in (1, 2, 3)] == [0.02, 0.04, 0.01]
    chosen = recipes.choose("best", 3, "cpu", epochs=2, batch_size=32, lr=0.5)
    assert (chosen.epochs, chosen.batch_size, chosen.lr, chosen.ema) == (2, 32, 0.5, 0.998)


@pytest.mark.parametrize("name", ["best", "seed"])
def test_weight_decay_is_on_convolutions_alone(name: str) -> None:
    net, recipe = models.build(3), RECIPES[name][3]
    decayed, others = optim.optimiser(net, recipe).param_groups
    assert {parameter.ndim for parameter in decayed["params"]} == {4} and decayed["weight_decay"] == recipe.weight_decay
    assert {parameter.ndim for parameter in others["params"]} == {1} and others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(net.parameters()))


def test_average_follows_slowly_and_counts_batches() -> None:
    net = nn.BatchNorm2d(2)
    average = optim.Average(net, 0.998)
    with torch.no_grad():
        net.weight.fill_(11.0)
    net.num_batches_tracked.fill_(8)
    average.update(net)
    assert average.model.weight.tolist() == pytest.approx([1 + 10 * (1 - 2 / 11)] * 2)
    assert average.model.num_batches_tracked == 8
    for _ in range(2000):
        average.update(net)
    assert average.model.weight.tolist() == pytest.approx([11.0] * 2)
    assert average.decay == pytest.approx(0.998**8)


def test_normalise() -> None:
    flat = normalise(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    assert flat.flatten().tolist() == pytest.approx([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081])
    assert normalise(torch.full((1, 1, 1, 1), 0.1307)).item() == pytest.approx(0, abs=1e-6)


def test_no_limits_move_nothing() -> None:
    picture = a_picture()
    assert torch.allclose(move(picture, Affine())[:, 0], picture / 255, atol=1e-5)


def test_shift_moves_by_pixels_and_stays_within_its_limit() -> None:
    torch.manual_seed(0)
    pictures = a_picture().expand(500, 28, 28)
    moved = move(pictures, Affine(shift_px=2.0))[:, 0]
    rows = torch.arange(28.0).view(28, 1)
    centre = (moved * rows).sum((1, 2)) / moved.sum((1, 2)) - 10.5  # the square's middle row
    assert centre.abs().max() <= 2.01 and centre.min() < -1.5 and centre.max() > 1.5
    assert moved.sum((1, 2)).tolist() == pytest.approx([48.0] * 500, rel=1e-3)  # nothing lost, nothing made


def test_rotation_keeps_area_and_scale_changes_it() -> None:
    torch.manual_seed(0)
    pictures = a_picture().expand(500, 28, 28)
    turned = move(pictures, Affine(degrees=10.0))
    assert turned.sum((1, 2, 3)).tolist() == pytest.approx([48.0] * 500, rel=0.02)
    scaled = move(pictures, Affine(scale=0.10)).sum((1, 2, 3)) / 48
    assert 0.80 < scaled.min() < 0.85 and 1.17 < scaled.max() < 1.22
    sheared = move(pictures, Affine(shear_degrees=5.0)).sum((1, 2, 3))
    assert sheared.tolist() == pytest.approx([48.0] * 500, rel=0.02)


def test_centre_crop_zooms_the_share_of_pictures_it_should() -> None:
    torch.manual_seed(0)
    area = move(a_picture().expand(2000, 28, 28), Affine(crop_chance=0.1)).sum((1, 2, 3)) / 48
    zoomed = area > 1.3
    assert 0.07 < zoomed.float().mean() < 0.13
    assert area[zoomed].mean().item() == pytest.approx((28 / 22) ** 2, rel=0.03)


def test_evaluation_of_a_known_answer() -> None:
    class Knows(nn.Module):
        """Says the number of bright pixels in the first row, with two chances in three."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            digit = (x[:, 0, 0] > 0).sum(1)
            return torch.where(torch.arange(10) == digit.unsqueeze(1), 2 / 3, 1 / 27).log()

    images = torch.zeros(2500, 28, 28, dtype=torch.uint8)
    labels = torch.arange(2500) % 10
    for index, digit in enumerate(labels.tolist()):
        images[index, 0, :digit] = 255
    images[9, 0, 0] = 0  # a nine that reads as an eight
    net = Knows().train()
    score = evaluate(net, Split(images, labels))
    assert net.training and (score.correct, score.total) == (2499, 2500)
    assert score.loss == pytest.approx((2499 * math.log(1.5) + math.log(27)) / 2500, rel=1e-5)
    assert score.confidence.tolist() == pytest.approx([2 / 3] * 2500)
    matrix = confusion(labels, score.predicted)
    assert matrix[9][8] == 1 and matrix[9][9] == 249 and sum(map(sum, matrix)) == 2500
    assert per_class(matrix)[9] == pytest.approx(99.6) and per_class([[0] * 10] * 10) == [None] * 10


def test_evaluation_by_several_threads_gives_the_same_bits_and_leaves_their_number() -> None:
    before = torch.get_num_threads()
    torch.manual_seed(1)
    split = Split(torch.randint(0, 256, (450, 28, 28), dtype=torch.uint8), torch.randint(0, 10, (450,)))
    try:
        for model in (1, 2, 3):
            net, scores = models.build(model).to(memory_format=torch.channels_last), []
            for threads in (1, 3):
                torch.set_num_threads(threads)
                scores.append(evaluate(net, split))
                assert torch.get_num_threads() == threads
            alone, together = scores
            assert (alone.loss, alone.correct, alone.total) == (together.loss, together.correct, together.total)
            assert torch.equal(alone.predicted, together.predicted)
            assert torch.equal(alone.confidence, together.confidence)
        with pytest.raises(RuntimeError, match="size"):
            evaluate(net, Split(split.images[:, :20], split.labels))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("content", "granted"),
    [({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, None), ({}, None), ({"cpu.max": "?"}, None)]
    + [
        ({"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000\n"}, n)
        for quota, n in (("400000", 4), ("-1", None))
    ],
)
def test_cpu_quota(tmp_path: Path, content: dict[str, str], granted: float | None) -> None:
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores.quota(tmp_path) == granted


def test_threads_asked_for_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert cores.usable() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    assert cores.usable() >= 1


def test_how_busy_the_cores_are(tmp_path: Path) -> None:
    source = tmp_path / "loadavg"
    source.write_text("9.87 5.43 2.10 3/412 20417\n")  # the averages are of the past
    assert cores.busy(source) == 2
    source.write_text("nonsense")
    assert cores.busy(source) is None and cores.busy(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("others", "threads", "quota", "expected"),
    [
        (0, 2, None, cores.SPIN),
        (1, 2, None, cores.SLEEP),
        (2, 2, None, cores.SLEEP),
        (None, 2, None, cores.SLEEP),
        (1, 1, None, cores.SLEEP),
        (0, 2, 2.0, cores.SLEEP),
    ],
)
def test_threads_spin_only_on_cores_of_their_own(
    monkeypatch: pytest.MonkeyPatch, others: float | None, threads: int, quota: float | None, expected: dict[str, str]
) -> None:
    for name in (*cores.SPIN, *cores.SLEEP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(cores, "busy", lambda: others)
    monkeypatch.setattr(cores, "usable", lambda: threads)
    monkeypatch.setattr(cores, "quota", lambda: quota)
    assert cores.waiting() == expected
    monkeypatch.setenv("GOMP_SPINCOUNT", "300")
    assert cores.waiting() == {}, "what the user has set, stands"


def test_events_are_whole_lines_of_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.jsonl"
    for _ in range(2):  # a second process appends
        log = EventLog(path)
        log.emit("step", loss=math.nan, matrix=[[math.inf, 1.5]], text="é\n")
        log.close()
    first, second = path.read_bytes().splitlines()
    assert {key: value for key, value in json.loads(first).items() if key != "t"} == {
        "v": 1,
        "kind": "step",
        "loss": None,
        "matrix": [[None, 1.5]],
        "text": "é\n",
    }
    assert json.loads(second)["kind"] == "step"
    EventLog(None).emit("nowhere")


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_whole(path, "\ud800")
    with pytest.raises(OSError):
        files.write_whole(path / "below a file", b"new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock", 0) as first, files.locked(tmp_path / "lock", 0.2) as second:
        assert first and not second
    with files.locked(tmp_path / "lock", 0) as third:
        assert third


def test_job_needs_nothing_but_what_a_host_has() -> None:
    """Python 3.10 syntax; torch, numpy and what requirements.txt names; never cloudtrain."""
    folder = Path(__file__).resolve().parents[3] / "job"
    named = [line for line in (folder / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    allowed = {line.partition(">=")[0] for line in named} | {"torch", "numpy", "job"} | set(sys.stdlib_module_names)
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert {module.partition(".")[0] for module in modules} <= allowed, path.name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print" or path.name == "console.py", f"{path.name} prints"
