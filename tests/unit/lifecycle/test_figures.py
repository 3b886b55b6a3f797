"""Figures while a run is followed: from its log, from event files that come down, and what the registry keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.core.events import Event, FiguresTold, LogLines, Warned
from cloudtrain.core.figures import BOARD, DECLARED, EVENTS, LINES, Figure
from cloudtrain.core.spec import JobSpec
from cloudtrain.lifecycle import planning, story
from cloudtrain.lifecycle.progress import Heard, Progress
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder import event_files
from cloudtrain.store import Store
from tests import plans
from tests.fake_provider import FakeProvider
from tests.fakes import FakeRun

pytest.importorskip("tensorboard")


def followed(tmp_path: Path, job: object, **spec: object) -> tuple[Figure | None, list[FiguresTold], list[Event]]:
    """A run of a job on a host in memory, to its end: what its row keeps, and what was told."""
    machines, told = FakeProvider(job), list[Event]()  # type: ignore[arg-type]
    store = Store(tmp_path / "registry.sqlite", clock=machines.clock)
    context = Context(
        store=store, provider=lambda spec: machines, emit=told.append, clock=machines.clock, sleep=machines.sleep
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.py").write_text("the host has a job of its own")
    made = JobSpec(source=str(tmp_path / "mine"), module=str(spec.pop("module", "mine.train")), **spec)  # type: ignore[arg-type]
    run = planning.begin(plans.plan(tmp_path / "runs", job=made), context)
    story.resume(run, context)
    return store.get(run.name).progress.figure, [one for one in told if isinstance(one, FiguresTold)], told


def prints(run: FakeRun) -> Iterator[float]:
    """A program that knows nothing of cloudtrain."""
    run.print("Accuracy: 9835/10000 (98%)")
    run.print("{'loss': 0.5, 'epoch': 0.5}")
    yield 1.0
    run.print("step 3 ppl 9.5")
    run.tell("mine", step=7, lr=0.125)


def test_a_log_is_looked_through_as_it_comes(tmp_path: Path) -> None:
    figure, rows, told = followed(tmp_path, prints, figures={"ppl": r"ppl (\S+)", "step": r"step (\d+)"})
    assert [(one.row.origin, one.row.epoch, one.row.step, dict(one.row.values)) for one in rows] == [
        (LINES, 0.5, None, {"loss": 0.5}),
        (DECLARED, None, 3, {"ppl": 9.5}),
        (EVENTS, None, 7, {"lr": 0.125}),
    ]
    assert figure == Figure(name="ppl", value=9.5, step=3, origin=DECLARED)
    lines = [at for at, one in enumerate(told) if isinstance(one, LogLines)]
    assert told.index(rows[0]) > lines[0], "the lines first, and what was found in them after them"


def test_of_the_shipped_job_nothing_is_looked_for(tmp_path: Path) -> None:
    figure, rows, _ = followed(tmp_path, prints, module="job.train", figures={"ppl": r"ppl (\S+)"})
    assert figure is None and not rows


def test_event_files_count_once_they_are_here(tmp_path: Path) -> None:
    from tests.unit.run_folder.test_figures import board

    def writes(run: FakeRun) -> Iterator[float]:
        scalars = [(1, "val/loss", 0.5), (2, "val/loss", 0.25)]
        run.out["tb/events.out.tfevents.1"] = board(tmp_path / "made", scalars).read_bytes()
        yield 1.0

    figure, _, _ = followed(tmp_path, writes)
    assert figure == Figure(name="val/loss", value=0.25, step=2, origin=BOARD)


def test_of_more_event_files_than_are_read_at_once_the_newest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.run_folder.test_figures import board

    def writes(run: FakeRun) -> Iterator[float]:
        data = board(tmp_path / "made", [(at, "val/loss", 1 / at) for at in range(1, 101)]).read_bytes()
        monkeypatch.setattr(event_files, "MOST_BYTES", len(data) // 4)
        run.out["tb/events.out.tfevents.1"] = data
        yield 1.0

    figure, _, _ = followed(tmp_path, writes)
    assert figure is not None and figure.step == 100


def test_event_files_that_grow_are_told_while_it_trains(tmp_path: Path, store: Store) -> None:
    from tests.unit.run_folder.test_figures import board

    run, told = store.add(plans.plan(tmp_path / "runs", job=JobSpec(source="x", module="mine.train"))), list[Event]()
    progress = Progress(run, store)
    heard = Heard(run, told.append, progress.hear_row)
    for step, value in ((1, 0.5), (2, 0.25)):
        path = board(run.folder / "tb", [(step, "loss", value)])
        heard.arrived([path.relative_to(run.folder).as_posix(), "weights.pt"])
    assert [one.row.step for one in told if isinstance(one, FiguresTold)] == [1, 2]
    assert progress.figures.figure == Figure(name="loss", value=0.25, step=2, origin=BOARD)


def test_an_expression_that_is_given_up_is_said_once(tmp_path: Path, store: Store) -> None:
    job, told = JobSpec(source="x", module="mine.train", figures={"slow": r"(a+)+$"}), list[Event]()
    heard = Heard(store.add(plans.plan(tmp_path / "runs", job=job)), told.append)
    for _ in range(2):
        heard.emit(LogLines(b"a" * 4000 + b"!\n", 0))
    (warned,) = [one for one in told if isinstance(one, Warned)]
    assert warned.message.startswith("[job.figures] slow is not looked for any more: it took more than 50 ms")
