"""What `ls` shows of a run that trains, kept up to date while its events and its log pass by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from cloudtrain.core.events import Emit, Event, FiguresTold, LogLines, Metric, Warned
from cloudtrain.core.figures import EVENTS, LogFigures, Row, newest, row, sound
from cloudtrain.core.told import Figures
from cloudtrain.run_folder.event_files import EventFiles
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
        if not self._run.plan.spec.job.shipped and (told := row(values, EVENTS)) is not None:
            self.hear_row(told)

    def hear_row(self, told: Row) -> None:
        """Figures that no event tells; nothing is stored."""
        declared = tuple(self._run.plan.spec.job.figures)
        self._figures = replace(self._figures, figure=newest(self._figures.figure, told, declared))

    def hear_log(self, data: bytes) -> None:
        """Whole lines of the log; nothing is stored."""
        for told in LogFigures(sound(self._run.plan.spec.job.figures)).feed(data):
            self.hear_row(told)

    def beat(self) -> None:
        """The host lives, whatever it said: its row is as of now, give or take some seconds."""
        self.store(every_s=BEAT_S)

    def store(self, *, force: bool = False, every_s: float = EVERY_S) -> None:
        """Store it, if that is due or `force`d."""
        now = time.monotonic()
        if force or now - self._stored_at > every_s:
            self._store.note(self._run, progress=self._figures)
            self._stored_at = now


class Heard:
    """Finds figures in what passes by of a run, and tells them; of the shipped job's, which are known, none.

    Args:
        emit: gets what passes by, and after it what was found in that.
        on_row: gets the figures that no event tells.
    """

    def __init__(self, run: Run, emit: Emit, on_row: Callable[[Row], None] = lambda told: None) -> None:
        self._emit, self._on_row = emit, on_row
        job = run.plan.spec.job
        self._looks = not job.shipped
        self._log = LogFigures(sound(job.figures) if self._looks else {})
        self._files = EventFiles(run.folder)
        self._given_up = 0

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        self._emit(event)
        if not self._looks:
            return
        if isinstance(event, LogLines):
            self._found(self._log.feed(event.data))
            for name, why in list(self._log.given_up.items())[self._given_up :]:
                self._given_up += 1
                self._emit(Warned(f"[job.figures] {name} is not looked for any more: {why}"))
        elif isinstance(event, Metric) and (told := row(event.values, EVENTS)) is not None:
            self._emit(FiguresTold(told))

    def arrived(self, names: Iterable[str], pieces: Iterable[tuple[str, int, bytes]] = ()) -> None:
        """Results lie in the run's folder under these names, and pieces of others have come (name, offset, bytes): what
        is one of TensorBoard's event files may tell more."""
        if self._looks:
            names = list(names)
            self._found(self._files.news(names))
            while self._files.behind:  # else what came first would stand for what is newest
                self._found(self._files.news(names))
            for name, offset, data in pieces:
                self._found(self._files.fed(name, offset, data))

    def _found(self, rows: Iterable[Row]) -> None:
        for told in rows:
            self._on_row(told)
            self._emit(FiguresTold(told))
