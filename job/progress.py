"""The state of a run between two steps: what a checkpoint holds and what the results are drawn from."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from job import checkpoint, devices
from job.data import Split
from job.evaluate import Score, confusion, per_class
from job.models import parameter_count
from job.optim import Average, optimiser
from job.outputs import Outputs, State, on_cpu
from job.recipes import Recipe, judge
from job.step import Meter, Reading, Step, batch_sizes, epoch_order

FIGURES = ("step", "epoch", "train_loss", "train_acc", "test_loss", "test_acc", "lr", "seconds", "train_seconds")


@dataclass
class Best:
    """The epoch (from 1) with the highest test accuracy, the first of equals: picked on the test set."""

    epoch: int
    state: State
    predicted: Tensor
    confidence: Tensor


@dataclass
class Progress:
    """`epoch` epochs are done and `step` steps of the next. `rows` has one dict an epoch.

    Attributes:
        test: what every epoch is scored on: the test set, with `val` the held-out training images.
        changed: hyper-parameters that were asked for in the recipe's place.
        opened: with `val`, the score on the test set, once it was opened; `test_labels` are its digits.
    """

    model_number: int
    model: nn.Module
    recipe: Recipe
    seed: int
    device: torch.device
    train: Split
    test: Split
    subset: int | None
    val: bool = False
    changed: list[str] = field(default_factory=list)
    opened: Score | None = None
    test_labels: Tensor | None = None
    epoch: int = 0
    step: int = 0
    elapsed: float = 0.0  # seconds of training in the epoch under way, before an interruption
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None

    def __post_init__(self) -> None:
        self.device_name = devices.name(self.device)
        self.sizes = batch_sizes(len(self.train.labels), self.recipe.batch_size, self.recipe.drop_last)
        self.optimiser = optimiser(self.model, self.recipe)
        self.average = None if self.recipe.ema is None else Average(self.model, self.recipe.ema)
        self.meter = Meter(self.sizes, self.device)
        self.stepper = Step(self.model, self.optimiser, self.average, self.meter, self.recipe, self.sizes)

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self.sizes)

    @property
    def epochs(self) -> int:
        return self.recipe.epochs

    @property
    def scored_on(self) -> str:
        """What the figures of the epochs are measured on."""
        return "held-out training images" if self.val else "test set"

    @property
    def scored(self) -> nn.Module:
        """The network that is evaluated and saved: averaged weights where the recipe has them."""
        return self.model if self.average is None else self.average.model

    def order(self) -> Tensor:
        """The order of the training images in this epoch."""
        return epoch_order(len(self.train.labels), self.seed, self.epoch).to(self.device)

    def finish_epoch(self, reading: Reading, score: Score, lr: float, seconds: float, train_seconds: float) -> None:
        """Note an epoch's figures and go on to the next."""
        best = self.best is None or score.accuracy > self.rows[self.best.epoch - 1]["test_acc"]
        self.epoch, self.step, self.elapsed = self.epoch + 1, 0, 0.0
        self.rows.append(
            {
                "t": round(time.time(), 3),
                "step": self.epoch * self.steps,
                "epoch": self.epoch,
                "train_loss": reading.loss,
                "train_acc": reading.accuracy,
                "test_loss": score.loss,
                "test_acc": score.accuracy,
                "lr": lr,
                "seconds": round(seconds, 3),
                "train_seconds": round(train_seconds, 3),
                "best": best,
                "confusion": confusion(self.test.labels, score.predicted),
            }
        )
        if best:
            self.best = Best(self.epoch, on_cpu(self.scored.state_dict()), score.predicted, score.confidence)
        self.meter.clear()

    # checkpoint

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be gone on from."""
        recipe = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.recipe).items()}
        run = {"model": self.model_number, "seed": self.seed, "images": len(self.train.labels), "val": self.val}
        return {**run, **recipe}

    def save(self, outputs: Outputs) -> None:
        state = {
            "identity": self.identity(),
            "epoch": self.epoch,
            "step": self.step,
            "elapsed": self.elapsed,
            "rows": self.rows,
            "best": None if self.best is None else dict(vars(self.best)),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None
            if self.average is None
            else {"model": self.average.model.state_dict(), "updates": self.average.updates},
            "meter": {"losses": self.meter.losses, "hits": self.meter.hits},
            "random": checkpoint.random_state(),
        }
        checkpoint.save(outputs.checkpoint, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where `state`, made by `save`, stood."""
        self.epoch, self.step, self.elapsed = state["epoch"], state["step"], state["elapsed"]
        self.rows = state["rows"]
        self.best = None if state["best"] is None else Best(**state["best"])
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"]["model"])
            self.average.updates.copy_(state["average"]["updates"])
        self.meter.losses.copy_(state["meter"]["losses"])
        self.meter.hits.copy_(state["meter"]["hits"])
        checkpoint.restore_random_state(state["random"])

    # results

    def metrics(self) -> list[dict[str, Any]]:
        """A row an epoch, for metrics.jsonl and metrics.csv."""
        return [{key: row[key] for key in ("t", *FIGURES, "best")} for row in self.rows]

    def final_test_acc(self) -> float | None:
        """The headline: test accuracy of the last epoch in percent; None before there is one."""
        if self.val:
            return None if self.opened is None else self.opened.accuracy
        return self.rows[-1]["test_acc"] if self.rows else None

    def headline(self) -> dict[str, Any]:
        """The figures of a finished run's `result` event.

        With `val` there is one figure of the test set, that of the last epoch, so it is the best one as well; what was
        reached on the held-out images is beside it.
        """
        final, best = self.final_test_acc(), self.rows[self.best.epoch - 1]
        told = {"best_epoch": best["epoch"], "best_test_acc": best["test_acc"]}
        if self.val:
            told = {"best_epoch": self.epoch, "best_test_acc": final, "final_val_acc": self.rows[-1]["test_acc"]}
            told |= {"best_val_acc": best["test_acc"], "best_val_epoch": best["epoch"]}
        return {**told, "best_train_acc": max(row["train_acc"] for row in self.rows), "final_test_acc": final}

    def goals(self) -> list[dict[str, Any]]:
        """The goals against the last epoch's accuracy, which counts only on the whole data set."""
        value = self.final_test_acc() if self.subset is None else None
        return judge(value, parameter_count(self.model), self.epochs)

    def document(self, status: str) -> dict[str, Any]:
        """metrics.json: settings, goals, the last and the best epoch. `status`: running, done, stopped or failed."""
        return {
            "v": 1,
            "status": status,
            "model": self.model_number,
            "parameters": parameter_count(self.model),
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "changed": self.changed,
            "epochs": self.epochs,
            "epochs_done": self.epoch,
            "steps_per_epoch": self.steps,
            "device": self.device.type,
            "device_name": self.device_name,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "data": {
                "train_images": len(self.train.labels),
                "test_images": len(self.test.labels),
                "subset": self.subset,
            },
            "scored_on": self.scored_on,
            "scored_weights": "last step" if self.average is None else "average",
            "headline": "test" if self.val else "final",
            "goals": self.goals(),
            "final": self._epoch_document(self.rows[-1]) if self.rows else None,
            "best": self._epoch_document(self.rows[self.best.epoch - 1]) if self.best else None,
            "test": self._opened_document(),
            "best_picked_on": self.scored_on,
            "best_train_acc": max((row["train_acc"] for row in self.rows), default=None),
            "seconds": round(sum(row["seconds"] for row in self.rows), 3),
        }

    def _opened_document(self) -> dict[str, Any] | None:
        """With `val`: the one look at the test set, None until then."""
        if self.opened is None or self.test_labels is None:
            return None
        matrix = confusion(self.test_labels, self.opened.predicted)
        figures = {"epoch": self.epoch, "test_loss": self.opened.loss, "test_acc": self.opened.accuracy}
        return {**figures, "per_class_acc": per_class(matrix), "confusion": matrix}

    @staticmethod
    def _epoch_document(row: dict[str, Any]) -> dict[str, Any]:
        figures = {key: row[key] for key in FIGURES}
        return {**figures, "per_class_acc": per_class(row["confusion"]), "confusion": row["confusion"]}
