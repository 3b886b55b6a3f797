"""One training step, from a batch of pictures to the next weights.

Whatever changes from step to step lies in tensors on the device (which step it is, the learning rate), so the very
same calls can run one by one or be captured into a CUDA graph (`graphs.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from job.meter import Meter
from job.optim import EMA_EVERY, Average, rate, share_rate
from job.recipes import Recipe


@dataclass(frozen=True)
class Kind:
    """What differs between steps in more than numbers: `size` images, augmented or not, weights averaged after it."""

    size: int
    moved: bool
    averaged: bool


class Step:
    """Forward, backward, optimiser, metrics, averaged weights. Waits for the device nowhere."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Average | None,
        meter: Meter,
        recipe: Recipe,
        sizes: list[int],
    ) -> None:
        self.model, self.optimiser, self.average, self.meter = model, optimiser, average, meter
        self.recipe, self.sizes = recipe, sizes
        self.all_steps = recipe.epochs * len(sizes)
        self.moved_steps = self.all_steps - round(recipe.clean_finish * self.all_steps)
        device = meter.losses.device
        rates = [rate(step, self.all_steps, recipe) for step in range(self.all_steps)]
        self.rates = torch.tensor(rates, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)  # steps done in this epoch
        self.done = torch.zeros(1, dtype=torch.int64, device=device)  # and in the run
        self.lr = share_rate(optimiser)

    def begin(self, epoch: int, step: int) -> None:
        """Stand before `step` of `epoch`, both from 0."""
        self.at.fill_(step)
        self.done.fill_(epoch * len(self.sizes) + step)
        self.lr = share_rate(self.optimiser)  # a restored optimiser has tensors of its own

    def kind(self, epoch: int, step: int) -> Kind:
        """Of which kind `step` of `epoch` is."""
        done = epoch * len(self.sizes) + step
        averaged = self.average is not None and (done + 1) % EMA_EVERY == 0
        return Kind(self.sizes[step], done < self.moved_steps, averaged)

    def __call__(self, kind: Kind, images: Tensor, labels: Tensor) -> None:
        """Learn from N x 1 x 28 x 28 normalised pictures and their digits, and go on to the next step."""
        self.lr.copy_(self.rates.index_select(0, self.done).view(()))
        self.optimiser.zero_grad(set_to_none=True)
        scores = self.model(images)
        loss = F.nll_loss(scores, labels)
        loss.backward()
        self.optimiser.step()
        if kind.averaged and self.average is not None:
            self.average.update(self.model)
        self.meter.add(self.at, loss, scores, labels)
        self.at.add_(1)
        self.done.add_(1)
