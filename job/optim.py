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
    device = weights[0].device
    fused = device.type in ("cpu", "cuda")
    lr = torch.tensor(recipe.lr, device=device)  # a tensor, so that a captured step sees it change
    if recipe.optimiser == "adamw":
        capturable = device.type == "cuda"
        return torch.optim.AdamW(groups, lr=lr, betas=recipe.betas, fused=fused, capturable=capturable)
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused)


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


def share_rate(optimiser: torch.optim.Optimizer) -> torch.Tensor:
    """One tensor that is the rate of all parameters: what is written into it counts from the next step on."""
    first = optimiser.param_groups[0]["lr"]
    for group in optimiser.param_groups:
        group["lr"] = first
    return first


class Average:
    """Exponential moving average of weights and BatchNorm statistics, `decay` a step.

    Every `EMA_EVERY` steps it moves by what that many steps would. Early on it forgets faster, (1 + n) / (10 + n) at
    the n-th update, so that a short run is not held back by its first weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay**EMA_EVERY
        self.updates = torch.zeros((), device=next(model.parameters()).device)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow `model`. Nothing here waits for the device or depends on a number that is not on it."""
        self.updates += 1
        share = 1 - ((1 + self.updates) / (10 + self.updates)).clamp_max(self.decay)
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        means = [mean for mean, _ in pairs if mean.is_floating_point()]
        moves = torch._foreach_sub([current for mean, current in pairs if mean.is_floating_point()], means)
        torch._foreach_mul_(moves, share)
        torch._foreach_add_(means, moves)
        for mean, current in pairs:
            if not mean.is_floating_point():  # BatchNorm's count of batches
                mean.copy_(current)
