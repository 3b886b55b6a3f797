"""Training steps as CUDA graphs: a step of these networks is some 200 small kernels, and launching them one by one
takes several times as long as running them.

Each kind of step is captured once, from augmentation to averaged weights, and replayed from then on. Its random
numbers come from the device's default generator, which capture registers, so a replay draws what an eager step would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property

import torch

from job.data import Split
from job.eager import Eager
from job.step import Kind, Step

WARM_UP = 3  # eager steps of a kind before its capture: optimiser state, cuBLAS and cuDNN plans must be there


class Graphs(Eager):
    """Runs steps as graphs where they can be captured; the others run call by call, and `note` is told why."""

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
        if not self.capture or self.seen[kind] <= WARM_UP or kind.size != self.step.sizes[0]:
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
