"""The fused training pass gives what the modules give one by one; its dropout is dropout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from job import fused, models
from job.fused import Masks, norm_and_drop


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Equal to rounding, against the largest number: gradients of BatchNorm are small differences of large sums."""
    return (ours - theirs).abs().max().item() <= 1e-4 * theirs.abs().max().item()


@pytest.mark.parametrize(("channels", "side"), [(10, 26), (14, 24), (16, 26), (12, 6)])
def test_norm_and_drop_is_batchnorm_then_dropout(channels: int, side: int) -> None:
    """Both ways of computing it: rows of whole pictures (10 and 14 channels, large), torch's own (the others)."""
    torch.manual_seed(channels)
    pictures = (torch.randn(64, channels, side, side) + 1).to(memory_format=torch.channels_last)
    grad, found = torch.randn(64, channels, side, side), []
    for ours in (True, False):
        x, norm, masks = pictures.clone().requires_grad_(), nn.BatchNorm2d(channels), Masks(3)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, channels))
            norm.bias.copy_(torch.linspace(-1, 1, channels))
        if ours:
            y = norm_and_drop(x, norm, nn.Dropout(0.1), masks)
        else:
            mask = masks.take(x.numel(), 0.1).view(64, side, side, channels).permute(0, 3, 1, 2)
            y = norm(x) * mask
        y.backward(grad)
        assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        assert norm.num_batches_tracked == 1
        found.append((y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    assert all(close(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("rate", [0.03, 0.1])
def test_masks_drop_at_the_rate_and_keep_the_mean(rate: float) -> None:
    masks = Masks(5)
    count = 4_000_001  # not a multiple of the four decisions that one random number gives
    mask = masks.take(count, rate)
    dropped = (mask == 0).double().mean().item()
    assert abs(dropped - rate) < 4 * math.sqrt(rate * (1 - rate) / count) + 1 / fused.LEVELS
    kept = mask[mask != 0]
    assert len(mask) == count and (kept == kept[0]).all()
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    pairs = (mask[:-1:2] == 0) & (mask[1::2] == 0)  # neighbours come from the same random number
    assert pairs.double().mean().item() == pytest.approx(rate * rate, rel=0.05)


def test_masks_are_a_function_of_seed_epoch_and_step() -> None:
    def drawn(seed: int, epoch: int, step: int) -> Tensor:
        masks = Masks(seed)
        masks.take(7, 0.5)
        masks.begin(epoch, step)
        return torch.cat((masks.take(1000, 0.1), masks.take(1000, 0.1)))

    assert torch.equal(drawn(1, 2, 3), drawn(1, 2, 3))
    others = [drawn(2, 2, 3), drawn(1, 3, 3), drawn(1, 2, 4)]
    assert not any(torch.equal(drawn(1, 2, 3), other) for other in others)
    first, second = drawn(1, 2, 3).split(1000)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("model", [1, 2, 3])
def test_a_fused_network_learns_what_the_plain_one_learns(model: int) -> None:
    """Same weights, no dropout: same loss, same gradients, same statistics, same answers afterwards.

    In double precision: with single, rounding now and then picks another of two near-equal pixels in the max-pool.
    """
    torch.manual_seed(model)
    plain, quick = models.build(model).double(), models.build(model).double()
    quick.load_state_dict(plain.state_dict())
    models.train_fused(quick, Masks(1))
    for part in [*plain.modules(), *quick.modules()]:
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    pictures, labels = torch.randn(64, 1, 28, 28, dtype=torch.double), torch.arange(64) % 10
    for net in (plain, quick):
        nn.functional.nll_loss(net.train()(pictures), labels).backward()
    for name, parameter in plain.named_parameters():
        ours = quick.get_parameter(name).grad
        assert parameter.grad is not None and ours is not None
        assert (ours - parameter.grad).abs().max() <= 1e-9 * parameter.grad.abs().max(), name
    for name, value in plain.named_buffers():
        assert torch.allclose(quick.get_buffer(name), value, rtol=1e-9, atol=1e-12), name
    with torch.no_grad():
        assert torch.allclose(quick.eval()(pictures), plain.eval()(pictures), atol=1e-9)
    assert list(quick.state_dict()) == list(plain.state_dict())
