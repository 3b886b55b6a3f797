"""The step that eager paths and CUDA graphs share does what a plain loop does; graphs do what the step does.

What feeds it (batches) and what it measures (the meter) are here too.
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from job import checkpoint, models, optim
from job.augment import move, normalise
from job.data import Split, load
from job.progress import Progress
from job.recipes import RECIPES, Affine, Recipe, changed
from job.step import CHUNK, Batches, Eager, Graphs, Kind, Meter, NonFiniteLoss, OnCpu

CPU = torch.device("cpu")
FEW = {"epochs": 2, "batch_size": 16, "clean_finish": 0.5}  # 8 steps an epoch, the second one clean


def some_digits(device: torch.device = CPU, count: int = 128) -> Split:
    """Noise with a bright square whose place is the digit: something to learn."""
    stream = torch.Generator().manual_seed(9)
    images = torch.randint(0, 60, (count, 28, 28), dtype=torch.uint8, generator=stream)
    labels = torch.arange(count) % 10
    for index, digit in enumerate(labels.tolist()):
        images[index, 4 + digit : 10 + digit, 6:20] = 255
    return Split(images, labels).to(device)


def progress_of(recipe: Recipe, model: int = 2, device: torch.device = CPU, train: Split | None = None) -> Progress:
    torch.manual_seed(3)
    split = train or some_digits(device)
    return Progress(model, models.build(model).to(device).train(), recipe, 3, device, split, split, None)


@pytest.mark.parametrize(
    "recipe",
    [
        changed(RECIPES["best"][2], FEW),
        changed(RECIPES["seed"][2], {**FEW, "batch_size": 48}),  # 3 steps an epoch, the last of 32 images
    ],
    ids=["adamw, averaged", "sgd"],
)
def test_static_buffers_change_nothing(recipe: Recipe) -> None:
    """Rates, order and step numbers in tensors, against a loop that has them as Python numbers."""
    progress = progress_of(recipe)
    plain = copy.deepcopy(progress.model)
    mean = copy.deepcopy(plain) if recipe.ema else None
    eager = Eager(progress.stepper, progress.train)
    stream = torch.get_rng_state()
    losses: list[float] = []
    for epoch in range(2):
        progress.epoch = epoch
        eager.begin(epoch, 0, progress.order())
        for step in range(progress.steps):
            eager.run(epoch, step)
        losses += progress.meter.losses.tolist()

    torch.set_rng_state(stream)
    optimiser = optim.optimiser(plain, recipe)
    expected: list[float] = []
    done, updates, total = 0, 0, 2 * progress.steps
    for epoch in range(2):
        progress.epoch = epoch
        for chosen in progress.order().split(recipe.batch_size)[: progress.steps]:
            batch = progress.train.images[chosen]
            clean = done >= total - round(recipe.clean_finish * total)
            for group in optimiser.param_groups:
                group["lr"] = torch.tensor(optim.rate(done, total, recipe))
            optimiser.zero_grad()
            loss = F.nll_loss(
                plain(normalise(batch if clean else move(batch, recipe.augment))), progress.train.labels[chosen]
            )
            loss.backward()
            optimiser.step()
            expected.append(loss.item())
            done += 1
            if mean is not None and recipe.ema and done % optim.EMA_EVERY == 0:
                updates += 1
                keep = min(recipe.ema**optim.EMA_EVERY, (1 + updates) / (10 + updates))
                for name, value in mean.state_dict().items():
                    now = plain.state_dict()[name]
                    value.copy_(value + (1 - keep) * (now - value) if value.is_floating_point() else now)
    assert losses == pytest.approx(expected, rel=1e-5)
    same(progress.model, plain)
    if mean is not None:
        same(progress.scored, mean)


def same(ours: nn.Module, theirs: nn.Module, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    wanted = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.allclose(value.cpu(), wanted[name].cpu(), rtol=rtol, atol=atol), name


def test_meter_means_and_names_the_first_step_that_is_no_number() -> None:
    meter = Meter([2, 2, 1], torch.device("cpu"))
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    meter.add(torch.tensor([0]), torch.tensor(1.0), scores, torch.tensor([1, 1]))
    meter.add(torch.tensor([1]), torch.tensor(2.0), scores, torch.tensor([1, 0]))
    meter.add(torch.tensor([2]), torch.tensor(4.0), scores[:1], torch.tensor([0]))
    assert (meter.read(2).loss, meter.read(2).accuracy, meter.read(2).last_loss) == (1.5, 75.0, 2.0)
    assert (meter.read(3).loss, meter.read(3).accuracy) == (10 / 5, 60.0)
    meter.add(torch.tensor([1]), torch.tensor(math.nan), scores, torch.tensor([1, 0]))
    with pytest.raises(NonFiniteLoss) as caught:
        meter.read(3)
    assert caught.value.step == 2


def test_kinds_of_steps() -> None:
    recipe = changed(RECIPES["best"][3], {**FEW, "drop_last": False, "batch_size": 20})  # 7 steps: 6 x 20 and 8
    stepper = progress_of(recipe, model=3).stepper
    kinds = [stepper.kind(epoch, step) for epoch in range(2) for step in range(7)]
    assert [kind.size for kind in kinds] == [*[20] * 6, 8] * 2
    assert [kind.moved for kind in kinds] == [True] * 7 + [False] * 7
    assert [kind.averaged for kind in kinds] == [number == 8 for number in range(1, 15)]


@pytest.mark.parametrize("model", [1, 2, 3])
def test_the_cpu_path_learns(model: int) -> None:
    recipe = changed(RECIPES["best"][model], {"epochs": 6, "batch_size": 16})
    progress = progress_of(recipe, model)
    path = OnCpu(progress.stepper, progress.train, 3)
    for epoch in range(6):
        progress.epoch = epoch
        path.begin(epoch, 0, progress.order())
        for step in range(progress.steps):
            path.run(epoch, step)
        if epoch == 0:
            first = progress.meter.read(progress.steps)
    last = progress.meter.read(progress.steps)
    assert last.loss < 0.85 * first.loss and last.accuracy > first.accuracy


def test_batches_are_the_same_wherever_one_begins() -> None:
    images = torch.randint(0, 256, (1000, 28, 28), dtype=torch.uint8)
    train, order = Split(images, torch.arange(1000) % 10), torch.randperm(1000)
    moved = CHUNK + 3  # the last augmented step is in the middle of a chunk

    def batches() -> Batches:
        return Batches(train, order, 50, Affine(degrees=10.0, shift_px=2.0), moved, seed=4, epoch=2)

    through = batches()
    whole = [tuple(part.clone() for part in through.batch(step)) for step in range(20)]
    for step in (0, 5, CHUNK - 1, CHUNK, moved - 1, moved, 19):
        pictures, labels = batches().batch(step)
        assert torch.equal(pictures, whole[step][0]) and torch.equal(labels, whole[step][1])
    assert torch.equal(torch.cat([labels for _, labels in whole]), train.labels[order])
    for step in (moved - 1, moved):
        plain = images[order[step * 50 : (step + 1) * 50]].float() / 255
        same = torch.allclose(whole[step][0][:, 0] * 0.3081 + 0.1307, plain, atol=1e-5)
        assert same == (step >= moved)


class Uncapturable(Graphs):
    """A device that captures nothing: as where a layer of the model waits for the device."""

    def _eagerly(self, kind: Kind) -> None:
        self.whole(kind)

    def _captured(self, kind: Kind) -> torch.cuda.CUDAGraph:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def test_a_step_that_cannot_be_captured_goes_on_call_by_call() -> None:
    recipe, told = changed(RECIPES["best"][2], FEW), []
    one, other = progress_of(recipe), progress_of(recipe)
    for path in (Uncapturable(one.stepper, one.train, told.append), Eager(other.stepper, other.train)):
        torch.manual_seed(5)
        path.begin(0, 0, one.order())
        for step in range(one.steps):
            path.run(0, step)
    assert told == [
        "CUDA graph: this step cannot be captured (operation not permitted when stream is capturing); "
        "training goes on call by call"
    ]
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())


# with a GPU

gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def train(progress: Progress, path: Any, first: int = 0, last: int | None = None) -> None:
    path.begin(progress.epoch, first, progress.order())
    for step in range(first, progress.steps if last is None else last):
        path.run(progress.epoch, step)
        progress.step = step + 1


@gpu
@needs_cuda
@pytest.mark.parametrize("model", [1, 2, 3])
def test_graphs_do_what_eager_steps_do(model: int) -> None:
    device, told = torch.device("cuda"), []
    recipe = changed(RECIPES["best"][model], {"epochs": 4, "batch_size": 16, "clean_finish": 0.5, "ema": 0.998})
    one, other = progress_of(recipe, model, device), progress_of(recipe, model, device)
    for progress, path in (
        (one, Graphs(one.stepper, one.train, told.append)),
        (other, Eager(other.stepper, other.train)),
    ):
        torch.manual_seed(5)
        for epoch in range(4):
            progress.epoch = epoch
            train(progress, path)
    assert told == ["CUDA graph: training steps are captured and replayed whole"]
    same(one.model, other.model, rtol=1e-3, atol=1e-4)
    same(one.scored, other.scored, rtol=1e-3, atol=1e-4)


@gpu
@needs_cuda
def test_graphs_resume_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    from job.outputs import Outputs

    device = torch.device("cuda")
    recipe = changed(RECIPES["best"][3], {"epochs": 2, "batch_size": 4})  # 32 steps an epoch
    through = progress_of(recipe, 3, device)
    torch.manual_seed(5)
    train(through, Graphs(through.stepper, through.train, print))
    stopped = progress_of(recipe, 3, device)
    torch.manual_seed(5)
    train(stopped, Graphs(stopped.stepper, stopped.train, print), last=20)
    stopped.save(Outputs(tmp_path))
    resumed = progress_of(recipe, 3, device)
    resumed.restore(checkpoint.load(Outputs(tmp_path).checkpoint, resumed.identity()))
    train(resumed, Graphs(resumed.stepper, resumed.train, print), first=20)
    same(resumed.model, through.model, rtol=1e-3, atol=1e-4)


@gpu
@needs_cuda
@pytest.mark.mnist
def test_epoch_time_on_this_gpu(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = torch.device("cuda")
    split = load(mnist)[0].to(device)
    progress = progress_of(RECIPES["best"][3], 3, device, split)
    path = Graphs(progress.stepper, split, print)
    train(progress, path)
    torch.cuda.synchronize()
    progress.epoch, began = 1, time.perf_counter()
    train(progress, path)
    reading = progress.meter.read(progress.steps)
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}: Model 3, {time.perf_counter() - began:.3f} s an epoch")
    assert reading.accuracy > 90
