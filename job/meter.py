"""Loss and hits of one epoch, kept on the device so that a step never waits for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """`last_loss` of the last batch; `loss` and `accuracy` (percent) over all images seen so far in the epoch."""

    last_loss: float
    loss: float
    accuracy: float


class NonFiniteLoss(Exception):
    """The loss of `step` (from 1) is nan or infinite."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"loss {loss} at step {step}")
        self.step = step
        self.loss = loss


class Meter:
    """One number a step for loss and hits; `sizes` are the images of each step."""

    def __init__(self, sizes: list[int], device: torch.device) -> None:
        self.sizes = torch.tensor(sizes, device=device)
        self.losses = torch.zeros(len(sizes), device=device)
        self.hits = torch.zeros(len(sizes), dtype=torch.int64, device=device)

    def add(self, step: Tensor, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Note `step` (one number, from 0): mean loss of its batch, and how many best answers of `scores` are right."""
        self.losses.index_copy_(0, step, loss.detach().view(1))
        self.hits.index_copy_(0, step, (scores.detach().argmax(dim=1) == labels).sum().view(1))

    def clear(self) -> None:
        """Begin a new epoch in the same memory."""
        self.losses.zero_()
        self.hits.zero_()

    def read(self, steps: int) -> Reading:
        """The figures after `steps` steps. Waits for the device: ask a few times a second at most.

        Raises:
            NonFiniteLoss: naming the first step whose loss is no number.
        """
        losses = self.losses[:steps].cpu().double()
        broken = (~torch.isfinite(losses)).nonzero()
        if len(broken):
            first = int(broken[0])
            raise NonFiniteLoss(first + 1, losses[first].item())
        sizes = self.sizes[:steps].cpu()
        seen = int(sizes.sum())
        return Reading(
            last_loss=losses[-1].item(),
            loss=(losses * sizes).sum().item() / seen,
            accuracy=100 * int(self.hits[:steps].sum()) / seen,
        )
