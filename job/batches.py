"""The training pictures of each step, for the CPU: made ready for several steps at once, which costs fewer calls."""

from __future__ import annotations

import torch
from torch import Tensor

from job.augment import move, normalise
from job.data import Split
from job.recipes import Affine

CHUNK = 8  # steps


def batch_sizes(count: int, batch_size: int, drop_last: bool) -> list[int]:
    """Images of each step of an epoch; the last, smaller one is left out if `drop_last` and there are others."""
    found = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    return found[:-1] if drop_last and found[-1] < batch_size and len(found) > 1 else found


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the training images in an epoch, on the CPU: a function of seed and epoch alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Batches:
    """One epoch. What a step gets is a function of seed, epoch and step alone, wherever in the epoch one begins.

    Args:
        order: the epoch's order of the pictures.
        moved: steps of this epoch, from its start, whose pictures are augmented.
    """

    def __init__(
        self, train: Split, order: Tensor, batch_size: int, limits: Affine, moved: int, seed: int, epoch: int
    ) -> None:
        self._train, self._order, self._batch_size = train, order, batch_size
        self._limits, self._moved = limits, moved
        self._seed = (seed * 1_000_003 + epoch) * 1_000_003
        self._chunk = -1

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures (N x 1 x 28 x 28, normalised) and digits (N) of `step`, from 0; the last may be smaller."""
        chunk, within = divmod(step, CHUNK)
        if chunk != self._chunk:
            self._prepare(chunk)
        span = slice(within * self._batch_size, (within + 1) * self._batch_size)
        return self._images[span], self._labels[span]

    def _prepare(self, chunk: int) -> None:
        size = self._batch_size
        chosen = self._order[chunk * CHUNK * size : (chunk + 1) * CHUNK * size]
        images, self._labels = self._train.images[chosen], self._train.labels[chosen]
        moved = max(0, self._moved - chunk * CHUNK) * size
        parts = []
        if moved > 0:
            stream = torch.Generator(images.device).manual_seed(self._seed + chunk)
            parts.append(normalise(move(images[:moved], self._limits, stream)))
        if moved < len(images):
            parts.append(normalise(images[moved:]))
        self._images = parts[0] if len(parts) == 1 else torch.cat(parts)
        self._chunk = chunk
