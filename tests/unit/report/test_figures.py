"""Figures of a program of the user's own, in every view: page, Markdown, JSON, compare, exports, notebook."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.console.pages import comparison as console
from cloudtrain.core.errors import UsageError
from cloudtrain.report import comparison, markdown, page, record
from cloudtrain.report.chart import HEIGHT, WIDTH, Series, figure_chart
from cloudtrain.report.export import write_epochs
from cloudtrain.report.notebook import LoadedRun
from tests.made import MadeRun
from tests.unit.report.test_page import Reader, alone


@pytest.fixture
def own(made: MadeRun) -> MadeRun:
    """A command's run that tells figures by events, prints a dict, and has one declared."""
    made.receipt["train"] |= {
        "module": None,
        "command": ["python", "train.py"],
        "model": None,
        "figures": {"ppl": r"ppl ([\d.]+)", "of another release": "("},
    }
    made.receipt |= {"settings": {"hyperparameters": {}}, "goals": [], "result": {}}
    made.metrics, made.predictions, made.layers = {}, [], ""
    made.events = [
        {"kind": "figures", "t": 1.8e9 + at, "step": 100 * at, "val_loss": 2.0 / at, "<b>": at} for at in (1, 2, 4)
    ]
    made.log = b"{'lr': 0.125, 'epoch': 0.5}\nppl 9.5\nAccuracy: 9835/10000 (98%)\nppl 8.5\n"
    return made


def test_the_page_draws_every_figure_and_says_where_it_is_from(own: MadeRun) -> None:
    reader = Reader(page.report(own.facts()))
    alone(reader)
    assert len(reader.all("svg")) == 4 and not reader.all("b")
    assert "8.5 ppl, at row 2 From [job.figures]; lowest 8.5, highest 9.5." in reader.text
    assert "val_loss 0.5 0.5 2 step 400 events" in reader.text
    assert "lr 0.125 0.125 0.125 epoch 0.5 lines of the log" in reader.text
    assert "9835" not in reader.text.replace("9835/10000", "")


def test_of_many_figures_those_that_say_most_are_drawn(own: MadeRun) -> None:
    own.events = [{"step": 1, **{f"n{at}": at for at in range(30)}, "val_loss": 0.5}]
    reader = Reader(page.report(own.facts()))
    assert len(reader.all("svg")) == 12 and "Of 33 figures these say most; all are in the table." in reader.text
    assert "n29 29 29 29 step 1 events" in reader.text


def test_the_shipped_jobs_page_has_none_of_it(made: MadeRun) -> None:
    made.events += [{"kind": "figures", "step": 1, "val_loss": 0.5}]
    made.log += b"{'lr': 0.1, 'epoch': 1}\n"
    facts = made.facts()
    assert not facts.curves and 'id="figures"' not in page.report(facts) and record.build(facts)["figures"] == []


def test_markdown_and_json_have_them(own: MadeRun) -> None:
    facts = own.facts()
    told = markdown.section(facts)
    assert r" - val\_loss: 0.5 at step 400; lowest 0.5, highest 2; 3 values from events." in told
    assert " - lr: 0.125 at epoch 0.5; 1 value from lines of the log." in told
    figures = {one["name"]: one for one in json.loads(json.dumps(record.build(facts)))["figures"]}
    assert list(figures) == ["ppl", "val_loss", "<b>", "lr"]
    assert figures["ppl"] == {
        "name": "ppl",
        "origin": "[job.figures]",
        "axis": "row",
        "last": 8.5,
        "lowest": 8.5,
        "highest": 9.5,
        "points": [[1, 9.5], [2, 8.5]],
    }


def test_runs_side_by_side(own: MadeRun, made: MadeRun, tmp_path: Path) -> None:
    other = MadeRun(tmp_path / "runs" / "dry-finch")
    other.receipt |= {"name": "dry-finch"}
    other.receipt["train"] |= {"module": "mine.train"}
    other.events = [{"kind": "epoch", "epoch": at, "val_loss": 1.5, "test_acc": 90.0 + at} for at in (1, 2)]
    found = comparison.compare([own.facts(), other.facts()])
    table = {line[:15].strip(): line[15:].split("  ") for line in console.lines(found)}
    assert [cell.strip() for cell in table["val_loss"] if cell.strip()] == ["0.5 (0.5 to 2)", "1.5 (1.5 to 1.5)"]
    reader = Reader(page.comparison(found))
    alone(reader)
    assert "brave-otter ended at 0.5 at step 400; dry-finch ended at 1.5 at epoch 2" in reader.text
    assert "test_acc" not in table, "what is a column of the epochs already"


def test_exports_have_a_column_for_each(own: MadeRun, tmp_path: Path) -> None:
    done = write_epochs(own.facts(), "csv", tmp_path)
    with done.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "timestamp", "epoch", "ppl", "val_loss", "<b>", "lr"] and done.detail == "6 rows"
    assert rows[1] == {
        "step": "200",
        "timestamp": "2027-01-15T08:00:02Z",
        "epoch": "",
        "val_loss": "1.0",
        "<b>": "2",
        "lr": "",
        "ppl": "",
    }
    pytest.importorskip("tensorboard")
    from cloudtrain.run_folder.event_files import EventFiles

    done = write_epochs(own.facts(), "tensorboard", tmp_path)
    rows_read = EventFiles(done.path.parent).news([done.path.name])
    told = [(row.step, value) for row in rows_read for name, value in row.values.items() if name == "val_loss"]
    assert told == [(100, 2.0), (200, 1.0), (400, 0.5)]
    own.events, own.log = [], b""
    with pytest.raises(UsageError, match="told no other figures"):
        write_epochs(own.facts(), "csv", tmp_path)


def test_a_notebook_has_every_column(own: MadeRun) -> None:
    run = LoadedRun(own.facts())
    assert run.metrics == run.figures and run.metrics[0] == {"epoch": None, "step": 100, "val_loss": 2.0, "<b>": 1}
    assert run.origins["lr"] == "lines of the log" and "ppl 8.5 at row 2" in repr(run)
    assert "&lt;b&gt;" in run._repr_html_() and "<b>" not in run._repr_html_()


numbers = st.floats(-1e100, 1e100) | st.sampled_from([0.0, 5e-324, -5e-324, 1e100, 1.0, 1.0 + 2**-52])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e9) | st.integers(0, 10**12), numbers), min_size=1, max_size=20))
def test_any_figure_can_be_drawn(points: list[tuple[float, float]]) -> None:
    points = sorted(dict(points).items())
    drawn = figure_chart([Series("x", 0, points)], title="x", summary="", axis="step")
    assert drawn is not None and len(drawn.y_ticks) <= 8
    for tick in drawn.x_ticks:
        assert 0 <= tick.at <= WIDTH
    for tick in drawn.y_ticks:
        assert math.isfinite(tick.at) and 0 <= tick.at <= HEIGHT
