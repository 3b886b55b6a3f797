"""The three networks, from one description: `ARCHITECTURES` shows side by side what differs.

Every network is a stack of blocks (3x3 convolution, activation, BatchNorm, dropout) with a 1x1 convolution and a 2x2
max-pool in the middle, then an average over the picture and a 1x1 convolution to the ten classes. Input is
N x 1 x 28 x 28, output N x 10 log-probabilities. No convolution has a bias. Module names and their order are those of
the original `Net` classes, so a state_dict fits both ways with `strict=True`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from job.fused import Masks, channels_last, norm_and_drop


@dataclass(frozen=True)
class Architecture:
    """Widths are output channels; the comments give the side of the picture after each stage."""

    first: tuple[int, int]  # two 3x3 blocks: 26, 24
    squeeze: int  # 1x1 convolution, then 2x2 max-pool: 12
    middle: tuple[int, ...]  # 3x3 blocks without padding, each takes 2: 10, 8 (, 6)
    last: int  # 3x3 block with padding 1: as before
    average: int  # side of the picture that the average pool takes whole
    activation: type[nn.Module]
    dropout: float
    skips: bool = False  # two 1x1 convolutions round the middle, and channel attention after the last block
    spare_dropout: bool = False  # a `dropout` module that forward never calls, kept for the module list


ARCHITECTURES: dict[int, Architecture] = {
    1: Architecture((16, 32), 10, (16, 16, 16), 16, 6, nn.ReLU, 0.1, spare_dropout=True),  # 13,808 parameters
    2: Architecture((8, 16), 8, (12, 12), 12, 8, nn.ReLU, 0.1),  # 5,048 parameters
    3: Architecture((10, 14), 10, (14, 14, 12), 12, 6, nn.GELU, 0.03, skips=True),  # 7,902 parameters
}


def convolution(inputs: int, outputs: int, size: int, padding: int = 0) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=size, padding=padding, bias=False)


class Block(nn.Sequential):
    """Convolution, activation, BatchNorm, dropout; with `masks`, the same in fewer passes while it trains."""

    masks: Masks | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.masks is None or not self.training:
            return super().forward(x)
        convolution, activation, norm, dropout = self
        return norm_and_drop(activation(convolution(channels_last(x))), norm, dropout, self.masks)


def block(inputs: int, outputs: int, form: Architecture, padding: int = 0) -> Block:
    return Block(
        convolution(inputs, outputs, 3, padding),
        form.activation(),
        nn.BatchNorm2d(outputs),
        nn.Dropout(form.dropout),
    )


class Net(nn.Module):
    """Models 1 and 2. Blocks are named convblock1, convblock2, ... in the order they run."""

    def __init__(self, form: Architecture) -> None:
        super().__init__()
        wide, wider = form.first
        self.convblock1 = block(1, wide, form)
        self.convblock2 = block(wide, wider, form)
        self.convblock3 = nn.Sequential(convolution(wider, form.squeeze, 1))
        self.pool1 = nn.MaxPool2d(2, 2)
        number, inputs = 4, form.squeeze
        for number, outputs in enumerate(form.middle, start=4):
            self.add_module(f"convblock{number}", block(inputs, outputs, form))
            inputs = outputs
        self.add_module(f"convblock{number + 1}", block(inputs, form.last, form, padding=1))
        self.gap = nn.Sequential(nn.AvgPool2d(kernel_size=form.average))
        self.add_module(f"convblock{number + 2}", nn.Sequential(convolution(form.last, 10, 1)))
        self.after_pool = [f"convblock{i}" for i in range(4, number + 2)]
        self.classes = f"convblock{number + 2}"
        if form.spare_dropout:
            self.dropout = nn.Dropout(form.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.convblock3(self.convblock2(self.convblock1(x))))
        x = self.refine(x)
        x = getattr(self, self.classes)(self.gap(x))
        return F.log_softmax(x.view(-1, 10), dim=-1)

    def refine(self, x: Tensor) -> Tensor:
        """What happens between the max-pool and the average: block after block."""
        for name in self.after_pool:
            x = getattr(self, name)(x)
        return x


class SkipNet(Net):
    """Model 3: two skip connections, then every channel scaled by the sigmoid of its mean."""

    def __init__(self, form: Architecture) -> None:
        super().__init__(form)
        self.skip1 = convolution(form.squeeze, form.middle[0], 1)
        self.skip2 = convolution(form.middle[0], form.middle[2], 1)

    def refine(self, x: Tensor) -> Tensor:
        first = self.convblock4(x)
        first = first + self.skip1(resized(x, first))
        second = self.convblock6(self.convblock5(first))
        second = second + self.skip2(resized(first, second))
        third = self.convblock7(second)
        return third * torch.sigmoid(F.adaptive_avg_pool2d(third, 1))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """`x` cut to the height and width of `like` by nearest neighbour (12 to 10, 10 to 6)."""
    return F.interpolate(x, size=like.shape[2:])


def build(model: int) -> Net:
    """Model 1, 2 or 3 with torch's default initialisation from the current random state.

    Raises:
        KeyError: there is no such model.
    """
    form = ARCHITECTURES[model]
    return SkipNet(form) if form.skips else Net(form)


def train_fused(model: nn.Module, masks: Masks) -> None:
    """Let the blocks of `model` train the way that suits a CPU (`fused.py`), with dropout decided by `masks`."""
    model.to(memory_format=torch.channels_last)
    for part in model.modules():
        if isinstance(part, Block):
            part.masks = masks


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
