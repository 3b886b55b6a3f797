"""A run's folder made by hand: the figures are those of the course's third model on a T4."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.report.facts import Facts
from cloudtrain.report.sources import of_path

TEST = [97.19, 98.58, 98.71, 98.98, 99.05, 99.14, 99.10, 99.32, 99.24, 99.35, 99.30, 99.39, 99.41, 99.44, 99.43]
TRAIN = [77.44, 96.5, 97.1, 97.5, 97.7, 97.9, 98.0, 98.1, 98.37, 98.4, 98.45, 98.5, 98.55, 98.6, 98.66]
GOALS = ["test accuracy >= 99.4 %", "parameters < 8000", "epochs <= 15"]
REDRAWN = "  0%|  | 0/469\r 50%|# | 235/469\r\x1b[32mLoss=0.1 Batch_id=468 Accuracy=77.44: 100%\x1b[0m\n"
LOG = f"cuda\nEPOCH: 0\n{REDRAWN}\nbye\n"
IMAGES_SHA256 = "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"


def matrix() -> list[list[int]]:
    """A confusion matrix of 10,000 pictures with 57 mistakes."""
    rows = [[1000 if d == a else 0 for a in range(10)] for d in range(10)]
    for digit, answer, count in [(9, 4, 20), (4, 9, 17), (7, 2, 9), (5, 3, 6), (6, 0, 4), (8, 9, 1)]:
        rows[digit][answer] += count
        rows[digit][digit] -= count
    return rows


RECEIPT: dict[str, Any] = {
    "schema_version": 1,
    "cloudtrain": "0.1.0",
    "id": "0" * 32,
    "name": "brave-otter",
    "status": "succeeded",
    "ended_how": "finished",
    "exit_code": 0,
    "created": "2026-11-23T12:00:00+00:00",
    "ended": "2026-11-23T12:04:23+00:00",
    "phases": [
        {"state": state, "seconds": seconds}
        for state, seconds in (
            ("planned", 0.1), ("provisioning", 31.0), ("booting", 58.2), ("syncing", 13.0), ("running", 158.4),
            ("pulling", 2.1),
        )
    ],
    "target": "ec2",
    "rehearsal": False,
    "train": {
        "module": "job.train", "model": 3, "epochs": 15, "batch_size": None, "seed": 1, "lr": None, "recipe": None,
        "device": "auto", "args": [],
    },
    "settings": {
        "model": 3, "parameters": 7902, "epochs": 15, "batch_size": 128, "seed": 1, "lr": 0.01, "recipe": "best",
        "device": "cuda", "device_name": "Tesla T4", "torch": "2.13.0+cu130", "steps": 469, "subset": None,
        "resumed": None, "hyperparameters": {"name": "best", "optimiser": "adamw", "augment": {"degrees": 10.0}},
    },
    "goals": [{"goal": goal, "met": True} for goal in GOALS],
    "result": {"parameters": 7902, "best_epoch": 14, "best_test_acc": 99.44, "best_train_acc": 98.66},
    "code": {"digest": "ab" * 32, "archive": None, "git": {"commit": "cd" * 20, "dirty": True}},
    "data": {"source": "mirror", "sha256": {"t10k-images-idx3-ubyte": IMAGES_SHA256}},
    "machine": {
        "instance_type": "g4dn.xlarge", "region": "us-east-1", "zone": "us-east-1b", "market": "on-demand",
        "image_name": "Deep Learning AMI", "gpus": [{"name": "Tesla T4", "memory_mib": 15360}], "driver": "580.105",
        "cuda": "13.0", "torch": "2.13.0", "python": "3.12.3", "cpus": 4, "os": "Ubuntu 24.04",
    },
    "cost": {"billed": True, "estimate": 0.0392, "price_per_hour": 0.536, "price_date": "2026-07-20"},
    "log": {"bytes": None, "sha256": None},
    "events": {"bytes": None, "sha256": None},
    "artifacts": [],
}  # fmt: skip


class MadeRun:
    """The folder, and what is written into it by `facts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.receipt: dict[str, Any] = copy.deepcopy(RECEIPT)
        self.events: list[dict[str, Any]] = [
            {
                "v": 1, "t": 1.8e9 + 10 * number, "kind": "epoch", "epoch": number, "epochs": 15, "lr": 0.01,
                "step": 469 * number, "seconds": 10.2, "best": False, "train_loss": 0.7 * 0.75**number + 0.04,
                "train_acc": train, "test_loss": 3.2 * (100 - test) / 100, "test_acc": test,
            }
            for number, (train, test) in enumerate(zip(TRAIN, TEST, strict=True), start=1)
        ]  # fmt: skip
        self.metrics: dict[str, Any] = {
            "goals": [
                {"goal": goal, "value": value, "met": True}
                for goal, value in zip(GOALS, (99.43, 7902, 15), strict=True)
            ],
            "final": {"epoch": 15, "confusion": matrix()},
        }
        # Of 10,000 answers 57 are wrong; the sixth is the surest.
        self.predictions = [
            (index, index % 10, (index % 10 + 4) % 10 if index < 57 else index % 10, 0.5 + (index == 5) * 0.4999)
            for index in range(10_000)
        ]
        self.log = LOG.encode()
        self.layers = "-" * 64 + "\n        Layer (type)               Output Shape         Param #\n"

    def write(self) -> Path:
        """The files as they are by now; the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [f"{index},{label},{answer},{sure:.6f}" for index, label, answer, sure in self.predictions]
        files = {
            "events.jsonl": "".join(json.dumps(event) + "\n" for event in self.events).encode(),
            "metrics.json": json.dumps(self.metrics).encode(),
            "predictions.csv": ("index,label,predicted,confidence\n" + "\n".join(rows) + "\n").encode(),
            "console.log": self.log,
            "model_summary.txt": self.layers.encode(),
        }
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        listed = [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
            if name in ("metrics.json", "predictions.csv", "model_summary.txt")
        ]
        self.receipt["artifacts"] = self.receipt["artifacts"] or listed
        (self.folder / "run.json").write_text(json.dumps(self.receipt), encoding="utf-8")
        return self.folder

    def facts(self) -> Facts:
        """What a report is made of."""
        return of_path(self.write())


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """A folder as a run of 15 epochs leaves it, to be changed."""
    return MadeRun(tmp_path / "runs" / "brave-otter")
