"""A network's score on a split."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from job.augment import normalise
from job.data import Split
from job.fused import channels_last

BATCH = 100  # what a batch leaves behind fits the caches of a CPU: twice as fast as 1000
OPENMP = "ATen parallel backend: OpenMP"


@dataclass(frozen=True)
class Score:
    """Mean loss, hits, and for each picture the answer (uint8) and its probability, on the CPU."""

    loss: float
    correct: int
    total: int
    predicted: Tensor
    confidence: Tensor

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.correct / self.total


def evaluate(model: nn.Module, split: Split) -> Score:
    """Score `model` (in evaluation mode, put back afterwards) on every picture of `split`, in order."""
    was_training = model.training
    model.eval()
    losses, predicted, confidence = zip(*_batches(model, split), strict=True)
    model.train(was_training)
    answers = torch.cat(predicted)
    return Score(
        loss=torch.stack(losses).sum().item() / len(split.labels),
        correct=int((answers == split.labels).sum().item()),
        total=len(split.labels),
        predicted=answers.to(torch.uint8).cpu(),
        confidence=torch.cat(confidence).float().cpu(),
    )


def _batches(model: nn.Module, split: Split) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Summed loss, answers and their probabilities, batch after batch."""
    on_cpu = split.images.device.type == "cpu"

    @torch.inference_mode()
    def score(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pictures = normalise(images)
        scores = model(channels_last(pictures) if on_cpu else pictures)
        best = scores.max(dim=1)
        return F.nll_loss(scores, labels, reduction="sum"), best.indices, best.values.exp()

    batches = split.images.split(BATCH), split.labels.split(BATCH)
    threads = torch.get_num_threads()
    if not on_cpu or threads == 1 or OPENMP not in torch.__config__.parallel_info():
        yield from map(score, *batches)
        return
    # A core for each batch rather than all for one: convolutions this small gain little from a second core. With OpenMP
    # the number of threads belongs to the thread that sets it; only those to come would take it over.
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(score, *batches)
    finally:
        torch.set_num_threads(threads)


def confusion(labels: Tensor, predicted: Tensor) -> list[list[int]]:
    """10 x 10 counts: row is the digit, column the answer."""
    return torch.bincount(labels.cpu() * 10 + predicted.long(), minlength=100).view(10, 10).tolist()


def per_class(matrix: list[list[int]]) -> list[float | None]:
    """Share of each digit's pictures that were answered right, in percent; None for a digit that does not occur."""
    return [100 * row[digit] / sum(row) if sum(row) else None for digit, row in enumerate(matrix)]
