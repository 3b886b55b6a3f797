"""What `ls` shows of a run that trains, kept up to date while its events pass by."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudtrain.core.told import Figures
from cloudtrain.store import Run, Store

EVERY_S = 1.0
# A row of a host that was heard of within so many seconds is taken for as of now (`console.pages.listing`): less.
BEAT_S = 5.0


class Progress:
    """The row's `progress`, stored at most once a second and at each epoch's end."""

    def __init__(self, run: Run, store: Store) -> None:
        self._run = run
        self._store = store
        self._figures = run.progress
        self._stored_at = 0.0

    @property
    def figures(self) -> Figures:
        """What the row is to have."""
        return self._figures

    def take(self, values: Mapping[str, Any]) -> None:
        """Hear one object of `events.jsonl`, and store what it tells."""
        self.hear(values)
        self.store(force=values.get("kind") == "epoch")

    def hear(self, values: Mapping[str, Any]) -> None:
        """One object of `events.jsonl`; nothing is stored."""
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

    def beat(self) -> None:
        """The host lives, whatever it said: its row is as of now, give or take some seconds."""
        self.store(every_s=BEAT_S)

    def store(self, *, force: bool = False, every_s: float = EVERY_S) -> None:
        """Store it, if that is due or `force`d."""
        now = time.monotonic()
        if force or now - self._stored_at > every_s:
            self._store.note(self._run, progress=self._figures)
            self._stored_at = now
