"""Training steps on a CPU: pictures of several steps made ready at once, blocks fused."""

from __future__ import annotations

from torch import Tensor

from job.batches import Batches
from job.data import Split
from job.fused import Masks
from job.models import train_fused
from job.step import Step


class OnCpu:
    """`begin` once an epoch or resumption, then `run` for each step in turn; both count from 0.

    All randomness is a function of seed, epoch and step.
    """

    def __init__(self, step: Step, train: Split, seed: int) -> None:
        self.step, self.train, self.seed, self.masks = step, train, seed, Masks(seed)
        train_fused(step.model, self.masks)

    def begin(self, epoch: int, step: int, order: Tensor) -> None:
        """Stand before `step` of `epoch`, whose order of the pictures is `order`."""
        self.step.begin(epoch, step)
        moved = self.step.moved_steps - epoch * len(self.step.sizes)
        recipe = self.step.recipe
        self.batches = Batches(self.train, order, recipe.batch_size, recipe.augment, moved, self.seed, epoch)

    def run(self, epoch: int, step: int) -> None:
        self.masks.begin(epoch, step)
        images, labels = self.batches.batch(step)
        size = self.step.sizes[step]
        self.step(self.step.kind(epoch, step), images[:size], labels[:size])
