"""What jobs tell and damage leaves, through everything that reads or shows a run."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from rich.console import Console

from cloudtrain.console.log_text import LogView
from cloudtrain.console.pages import comparison as comparison_page
from cloudtrain.console.pages import listing, stopping
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.console.reporters.jsonl import JsonReporter
from cloudtrain.console.reporters.live import LiveReporter
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.core.decode import made
from cloudtrain.core.events import Event
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import checkpoints
from cloudtrain.lifecycle.progress import Heard, Progress
from cloudtrain.report import markdown, page, record, sources
from cloudtrain.report.comparison import compare
from cloudtrain.report.notebook import LoadedRun
from cloudtrain.run_folder import outcome, receipt
from cloudtrain.store import Run, Store
from cloudtrain.transfer.follow import Follower
from cloudtrain.transfer.frames import End, EventsFrame, ExitRecord, LogFrame
from tests import plans
from tests.hostile.host import EXIT, GPU
from tests.hostile.odd import Parser, no_escapes, odd, spoilt

EVENTS: tuple[dict[str, Any], ...] = (
    {
        "v": 1,
        "t": 1.8e9,
        "kind": "start",
        "model": 3,
        "parameters": 7902,
        "epochs": 2,
        "batch_size": 64,
        "seed": 1,
        "lr": 0.1,
        "recipe": "best",
        "device": "cpu",
        "device_name": "x",
        "torch": "2",
        "steps": 9,
        "goals": ["a"],
        "goal_test_acc": 99.4,
        "settings": {"a": {"b": 1}},
        "subset": None,
        "resumed": None,
    },
    {"kind": "data", "source": "mirror", "done": 3, "total": 9},
    {"kind": "data", "source": "mirror", "sha256": {"a": "b"}},
    {"kind": "step", "epoch": 1, "step": 3, "steps": 9, "loss": 0.5, "train_acc": 50.0, "rate": 9.5},
    {
        "kind": "epoch",
        "epoch": 1,
        "epochs": 2,
        "train_loss": 0.5,
        "train_acc": 90.0,
        "test_loss": 0.5,
        "test_acc": 91.0,
        "lr": 0.1,
        "seconds": 3.5,
        "best": True,
        "scored_on": "test set",
    },
    {"kind": "checkpoint", "epoch": 1, "name": "c.pt", "step": 3},
    {"kind": "warning", "message": "m"},
    {"kind": "error", "code": "c", "message": "m", "hint": "h"},
    {"kind": "mine", "a": 1},
    {
        "kind": "result",
        "parameters": 7902,
        "best_epoch": 1,
        "best_test_acc": 91.0,
        "best_train_acc": 90.0,
        "final_test_acc": 91.0,
        "goals": {"a": True},
    },
)


ROWS: tuple[dict[str, Any], ...] = (
    {"kind": "figures", "step": 100, "val_loss": 0.5, "t": 1.8e9},
    {"kind": "x", "epoch": 0.5, "loss": "1.234", "lr": 1e-5, "grad_norm": 3},
    {"kind": "epoch", "epoch": 1, "epochs": 2, "val_ppl": 9.5, "test_acc": 91.0, "seconds": 3.5},
    {"kind": "step", "epoch": 1, "step": 3, "steps": 9, "loss": 0.5},
    {"global_step": 7.0, "a b": -1e99},
)


class _Link:
    """A host that sends these events, a log, and the end."""

    def __init__(self, lines: bytes, log: bytes) -> None:
        record = {key: value for key, value in EXIT.items() if key != "v"}
        end = End("exited", ExitRecord(**record), len(log), len(lines))  # type: ignore[arg-type]
        self._frames = [LogFrame(0, log), EventsFrame(0, lines), end]

    def supervisor(self) -> Any:
        return SimpleNamespace(follow=lambda log, events: contextlib.nullcontext(iter(self._frames)))

    def drop(self) -> None:
        raise AssertionError("the link broke")


@contextmanager
def _registry(**asked: Any) -> Iterator[tuple[Store, Run]]:
    """A registry with one run that trains."""
    with tempfile.TemporaryDirectory() as folder, registry_in(Path(folder), **asked) as known:
        yield known


@contextmanager
def registry_in(folder: Path, **asked: Any) -> Iterator[tuple[Store, Run]]:
    """The same in `folder`, of a run for which this was `asked`."""
    store = Store(folder / "registry.sqlite")
    run = store.add(plans.plan(folder / "runs", **asked))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING):
        run = store.move(run, state)
    machine = plans.machine(expires_at=4e9)
    run = store.move(run, RunState.RUNNING, instance=machine, life=InstanceLife.RUNNING)
    run.folder.mkdir(parents=True)
    yield store, run


def _shown(run: Run, store: Store) -> str:
    """Every page about a run, as text that goes to a screen."""
    notes = store.read_journal(run.name)
    lines = [*listing.table(store.runs()), *listing.page(run, store), *stopping.table([run])]
    lines += [stopping.question(run), *stopping.losses(run, [], "", notes)]
    json.dumps(listing.record(run), allow_nan=False)
    with contextlib.suppress(OSError):  # a folder that is not there is no fault of the row's words
        receipt.write(run, store)
    checkpoints.latest(run, notes)
    facts = sources.find(run.name, store)
    lines += [*markdown.section(facts).splitlines(), repr(LoadedRun(facts))]
    if not facts.shipped:
        json.dumps(record.build(facts), allow_nan=False)
        lines += page.report(facts).splitlines()
        lines += comparison_page.lines(compare([facts, facts]))
    return "\n".join(lines)


def _reporters() -> tuple[list[Reporter], io.StringIO]:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, color_system=None, width=80, soft_wrap=True)
    return [PlainReporter(), LiveReporter(console, ticking=False), JsonReporter(), LogView()], drawn


def events(told: Any) -> None:
    """A job's events, followed by every reporter, and whatever is made of them later."""
    with _registry() as (store, run):
        _followed(store, run, told, b"a\x1b[2Jb\n")


