"""Recipes as data: every hyper-parameter of a run, for each model. Architectures and dropout are in `models.py`.

`best`  the most accurate known for these networks (15 epochs; where the figures come from: docs/benchmarks.md)
`fast`  the same schedule compressed into 4 or 5 epochs
`seed`  the plain loop these networks were first trained with: constant SGD, rotation, batch 64 (128 on CUDA)

Schedules and clean finishes are shares of the run, so any recipe works for any number of epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Affine:
    """How far an augmented picture is moved; every picture of every step draws its own, uniformly within the limits."""

    degrees: float = 0.0  # rotation
    scale: float = 0.0  # one factor for both axes, 1 - scale to 1 + scale
    shear_degrees: float = 0.0
    shift_px: float = 0.0
    crop_chance: float = 0.0  # share of pictures that are zoomed to their middle 22 x 22 pixels


@dataclass(frozen=True)
class Recipe:
    """A run's hyper-parameters. `lr` is the peak rate, shares are of all steps of the run."""

    name: str
    epochs: int
    batch_size: int
    lr: float
    augment: Affine
    optimiser: str = "adamw"  # "adamw" or "sgd"
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    betas: tuple[float, float] = (0.9, 0.99)  # adamw
    weight_decay: float = 0.01  # on convolution weights alone
    schedule: str = "rise-and-fall"  # or "constant"
    rise: float = 0.2  # share of the run over which the rate climbs to its peak
    first_lr: float = 0.04  # of the peak, at the first step
    last_lr: float = 0.001  # of the peak, at the last step
    clean_finish: float = 0.0  # share of the run, at its end, without augmentation
    ema: float | None = None  # decay a step of the averaged weights; where there are any, they are scored
    drop_last: bool = True  # leave out an epoch's last, smaller batch (the order is new each epoch)


FULL = Affine(degrees=10.0, scale=0.10, shear_degrees=5.0, shift_px=2.0)
BEST = Recipe("best", epochs=15, batch_size=64, lr=0.02, augment=FULL)

RECIPES: dict[str, dict[int, Recipe]] = {
    "best": {
        1: BEST,
        2: replace(BEST, ema=0.998),
        3: replace(BEST, lr=0.01, clean_finish=0.15, ema=0.998),
    },
    "fast": {
        1: replace(BEST, name="fast", epochs=4),
        2: replace(BEST, name="fast", epochs=5, ema=0.998),
        3: replace(BEST, name="fast", epochs=5, lr=0.01, clean_finish=0.15, ema=0.998),
    },
    "seed": dict.fromkeys(
        (1, 2, 3),
        Recipe(
            "seed",
            epochs=15,
            batch_size=64,
            lr=0.01,
            augment=Affine(degrees=15.0, crop_chance=0.1),
            optimiser="sgd",
            weight_decay=0.0,
            schedule="constant",
            drop_last=False,
        ),
    ),
}

SEED_BATCH_ON_CUDA = 128


def choose(
    name: str,
    model: int,
    device: str,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
) -> Recipe:
    """The recipe `name` for `model` on a device of type `device`, with what was asked for in its place.

    Raises:
        KeyError: no such recipe or model.
    """
    recipe = RECIPES[name][model]
    if name == "seed" and device == "cuda":
        recipe = replace(recipe, batch_size=SEED_BATCH_ON_CUDA)
    return replace(
        recipe,
        epochs=recipe.epochs if epochs is None else epochs,
        batch_size=recipe.batch_size if batch_size is None else batch_size,
        lr=recipe.lr if lr is None else lr,
    )
