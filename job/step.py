"""One training step, from a batch of pictures to the next weights, what it measures, and the ways to run it.

Whatever changes from step to step lies in tensors on the device (which step it is, the learning rate), so the very
same calls can run one by one (`Eager`, `OnCpu`) or be captured into a CUDA graph (`Graphs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from job.augment import move, normalise
from job.data import Split
from job.fused import Masks
from job.models import train_fused
from job.optim import EMA_EVERY, Average, rate, share_rate
from job.recipes import Affine, Recipe

CHUNK = 8  # steps whose pictures are made ready at once on a CPU


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
    """Loss and hits of one epoch, kept on the device so that a step never waits for it.

    One number a step for each; `sizes` are the images of each step.
    """

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


def batch_sizes(count: int, batch_size: int, drop_last: bool) -> list[int]:
    """Images of each step of an epoch; the last, smaller one is left out if `drop_last` and there are others."""
    found = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    return found[:-1] if drop_last and found[-1] < batch_size and len(found) > 1 else found


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the training images in an epoch, on the CPU: a function of seed and epoch alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Batches:
    """One epoch's training pictures, for the CPU: made ready for several steps at once, which costs fewer calls.

    What a step gets is a function of seed, epoch and step alone, wherever in the epoch one begins.

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


class OnCpu:
    """Training steps on a CPU: pictures of several steps made ready at once, blocks fused.

    `begin` once an epoch or resumption, then `run` for each step in turn; both count from 0. All randomness is a
    function of seed, epoch and step.
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


class Eager:
    """Training steps call by call, with all data resident on the device: Apple GPUs, and CUDA where no graph will do.

    `begin` once an epoch or resumption, then `run` for each step in turn; both count from 0. Randomness comes from the
    device's default stream, whose state is in every checkpoint.
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


class Graphs(Eager):
    """Training steps as CUDA graphs; those that cannot be captured run call by call, and `note` is told why.

    A step of these networks is some 200 small kernels, and launching them one by one takes several times as long as
    running them. Each kind of step is captured once, from augmentation to averaged weights, and replayed from then on.
    Its random numbers come from the device's default generator, which capture registers, so a replay draws what an
    eager step would.
    """

    WARM_UP = 3  # eager steps of a kind before its capture: optimiser state, cuBLAS and cuDNN plans must be there

    def __init__(self, step: Step, train: Split, note: Callable[[str], None]) -> None:
        super().__init__(step, train)
        self.note = note
        self.graphs: dict[Kind, torch.cuda.CUDAGraph] = {}
        self.seen: Counter[Kind] = Counter()
        self.capture = True

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """Where warm-up and capture run: what they allocate must not be tied to the main stream."""
        return torch.cuda.Stream()

    @cached_property
    def pool(self) -> tuple[int, int]:
        """The memory that all graphs share: they run one after another, and nothing in it outlives a step."""
        return torch.cuda.graph_pool_handle()

    def run(self, epoch: int, step: int) -> None:
        kind = self.step.kind(epoch, step)
        graph = self.graphs.get(kind)
        if graph is not None:
            graph.replay()
            return
        self.seen[kind] += 1
        if not self.capture or self.seen[kind] <= self.WARM_UP or kind.size != self.step.sizes[0]:
            self._eagerly(kind)
            return
        try:
            self.graphs[kind] = self._captured(kind)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.capture = False
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.note(f"CUDA graph: this step cannot be captured ({reason}); training goes on call by call")
            self._eagerly(kind)
            return
        if len(self.graphs) == 1:
            self.note("CUDA graph: training steps are captured and replayed whole")
        self.graphs[kind].replay()

    def _eagerly(self, kind: Kind) -> None:
        """Run a step call by call, on the side stream."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.whole(kind)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _captured(self, kind: Kind) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            self.whole(kind)
        return graph
