"""The result files below the run's `out/` folder. Each arrives by rename, so what can be seen is whole."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from job import environment
from job.events import finite
from job.files import write_whole
from job.summary import Summary

COLUMNS = ("step", "timestamp", "epoch", "train_loss", "train_acc", "test_loss", "test_acc", "lr", "seconds")

State = dict[str, Tensor]


class Outputs:
    """Writes into `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

    def environment(self, *, gpu: bool) -> None:
        """env/requirements.txt, and with `gpu` env/gpu.txt where `nvidia-smi` answers."""
        write_whole(self.folder / "env" / "requirements.txt", environment.requirements())
        told = environment.gpus() if gpu else None
        if told is not None:
            write_whole(self.folder / "env" / "gpu.txt", told)

    def summary(self, summary: Summary) -> None:
        write_whole(self.folder / "model_summary.txt", summary.table() + "\n")
        self._json("model_summary.json", summary.as_json())

    def weights(self, name: str, state: State) -> None:
        """`state` as weights/NAME.safetensors and as weights/NAME.pt, a plain state_dict."""
        write_whole(self.folder / "weights" / f"{name}.safetensors", safetensors.torch.save(state))
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(self.folder / "weights" / f"{name}.pt", buffer.getvalue())

    def predictions(self, labels: Tensor, predicted: Tensor, confidence: Tensor) -> None:
        """One row a test image, in the data set's order; confidence is the probability given to the answer."""
        rows = zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
        lines = [f"{index},{label},{answer},{sure:.6f}" for index, (label, answer, sure) in enumerate(rows)]
        write_whole(self.folder / "predictions.csv", "index,label,predicted,confidence\n" + "\n".join(lines) + "\n")

    def metrics(self, rows: list[dict[str, Any]], document: dict[str, Any]) -> None:
        """metrics.jsonl and metrics.csv from `rows`, one an epoch, and metrics.json from `document`."""
        lines = [json.dumps(finite(row), allow_nan=False) for row in rows]
        write_whole(self.folder / "metrics.jsonl", "".join(f"{line}\n" for line in lines))
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            utc = datetime.fromtimestamp(row["t"], timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: UP017 (3.10)
            writer.writerow([{**row, "timestamp": utc}[column] for column in COLUMNS])
        write_whole(self.folder / "metrics.csv", table.getvalue())
        self._json("metrics.json", document)

    def _json(self, name: str, document: dict[str, Any]) -> None:
        write_whole(self.folder / name, json.dumps(finite(document), indent=2, allow_nan=False) + "\n")


def on_cpu(state: State) -> State:
    """A copy of `state` on the CPU that later training does not change."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
