"""What the job is asked: flags and environment; each hyper-parameter has a flag, and all is recorded."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from job import recipes
from job.options import BadArguments, overridable, parse
from job.recipes import RECIPES, Affine, Recipe
from tests.host.job.conftest import SMALL, Job


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--model", "4"), "argument --model: invalid choice: 4 (choose from 1, 2, 3)"),
        (("--epochs", "0"), "argument --epochs: 0 is not allowed, it must be at least 1"),
        (("--epochs", "many"), "argument --epochs: 'many' is not a whole number"),
        (("--batch-size", "60001"), "argument --batch-size: 60001 is not allowed, it must be from 1 to 60,000"),
        (("--lr", "nan"), "argument --lr: 'nan' is not a learning rate above 0"),
        (("--recipe", "worst"), "argument --recipe: invalid choice: 'worst'"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_arguments(argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadArguments) as caught:
        parse(argv, {})
    assert str(caught.value).startswith(said)


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    env = {f"CLOUDTRAIN_{name}": str(tmp_path / name) for name in ("OUT", "EVENTS", "RESUME", "DATA")}
    options = parse([], env)
    assert (options.out, options.events) == (tmp_path / "OUT", tmp_path / "EVENTS")
    assert (options.resume, options.data) == (tmp_path / "RESUME", tmp_path / "DATA")
    options = parse(["--out", "o", "--data", "d", "--resume", "r"], env)
    assert (options.out, options.data, options.resume) == (Path("o"), Path("d"), Path("r"))
    assert parse(["--out", "o"], {}).events == Path("o") / "events.jsonl"


def test_every_hyper_parameter_has_a_flag() -> None:
    own = {"--epochs": "epochs", "--batch-size": "batch_size", "--lr": "lr"}
    flags = {item.metadata["flag"]: item.name for item in overridable()} | own
    wanted = {item.name for item in (*fields(Recipe), *fields(Affine))} - {"name", "augment"}
    assert set(flags.values()) == wanted and len(flags) == len(wanted)


@pytest.mark.parametrize(
    ("argv", "changes"),
    [
        ("", {}),
        ("--betas 0.8,0.95 --weight-decay 0", {"betas": (0.8, 0.95), "weight_decay": 0.0}),
        ("--optimiser sgd --momentum 0.8 --nesterov", {"optimiser": "sgd", "momentum": 0.8, "nesterov": True}),
        ("--recipe seed --momentum 0.8", {"momentum": 0.8}),
        ("--schedule constant --lr 0.1", {"schedule": "constant", "lr": 0.1}),
        ("--ema none", {"ema": None}),
        ("--ema 0.99 --clean-finish 0", {"ema": 0.99, "clean_finish": 0.0}),
        ("--no-drop-last", {"drop_last": False}),
        ("--degrees 3 --shear 2 --shift 1 --scale 0.05 --crop-chance 0.5", None),
    ],
)
def test_flags_change_the_recipe_and_nothing_else(argv: str, changes: dict[str, object] | None) -> None:
    options = parse(argv.split(), {})
    chosen = recipes.choose(options.recipe, 3, "cpu", **options.changes)
    before = RECIPES[options.recipe][3]
    if changes is None:
        changes = {"augment": Affine(degrees=3, scale=0.05, shear_degrees=2, shift_px=1, crop_chance=0.5)}
    after = asdict(chosen) | {"augment": chosen.augment}
    assert after == asdict(before) | {"augment": before.augment} | changes


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--momentum 0.5", "--momentum has no meaning with --optimiser adamw, which is what recipe best uses"),
        ("--optimiser sgd --betas 0.9,0.99", "--betas has no meaning with --optimiser sgd, which is chosen"),
        ("--recipe seed --rise 0.1", "--rise has no meaning with --schedule constant, which is what recipe seed uses"),
        ("--optimiser sgd --momentum 0 --nesterov", "--nesterov needs a --momentum above 0"),
        ("--ema 1", "argument --ema: 1 is not allowed, it must be from 0 to below 1"),
        ("--ema all", "argument --ema: 'all' is not a number"),
        ("--betas 0.9", "argument --betas: '0.9' is not two numbers with a comma between"),
        ("--betas 0.9,1", "argument --betas: 1 is not allowed, it must be from 0 to below 1"),
        ("--weight-decay -0.1", "argument --weight-decay: -0.1 is not allowed, it must be at least 0"),
        ("--weight-decay inf", "argument --weight-decay: inf is not allowed, it must be at least 0"),
        ("--degrees nan", "argument --degrees: nan is not allowed, it must be from 0 to 180"),
        ("--clean-finish 1.5", "argument --clean-finish: 1.5 is not allowed, it must be from 0 to 1"),
        ("--optimiser adam", "argument --optimiser: invalid choice: 'adam'"),
        ("--val --subset 6", "--val needs a --subset of at least 12"),
    ],
)
def test_what_is_refused(argv: str, said: str) -> None:
    with pytest.raises(BadArguments) as caught:
        parse(argv.split(), {})
    assert str(caught.value).startswith(said)


def test_changes_are_recorded_and_a_checkpoint_knows_them(job) -> None:  # type: ignore[no-untyped-def]
    made: Job = job("--model", "2", "--epochs", "1", "--ema", "none", "--shift", "1", *SMALL)
    assert made.run() == 0, made.log
    (start,) = made.events("start")
    assert start["changed"] == ["ema", "epochs", "shift_px"]
    assert (start["settings"]["ema"], start["settings"]["augment"]["shift_px"]) == (None, 1.0)
    document = made.json("metrics.json")
    assert document["changed"] == start["changed"] and document["recipe"] == start["settings"]
    assert document["scored_weights"] == "last step"
    resume = str(made.out / "checkpoints" / "last.pt")
    other: Job = job("--model", "2", "--epochs", "1", *SMALL, name="other", env={"CLOUDTRAIN_RESUME": resume})
    assert other.run() == 1
    assert other.events("error")[0]["code"] == "checkpoint_mismatch"


def test_val_holds_out_the_same_images_and_opens_the_test_set_once(job) -> None:  # type: ignore[no-untyped-def]
    made: Job = job("--model", "2", "--epochs", "2", "--val", *SMALL)
    assert made.run() == 0, made.log
    assert made.log.count("Held-out set: Average loss:") == 2 and made.log.count("Test set: Average loss:") == 1
    assert made.log.index("Held-out set") < made.log.index("Test set: Average loss:") < made.log.index("Results:")
    (start,), (result,) = made.events("start"), made.events("result")
    assert start["steps"] == 750 // 64 and start["scored_on"] == "held-out training images"
    assert all(event["scored_on"] == "held-out training images" for event in made.events("epoch"))
    document, rows = made.json("metrics.json"), made.rows()
    assert document["headline"] == "test" and document["best_picked_on"] == "held-out training images"
    assert sum(map(sum, document["test"]["confusion"])) == 150
    assert document["test"]["test_acc"] == result["final_test_acc"] == result["best_test_acc"]
    assert result["best_epoch"] == 2 and f"Best Test Accuracy: {result['final_test_acc']:.2f} (2nd Epoch)" in made.log
    assert result["final_val_acc"] == rows[-1]["test_acc"]
    assert result["best_val_acc"] == max(row["test_acc"] for row in rows)
    predictions = (made.out / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    right = sum(line.split(",")[1] == line.split(",")[2] for line in predictions)
    assert len(predictions) == 150 and 100 * right / 150 == result["final_test_acc"]
