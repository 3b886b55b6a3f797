"""Optimiser, learning rate and averaged weights: three small pieces that know nothing of one another."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from job.recipes import Recipe

EMA_EVERY = 8  # steps between two updates of the averaged weights


def optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD as `recipe` says, fused where the device has it; weight decay on convolution weights alone."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 4]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = weights[0].device.type in ("cpu", "cuda")
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=fused)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused)


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of `step` (from 0) in a run of `steps`: cosine up to the peak, cosine down; or constant."""
    if recipe.schedule == "constant":
        return recipe.lr
    top = recipe.rise * steps
    if step < top:
        share = recipe.first_lr + (1 - recipe.first_lr) * (1 - math.cos(math.pi * step / top)) / 2
    else:
        fallen = (step - top) / max(1.0, steps - 1 - top)
        share = recipe.last_lr + (1 - recipe.last_lr) * (1 + math.cos(math.pi * min(1.0, fallen))) / 2
    return recipe.lr * share


def set_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = value


class Average:
    """Exponential moving average of weights and BatchNorm statistics, `decay` a step.

    Every `EMA_EVERY` steps it moves by what that many steps would. Early on it forgets faster, (1 + n) / (10 + n) at
    the n-th update, so that a short run is not held back by its first weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay**EMA_EVERY
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = model.state_dict()
        for name, mean in self.model.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(current[name], 1 - keep)
            else:  # BatchNorm's count of batches
                mean.copy_(current[name])
