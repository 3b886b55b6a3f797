"""Training steps call by call, with all data resident on the device: Apple GPUs, and CUDA where no graph will do."""

from __future__ import annotations

import torch
from torch import Tensor

from job.augment import move, normalise
from job.data import Split
from job.step import Kind, Step


class Eager:
    """`begin` once an epoch or resumption, then `run` for each step in turn; both count from 0.

    Randomness comes from the device's default stream, whose state is in every checkpoint.
    """

    def __init__(self, step: Step, train: Split) -> None:
        self.step, self.train = step, train
        device = train.labels.device
        self.order = torch.zeros(len(train.labels), dtype=torch.int64, device=device)
        self.places = torch.arange(max(step.sizes), device=device)

    def begin(self, epoch: int, step: int, order: Tensor) -> None:
        """Stand before `step` of `epoch`, whose order of the pictures is `order`."""
        self.order.copy_(order)
        self.step.begin(epoch, step)

    def run(self, epoch: int, step: int) -> None:
        self.whole(self.step.kind(epoch, step))

    def whole(self, kind: Kind) -> None:
        """All of the step at which `Step` stands: pictures gathered, augmented and normalised, then learnt from."""
        recipe = self.step.recipe
        chosen = self.order.index_select(0, self.places[: kind.size] + self.step.at * recipe.batch_size)
        images, labels = self.train.images.index_select(0, chosen), self.train.labels.index_select(0, chosen)
        self.step(kind, normalise(move(images, recipe.augment) if kind.moved else images), labels)
