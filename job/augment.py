"""From stored bytes to what a network sees: moved (each picture its own way) and normalised, all on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from job.recipes import Affine

MEAN, STD = 0.1307, 0.3081  # of the training pixels, as fractions of 255


def normalise(images: Tensor) -> Tensor:
    """N x 28 x 28 bytes, or N x 1 x 28 x 28 fractions, to N x 1 x 28 x 28 with mean 0 and deviation 1."""
    if images.dtype == torch.uint8:
        return images.unsqueeze(1).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)
    return images.mul(1 / STD).sub_(MEAN / STD)


def move(images: Tensor, limits: Affine, generator: torch.Generator | None = None) -> Tensor:
    """Move each of N x 28 x 28 byte pictures by its own random affine map; returns N x 1 x 28 x 28 fractions of 255.

    Bilinear, black outside. Draws six numbers a picture from `generator`, or from the device's default random stream.
    """
    count, _, side = images.shape
    draws = torch.rand(6, count, device=images.device, generator=generator)
    symmetric = draws[:5].mul(2).sub_(1)
    angle = symmetric[0] * math.radians(limits.degrees)
    shear = torch.tan(symmetric[1] * math.radians(limits.shear_degrees))
    scale = 1 + symmetric[2] * limits.scale
    scale = torch.where(draws[5] < limits.crop_chance, scale * (side / 22), scale)
    # The grid maps output to input, so the inverse scale; sheared along x, then turned. Shifts are in half pictures.
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = symmetric[3:5] * (limits.shift_px * 2 / side)
    theta = torch.stack((cos, cos * shear - sin, shift[0], sin, sin * shear + cos, shift[1]), dim=1)
    grid = (theta.view(-1, 3) @ _pixels(side, images.device)).view(count, 2, side, side).permute(0, 2, 3, 1)
    fractions = images.unsqueeze(1).float().div_(255)
    return F.grid_sample(fractions, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _pixels(side: int, device: torch.device) -> Tensor:
    """3 x side * side: x and y of each pixel's middle, from -1 to 1 across the picture, and a row of ones."""
    along = (torch.arange(side, device=device) * 2 + 1) / side - 1
    return torch.stack((along.repeat(side), along.repeat_interleave(side), torch.ones_like(along).repeat(side)))
