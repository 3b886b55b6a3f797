"""The layer table: one row for each layer in the order it runs, shapes and parameter counts, totals, sizes in MB."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

WIDTH = 64
MEBIBYTE_OF_FLOATS = 4 / 1024**2


@dataclass(frozen=True)
class Layer:
    """One call of a module that holds no other: `shape` without the batch, `parameters` of its weight and bias."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    trainable: bool


@dataclass(frozen=True)
class Summary:
    """What the table shows. Sizes are in MB as the table counts them: 4 bytes a number, 2**20 bytes a MB."""

    layers: tuple[Layer, ...]
    parameters: int
    trainable_parameters: int
    input_mb: float
    pass_mb: float
    parameters_mb: float

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "total_mb": self.input_mb + self.pass_mb + self.parameters_mb}

    def table(self) -> str:
        """The table as text, no line break at the end."""
        thin, thick = "-" * WIDTH, "=" * WIDTH
        lines = [thin, _row("Layer (type)", "Output Shape", "Param #"), thick]
        for number, layer in enumerate(self.layers, start=1):
            lines.append(_row(f"{layer.name}-{number}", str([-1, *layer.shape]), f"{layer.parameters:,}"))
        lines += [
            thick,
            f"Total params: {self.parameters:,}",
            f"Trainable params: {self.trainable_parameters:,}",
            f"Non-trainable params: {self.parameters - self.trainable_parameters:,}",
            thin,
            f"Input size (MB): {self.input_mb:.2f}",
            f"Forward/backward pass size (MB): {self.pass_mb:.2f}",
            f"Params size (MB): {self.parameters_mb:.2f}",
            f"Estimated Total Size (MB): {self.input_mb + self.pass_mb + self.parameters_mb:.2f}",
            thin,
        ]
        return "\n".join(lines)


def _row(name: str, shape: str, parameters: str) -> str:
    return f"{name:>20}  {shape:>25} {parameters:>15}"


def summarise(model: nn.Module, shape: tuple[int, ...] = (1, 28, 28)) -> Summary:
    """Run one picture of `shape` through `model` and note every layer that answers.

    The model is left as it was: same mode, same BatchNorm statistics, same random state.
    """
    layers: list[Layer] = []

    def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        own = [getattr(module, name, None) for name in ("weight", "bias")]
        held = [value for value in own if isinstance(value, torch.Tensor)]
        layers.append(
            Layer(
                name=type(module).__name__,
                shape=tuple(output.shape[1:]),
                parameters=sum(value.numel() for value in held),
                trainable=any(value.requires_grad for value in held),
            )
        )

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.inference_mode():
            model(torch.zeros(1, *shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    total = sum(layer.parameters for layer in layers)
    return Summary(
        layers=tuple(layers),
        parameters=total,
        trainable_parameters=sum(layer.parameters for layer in layers if layer.trainable),
        input_mb=math.prod(shape) * MEBIBYTE_OF_FLOATS,
        pass_mb=2 * sum(math.prod(layer.shape) for layer in layers) * MEBIBYTE_OF_FLOATS,  # values and their gradients
        parameters_mb=total * MEBIBYTE_OF_FLOATS,
    )
