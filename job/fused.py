"""A block's training pass for the CPU: the same arithmetic as its modules one by one, with less memory traffic.

Stock torch spends a third of a step of these small networks on dropout's random numbers (one thread draws one at a
time) and on BatchNorm (whose channels-last loops are as short as there are channels). Here the random numbers of a
layer are drawn as 16 bits each, and BatchNorm and dropout run as a few passes over rows of a whole picture's numbers.
Answers and gradients are those of `nn.BatchNorm2d` and `nn.Dropout` to rounding (tests/host/job/test_fused.py); the
random stream is this module's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # dropout rates are rounded to 1 / LEVELS
VECTOR = 8  # float32 numbers of an AVX2 register
SMALL = 200_000  # numbers of a tensor below which more calls cost more than longer loops spare


class Masks:
    """Where dropout's decisions come from: a function of seed, epoch, step and the order of the calls in it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.begin(0, 0)

    def begin(self, epoch: int, step: int) -> None:
        """Go to the stream of this step."""
        self._stream = np.random.Generator(np.random.SFC64([self.seed, epoch, step]))

    def take(self, count: int, rate: float) -> Tensor:
        """`count` independent numbers: 0 with probability `rate`, else 1 / (1 - rate)."""
        words = self._stream.integers(0, 1 << 64, (count + 3) // 4, dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[:count]
        dropped = round(rate * LEVELS)
        mask = torch.empty(count)
        torch.ge(bits, dropped - LEVELS // 2, out=mask)
        return mask.mul_(LEVELS / (LEVELS - dropped))


class NormDrop(torch.autograd.Function):
    """BatchNorm over the batch's own statistics, then dropout: N x C x H x W, channels last, float32.

    torch's channels-last BatchNorm is quick where the channels fill its vectors of 8. Elsewhere a large tensor is done
    here, over rows that each hold a whole picture.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, norm: nn.BatchNorm2d) -> Tensor:  # type: ignore[override]
        batch, channels, height, width = x.shape
        ctx.eps, ctx.stock = norm.eps, channels % VECTOR == 0 or x.numel() < SMALL
        if ctx.stock:
            result, mean, inverse = torch.native_batch_norm(
                x, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
            )
            _rows(result).mul_(mask)
            ctx.save_for_backward(x, mask, weight, mean, inverse)
            return result
        rows, pixels, count = _rows(x), height * width, batch * height * width
        mean = _by_channel(rows, channels) / count
        centred = rows - mean.repeat(pixels)
        variance = _by_channel(centred * centred, channels) / count
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        inverse = torch.rsqrt(variance + norm.eps)
        scale = weight * inverse
        ctx.save_for_backward(centred, mask, weight, scale, inverse)
        return _pictures(torch.addcmul(bias.repeat(pixels), centred, scale.repeat(pixels)).mul_(mask), x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows = _rows(grad) * ctx.saved_tensors[1]
        if ctx.stock:
            x, _, weight, mean, inverse = ctx.saved_tensors
            by_all = torch.ops.aten.native_batch_norm_backward(
                _pictures(rows, grad.shape), x, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
            )
            return *by_all, None, None
        centred, _, weight, scale, inverse = ctx.saved_tensors
        batch, channels, height, width = grad.shape
        pixels, count = height * width, batch * height * width
        by_bias = _by_channel(rows, channels)
        by_weight = _by_channel(rows * centred, channels) * inverse
        constant, by_value = (torch.stack((by_bias, by_weight * inverse)) * (scale / -count)).repeat(1, pixels)
        by_x = torch.addcmul(constant, rows, scale.repeat(pixels)).addcmul_(centred, by_value)
        return _pictures(by_x, grad.shape), by_weight, by_bias, None, None


def _rows(x: Tensor) -> Tensor:
    """N x C x H x W as N x (H * W * C)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)


def _pictures(rows: Tensor, shape: torch.Size) -> Tensor:
    batch, channels, height, width = shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _by_channel(rows: Tensor, channels: int) -> Tensor:
    return rows.sum(0).view(-1, channels).sum(0)


def norm_and_drop(x: Tensor, norm: nn.BatchNorm2d, dropout: nn.Dropout, masks: Masks) -> Tensor:
    """What `dropout(norm(x))` does in training, running statistics included."""
    x = x.contiguous(memory_format=torch.channels_last)
    norm.num_batches_tracked.add_(1)
    return NormDrop.apply(x, norm.weight, norm.bias, masks.take(x.numel(), dropout.p).view(len(x), -1), norm)


def channels_last(x: Tensor) -> Tensor:
    """N x 1 x H x W with the strides by which torch knows channels-last pictures: with one channel nothing moves.

    Without them a convolution of one-channel pictures answers channels first, and its weight's gradient takes six
    times as long.
    """
    return x.contiguous().as_strided(x.shape, (x.shape[2] * x.shape[3], 1, x.shape[3], 1)) if x.shape[1] == 1 else x
