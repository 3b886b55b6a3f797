"""Figures of a program of the user's own on the screen: `ls`, `show`, the end of `run`, and JSON lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.console.pages import listing, summary
from cloudtrain.console.reporters.jsonl import JsonReporter
from cloudtrain.core.events import FiguresTold
from cloudtrain.core.figures import BOARD, DECLARED, EVENTS, LINES, Figure, Row
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.states import RunState
from cloudtrain.core.told import Figures
from cloudtrain.run_folder import outcome
from cloudtrain.store import Run, Store
from tests import plans

OWN = JobSpec(source="x", command=("python", "train.py", "--lr", "3e-4"), figures={"ppl": r"ppl (\S+)"})
LOSS = Figure(name="val_loss", value=0.41234, step=2000, origin=LINES)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


def run(store: Store, name: str, job: JobSpec, progress: Figures) -> Run:
    """A run that trains."""
    made = store.add(plans.plan(store.path.parent / "runs", name, job=job))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
        made = store.move(made, state)
    return store.note(made, progress=progress)


def cells(runs: list[Run]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell] for line in listing.table(runs)]


def test_a_listing_says_what_runs_and_what_it_tells(store: Store) -> None:
    shipped = run(store, "brave-otter", JobSpec(source="x"), Figures(best_test_acc=98.9))
    assert cells([shipped])[0] == ["NAME", " MODEL", "WHERE", " STATUS", " TEST ACC", " COST", "AGE"] or (
        [cell.strip() for cell in cells([shipped])[0]]
        == ["NAME", "MODEL", "WHERE", "STATUS", "TEST ACC", "COST", "AGE"]
    )
    own = run(store, "calm-raven", OWN, Figures(figure=LOSS))
    accurate = run(
        store, "dry-finch", JobSpec(source="x", module="mine.train"), Figures(best_test_acc=97.0, figure=LOSS)
    )
    nothing = run(store, "fair-crane", OWN, Figures())
    header, *rows = cells([shipped, own, accurate, nothing])
    assert header == ["NAME", "WHAT", "WHERE", "STATUS", "FIGURE", "COST", "AGE"]
    assert [(row[1], row[4]) for row in rows[:4]] == [
        ("model 3", "test acc 98.90%"),
        ("python train.py --lr 3e-4", "val_loss 0.4123"),
        ("model 3", "test acc 97.00%"),
        ("python train.py --lr 3e-4", "-"),
    ]
    declared = replace(LOSS, name="ppl", origin=DECLARED)
    both = run(store, "glad-lemur", OWN, Figures(best_test_acc=97.0, figure=declared))
    assert "ppl 0.4123" in listing.table([both])[1], "what is declared is what the user wants to see"


def test_a_record_has_them(store: Store) -> None:
    own = run(store, "calm-raven", OWN, Figures(figure=LOSS))
    record = listing.record(own)
    assert (record["model"], record["what"]) == (None, "python train.py --lr 3e-4")
    assert record["figure"] == {"name": "val_loss", "value": 0.41234, "epoch": None, "step": 2000, "origin": LINES}
    assert listing.record(run(store, "brave-otter", JobSpec(source="x"), Figures()))["figure"] is None


def test_the_page_of_a_run_has_all_figures_and_no_table_of_nothing(store: Store) -> None:
    own = run(store, "calm-raven", OWN, Figures(figure=LOSS))
    own.folder.mkdir(parents=True)
    events = [{"kind": "epoch", "epoch": at, "epochs": 2, "val_ppl": 9.5 - at} for at in (1, 2)]
    (own.folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (own.folder / "console.log").write_text("ppl 7.5\nAccuracy: 9835/10000 (98%)\n")
    page = listing.page(own, store)
    begins = next(at for at, line in enumerate(page) if line.startswith("figure"))
    assert [line.split() for line in page[begins : begins + 3]] == [
        ["figure", "last", "lowest", "highest", "at", "from"],
        ["ppl", "7.5", "7.5", "7.5", "row", "1", "[job.figures]"],
        ["val_ppl", "7.5", "7.5", "8.5", "epoch", "2", "events"],
    ]
    assert not [line for line in page if "train acc" in line or "9835" in line]


def test_the_end_of_a_run_says_how_it_stood(store: Store) -> None:
    own = run(store, "calm-raven", OWN, Figures(figure=LOSS))
    result = outcome.result(own, store.read_journal(own.name), 1.9e9)
    assert summary.ending_lines(result)[0] == "figure   val_loss 0.4123 at step 2,000, from lines of the log"
    assert result.metrics["figure"]["origin"] == LINES


def test_json_lines_say_where_figures_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonReporter("calm-raven")
    for origin in (EVENTS, BOARD):
        reporter.emit(FiguresTold(Row(origin=origin, values={"loss": 0.5}, step=3)))
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]  # an event is a `metric` already
    del line["ts"]
    assert line == {
        "type": "figures",
        "run": "calm-raven",
        "origin": BOARD,
        "epoch": None,
        "step": 3,
        "values": {"loss": 0.5},
    }
