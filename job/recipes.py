"""Recipes as data: every hyper-parameter of a run, for each model, and what a run should reach.

Architectures and dropout are in `models.py`.

`best`  the most accurate known for these networks (15 epochs; where the figures come from: docs/benchmarks.md)
`fast`  the same schedule compressed into 4 or 5 epochs
`seed`  the plain loop these networks were first trained with: constant SGD, rotation, batch 64 (128 on CUDA)

Schedules and clean finishes are shares of the run, so any recipe works for any number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any


def _set_by(flag: str, default: Any, help: str, low: float = 0.0, high: float | None = None, **more: Any) -> Any:
    """A field of a recipe that the job's `flag` overrides: its limits (`below`: the upper one itself is too much)."""
    return field(default=default, metadata={"flag": flag, "help": help, "low": low, "high": high, **more})


@dataclass(frozen=True)
class Affine:
    """How far an augmented picture is moved; every picture of every step draws its own, uniformly within the limits."""

    degrees: float = _set_by("--degrees", 0.0, "rotation, at most so many degrees either way", high=180)
    scale: float = _set_by("--scale", 0.0, "one factor for both axes, 1 - SCALE to 1 + SCALE", high=1, below=True)
    shear_degrees: float = _set_by("--shear", 0.0, "shear along x, in degrees", high=90, below=True)
    shift_px: float = _set_by("--shift", 0.0, "shift along each axis, in pixels", high=28)
    crop_chance: float = _set_by("--crop-chance", 0.0, "share of pictures zoomed to their middle 22 x 22", high=1)


@dataclass(frozen=True)
class Recipe:
    """A run's hyper-parameters. `lr` is the peak rate, shares are of all steps of the run."""

    name: str
    epochs: int
    batch_size: int
    lr: float
    augment: Affine
    optimiser: str = _set_by("--optimiser", "adamw", "adamw or sgd", choices=("adamw", "sgd"))
    momentum: float = _set_by("--momentum", 0.9, "of sgd", high=1, below=True)
    nesterov: bool = _set_by("--nesterov", False, "of sgd")
    betas: tuple[float, float] = _set_by("--betas", (0.9, 0.99), "of adamw, as 0.9,0.99", high=1, below=True)
    weight_decay: float = _set_by("--weight-decay", 0.01, "on convolution weights alone")
    schedule: str = _set_by(
        "--schedule", "rise-and-fall", "of the learning rate", choices=("rise-and-fall", "constant")
    )
    rise: float = _set_by("--rise", 0.2, "share of the run over which the rate climbs to its peak", high=1)
    first_lr: float = _set_by("--first-lr", 0.04, "share of the peak rate at the first step", high=1)
    last_lr: float = _set_by("--last-lr", 0.001, "share of the peak rate at the last step", high=1)
    clean_finish: float = _set_by("--clean-finish", 0.0, "share of the run, at its end, not augmented", high=1)
    ema: float | None = _set_by(
        "--ema",
        None,
        "decay a step of the averaged weights, which are then scored, or none",
        high=1,
        below=True,
    )
    drop_last: bool = _set_by("--drop-last", True, "leave out an epoch's last, smaller batch")


# What means nothing beside which choice.
POINTLESS = {
    ("optimiser", "adamw"): ("momentum", "nesterov"),
    ("optimiser", "sgd"): ("betas",),
    ("schedule", "constant"): ("rise", "first_lr", "last_lr"),
}


FULL = Affine(degrees=10.0, scale=0.10, shear_degrees=5.0, shift_px=2.0)
BEST = Recipe("best", epochs=15, batch_size=64, lr=0.02, augment=FULL)

RECIPES: dict[str, dict[int, Recipe]] = {
    "best": {
        1: BEST,
        2: replace(BEST, lr=0.04, ema=0.998),
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


GOAL_TEST_ACCURACY = 99.4  # percent, of the last epoch: no picking on the test set
GOAL_PARAMETERS = 8000  # fewer than
GOAL_EPOCHS = 15  # at most

GOALS = (
    f"test accuracy >= {GOAL_TEST_ACCURACY} %",
    f"parameters < {GOAL_PARAMETERS}",
    f"epochs <= {GOAL_EPOCHS}",
)


class Refused(ValueError):
    """These settings do not go together; the text is one line."""


def choose(name: str, model: int, device: str, **changes: Any) -> Recipe:
    """The recipe `name` for `model` on a device of type `device`, with `changes` (fields, also those of `Affine`).

    A change that is None is none; an `ema` of 0 is no average.

    Raises:
        KeyError: no such recipe or model.
        Refused: a change that has no meaning here.
    """
    recipe = RECIPES[name][model]
    if name == "seed" and device == "cuda":
        recipe = replace(recipe, batch_size=SEED_BATCH_ON_CUDA)
    return changed(recipe, {key: value for key, value in changes.items() if value is not None})


def differing(recipe: Recipe, plain: Recipe) -> list[str]:
    """The hyper-parameters, those of `augment` among them, in which `recipe` is not `plain`; in alphabetical order."""
    one, other = ({**asdict(each), **asdict(each.augment)} for each in (recipe, plain))
    return sorted(name for name in one if name != "augment" and one[name] != other[name])


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """`recipe` with `changes`, whose keys are fields of it or of its `augment`.

    Raises:
        Refused: a change that has no meaning beside the others, or beside what the recipe says.
    """
    moves = {item.name for item in fields(Affine)} & changes.keys()
    own = {key: value for key, value in changes.items() if key not in moves}
    if "ema" in own:
        own["ema"] = own["ema"] or None
    made = replace(recipe, **own, augment=replace(recipe.augment, **{key: changes[key] for key in moves}))
    flags = {item.name: item.metadata["flag"] for item in fields(Recipe) if item.metadata}
    for (choice, value), pointless in POINTLESS.items():
        for key in pointless:
            if key in changes and getattr(made, choice) == value:
                chosen = "chosen" if choice in changes else f"what recipe {recipe.name} uses"
                raise Refused(f"{flags[key]} has no meaning with {flags[choice]} {value}, which is {chosen}")
    if made.nesterov and not made.momentum:
        raise Refused("--nesterov needs a --momentum above 0")
    return made


def judge(test_accuracy: float | None, parameters: int, epochs: int) -> list[dict[str, Any]]:
    """Each goal with the value reached and `met`; `test_accuracy` None (no epoch done, or a subset) is not met."""
    values = (test_accuracy, parameters, epochs)
    accurate = test_accuracy is not None and test_accuracy >= GOAL_TEST_ACCURACY
    met = (accurate, parameters < GOAL_PARAMETERS, epochs <= GOAL_EPOCHS)
    return [
        {"goal": goal, "value": value, "met": reached} for goal, value, reached in zip(GOALS, values, met, strict=True)
    ]