OWN = JobSpec(source="x", command=("python", "train.py"), figures={"step": r"step.*?(\d+)", "any": r"loss\W*(\S+)"})


def figures(told: Any) -> None:
    """The same of a program of the user's own, which also prints all that it tells, in two ways."""
    printed = [json.dumps(value) for value in told] + [repr(value) for value in told]
    with _registry(job=OWN) as (store, run):
        _followed(store, run, told, "\n".join([*printed, ""]).encode("utf-8", "surrogatepass"))


def _followed(store: Store, run: Run, told: Any, log: bytes) -> None:
    lines = b"".join(json.dumps(value).encode() + b"\n" for value in told)
    reporters, _ = _reporters()
    progress = Progress(run, store)
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        for reporter in reporters:
            reporter.about(run, lambda: store.get(run.name))

        def emit(event: Event) -> None:
            for reporter in reporters:
                reporter.emit(event)

        heard = Heard(run, emit, progress.hear_row)
        Follower(run.folder, _Link(lines, log), heard.emit, on_event=progress.take).run()
        progress.store(force=True)
        ended(store, reporters)
        for reporter in reporters:
            reporter.close()
        shown = _shown(store.get(run.name), store)
    no_escapes(shown)
    no_escapes(err.getvalue())


def ended(store: Store, reporters: Sequence[Reporter]) -> None:
    """The run ends in each way."""
    (run,) = store.runs()
    run = store.move(run, RunState.PULLING, ending=made(ExitRecord, {**EXIT, "state": "exited", "code": 1}))
    state, error = outcome.ending(run)
    run = store.move(run, state, error=error)
    for reporter in reporters:
        reporter.result(outcome.result(run, store.read_journal(run.name), 1.9e9))


def registry(row: dict[str, Any]) -> None:
    """A row of the registry, as an earlier version or damage may have left it."""
    with _registry() as (store, run):
        other = store.add(plans.plan(run.folder.parent, "calm-raven"))
        with closing(sqlite3.connect(store.path)) as db, db:
            for column, value in row.items():
                text = value if isinstance(value, (int, float)) or value is None else json.dumps(value)
                with contextlib.suppress(sqlite3.Error, OverflowError):  # what cannot stand there
                    db.execute(f"UPDATE runs SET {column} = ? WHERE name = ?", (text, run.name))
        assert other.name in [one.name for one in store.runs(damaged=lambda _: None)]
        store.moves(run.name)
        found = store.get(run.name)
        no_escapes(_shown(found, store))
        outcome.result(found, store.read_journal(run.name), 1.9e9)


def _row() -> st.SearchStrategy[dict[str, Any]]:
    plan = plans.plan(Path("runs"), target=plans.Target.EC2, ec2=plans.FULL_EC2).to_dict()
    pulled = [{"name": "w", "size": 3, "sha256": "a" * 64}]
    whole: dict[str, Any] = {
        "plan": plan,
        "instance": plans.machine(expires_at=4e9, parked_s=3.0).to_dict(),
        "progress": {
            "epoch": 1,
            "epochs": 2,
            "best_test_acc": 91.0,
            "best_epoch": 1,
            "parameters": 5,
            "figure": {"name": "val_loss", "value": 0.5, "epoch": 0.5, "step": 3, "origin": "events"},
        },
        "ending": {**EXIT, "state": "exited"},
        "error": {"code": "c", "message": "m", "hint": "h", "detail": "d", "cause": "c", "exit": 3},
        "journal": {
            "id": "a",
            "host": {"os": "x", "gpus": [GPU], "cpus": 4},
            "pulled": pulled,
            "leftovers": ["x"],
            "attempts": [],
            "aws_requests": [{"call": "x", "id": "y", "error": None, "at": 1.8e9}],
            "checkpoint": {"name": "c", "size": 3, "sha256": "a" * 64, "epoch": 1, "step": 0},
            "code": {"digest": "d", "archive": None, "git": None},
        },
        "created_at": 1.8e9,
        "ended_at": None,
    }

    @st.composite
    def columns(draw: st.DrawFn) -> dict[str, Any]:
        chosen = draw(st.sets(st.sampled_from(sorted(whole)), min_size=1, max_size=3))
        row = {name: draw(spoilt(st.just(whole[name]))) if name[-3:] != "_at" else draw(odd) for name in chosen}
        return row

    return columns()


PARSERS = {
    "events, through the follower, every reporter, pages, receipt, report": Parser(
        events, st.lists(spoilt(st.sampled_from(EVENTS)) | st.sampled_from(EVENTS), min_size=1, max_size=8), costs=8
    ),
    "figures in any form, through all of these, `show`, `compare`, the page": Parser(
        figures, st.lists(spoilt(st.sampled_from(ROWS)) | st.sampled_from(ROWS), min_size=1, max_size=8), costs=16
    ),
    "rows of the registry, through `ls`, `show`, `stop`'s questions, receipt, report": Parser(
        registry, _row(), costs=8
    ),
}
