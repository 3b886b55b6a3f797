"""What `python -m job.train` is asked: flags first, then the environment that cloudtrain sets.

`python -m job.options ARGUMENTS` says, without torch, what a training with these arguments does: one line of JSON, or
why there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from job.data import default_folder
from job.recipes import RECIPES, Affine, Recipe, Refused, choose

DEFAULT_OUT = Path("runs") / "job"
MOST_IMAGES = 60_000
FEWEST_FOR_VAL = 12  # images of a subset of which a sixth is held out


@dataclass(frozen=True)
class Options:
    """None for what is not wanted (`subset`, `resume`).

    Attributes:
        changes: what was asked for in the recipe's place: fields of it and values.
        val: hold out the last training images, and open the test set once.
    """

    model: int
    recipe: str
    seed: int
    device: str
    data: Path
    out: Path
    events: Path
    resume: Path | None
    subset: int | None
    val: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


class BadArguments(Exception):
    """The command line cannot be understood; the text is one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadArguments(message)


def _whole(low: int, high: int | None = None):  # type: ignore[no-untyped-def]
    """An argparse type: a whole number from `low` to `high`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            span = f"at least {low}" if high is None else f"from {low} to {high:,}"
            raise argparse.ArgumentTypeError(f"{text} is not allowed, it must be {span}")
        return value

    return number


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate above 0")
    return value


def parse(argv: Sequence[str] | None, environment: Mapping[str, str] | None = None) -> Options:
    """Options from `argv` (the process's own when None) and `environment`.

    Raises:
        BadArguments: something is missing, unknown or out of range.
        SystemExit: `--help` was asked for and has been printed.
    """
    env = os.environ if environment is None else environment
    parser = _Parser(prog="python -m job.train", description="Train one of three small networks on MNIST.")
    parser.add_argument(
        "--model", type=int, choices=sorted(RECIPES["best"]), default=3, help="which network (default 3)"
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="best", help="hyper-parameters (default best)")
    parser.add_argument("--epochs", type=_whole(1), help="passes over the training images (default: the recipe's)")
    parser.add_argument("--batch-size", type=_whole(1, MOST_IMAGES), help="images a step (default: the recipe's)")
    parser.add_argument("--lr", type=_rate, help="peak learning rate (default: the recipe's)")
    parser.add_argument("--seed", type=_whole(0, 2**31 - 1), default=1, help="of all randomness (default 1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where (default auto)")
    parser.add_argument("--data", type=Path, help="folder of MNIST (default: CLOUDTRAIN_DATA, else the user's cache)")
    parser.add_argument("--out", type=Path, help=f"folder for results (default: CLOUDTRAIN_OUT, else {DEFAULT_OUT})")
    parser.add_argument("--resume", type=Path, help="go on from this checkpoint (default: CLOUDTRAIN_RESUME)")
    parser.add_argument(
        "--subset",
        type=_whole(6, MOST_IMAGES),
        metavar="N",
        help="train on the first N images and test on the first N/6: a rehearsal, its figures say little",
    )
    parser.add_argument(
        "--val",
        action="store_true",
        help="hold out the last 10,000 training images for scoring, and open the test set once, at the end",
    )
    add_flags(parser.add_argument_group("hyper-parameters in place of the recipe's"))
    given = parser.parse_args(argv)
    changes = {name: getattr(given, name) for name in ("epochs", "batch_size", "lr")}
    changes = {name: value for name, value in changes.items() if value is not None} | given_by(given)
    try:
        choose(given.recipe, given.model, given.device, **changes)
    except Refused as refusal:
        raise BadArguments(str(refusal)) from None
    if given.val and given.subset is not None and given.subset < FEWEST_FOR_VAL:
        raise BadArguments(f"--val needs a --subset of at least {FEWEST_FOR_VAL}")
    out = given.out or Path(env.get("CLOUDTRAIN_OUT") or DEFAULT_OUT)
    resume = given.resume or (Path(env["CLOUDTRAIN_RESUME"]) if env.get("CLOUDTRAIN_RESUME") else None)
    return Options(
        model=given.model,
        recipe=given.recipe,
        seed=given.seed,
        device=given.device,
        data=given.data or Path(env.get("CLOUDTRAIN_DATA") or default_folder()),
        out=out,
        events=Path(env.get("CLOUDTRAIN_EVENTS") or out / "events.jsonl"),
        resume=resume,
        subset=given.subset,
        val=given.val,
        changes=changes,
    )


# one flag for each hyper-parameter, made from the fields of `recipes.py`


def overridable() -> list[Field[Any]]:
    """The fields that have a flag, those of the recipe first."""
    return [item for item in (*fields(Recipe), *fields(Affine)) if item.metadata]


def add_flags(parser: argparse._ArgumentGroup) -> None:
    """One flag a field; left out it is None, so that the recipe decides."""
    for item in overridable():
        facts, known = item.metadata, {"dest": item.name, "default": None, "help": item.metadata["help"]}
        if isinstance(item.default, bool):
            parser.add_argument(facts["flag"], action=argparse.BooleanOptionalAction, **known)
        elif "choices" in facts:
            parser.add_argument(facts["flag"], choices=facts["choices"], **known)
        else:
            metavar = facts["flag"].rpartition("-")[2].upper()
            parser.add_argument(facts["flag"], type=_value_reader(item), metavar=metavar, **known)


def _value_reader(item: Field[Any]) -> Callable[[str], Any]:
    facts = item.metadata

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        low, high, below = facts["low"], facts["high"], facts.get("below", False)
        within = low <= value < float("inf") and (high is None or value < high or (value == high and not below))
        if not within:  # nan is not either
            span = f"at least {low:g}" if high is None else f"from {low:g} to {'below ' if below else ''}{high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not allowed, it must be {span}")
        return value

    def pair(text: str) -> tuple[float, float]:
        parts = text.split(",")
        if len(parts) != 2:
            raise argparse.ArgumentTypeError(f"{text!r} is not two numbers with a comma between")
        return number(parts[0]), number(parts[1])

    def number_or_none(text: str) -> float:
        return 0.0 if text == "none" else number(text)

    return pair if isinstance(item.default, tuple) else number_or_none if item.default is None else number


def given_by(parsed: argparse.Namespace) -> dict[str, Any]:
    """The hyper-parameters that were asked for: field and value."""
    asked = {item.name: getattr(parsed, item.name) for item in overridable()}
    return {name: value for name, value in asked.items() if value is not None}


def _say() -> int:
    try:
        asked = parse(sys.argv[1:])
    except BadArguments as error:
        sys.stderr.write(f"{error}\n")
        return 2
    recipe = choose(asked.recipe, asked.model, asked.device, **asked.changes)
    told = {"recipe": asked.recipe, "epochs": recipe.epochs, "batch_size": recipe.batch_size, "lr": recipe.lr}
    sys.stdout.write(json.dumps({**told, "subset": asked.subset}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_say())
