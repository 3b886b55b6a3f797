"""What `ls` shows of a run that trains, kept up to date while its events pass by."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudtrain.store import Run, Store

EVERY_S = 1.0


class Progress:
    """The row's `progress`, stored at most once a second and at each epoch's end."""

    def __init__(self, run: Run, store: Store) -> None:
        self._run = run
        self._store = store
        self._figures = run.progress
        self._stored_at = 0.0

    def take(self, values: Mapping[str, Any]) -> None:
        """One object of `events.jsonl`."""
        kind, new = values.get("kind"), dict[str, Any]()
        if kind == "start":
            new = {k: values[k] for k in ("epochs", "parameters", "device", "batch_size") if k in values}
        elif kind == "step" and "epoch" in values:
            new = {"epoch": values["epoch"]}
        elif kind == "epoch":
            new = {k: values[k] for k in ("epoch", "epochs", "test_acc", "train_acc") if k in values}
            if values.get("best"):
                new |= {"best_test_acc": values.get("test_acc"), "best_epoch": values.get("epoch")}
        self._figures = replace(self._figures, **new)
        self.store(force=kind == "epoch")

    def store(self, *, force: bool = False) -> None:
        """Store it, if that is due or `force`d."""
        now = time.monotonic()
        if force or now - self._stored_at > EVERY_S:
            self._store.note(self._run, progress=self._figures)
            self._stored_at = now
