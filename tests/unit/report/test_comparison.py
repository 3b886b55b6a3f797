"""Runs side by side: what came out, what was chosen differently, and how many times longer."""

from __future__ import annotations

import json
from pathlib import Path

from cloudtrain.console.pages import comparison as console
from cloudtrain.report import comparison, page
from tests.made import MadeRun
from tests.unit.report.test_page import Reader, alone


def two(made: MadeRun, tmp_path: Path) -> comparison.Comparison:
    """The made run, and one on a slow processor with smaller batches."""
    other = MadeRun(tmp_path / "runs" / "dry-finch")
    other.receipt["name"] = "dry-finch"
    other.receipt["target"] = "local"
    other.receipt["settings"] |= {"batch_size": 64, "device_name": "AMD EPYC", "steps": 938}
    other.receipt["settings"]["hyperparameters"]["augment"]["degrees"] = 7.5
    for event in other.events:
        event["seconds"] = 123.7
        event["test_acc"] -= 0.02
    return comparison.compare([other.facts(), made.facts()])


def test_settings_that_differ_are_marked(made: MadeRun, tmp_path: Path) -> None:
    lines = console.lines(two(made, tmp_path))
    table = {line[:20].strip(): line[20:].split() for line in lines}
    assert lines[0].split() == ["dry-finch", "brave-otter"]
    assert table["best test acc"] == ["99.42%", "99.44%"]
    assert table["batch size"] == ["64", "128", "<-", "differs"]
    assert table["device"] == ["AMD", "EPYC", "Tesla", "T4", "<-", "differs"]
    assert table["augment.degrees"] == ["7.5", "10", "<-", "differs"]
    assert table["training time"] == ["30m", "56s", "2m", "33s", "12x"]
    assert table["seed"] == ["1", "1"] and "optimiser" not in table
    assert len({line.rindex("9") for line in lines if line.startswith(("best test", "last test"))}) == 1


def test_the_record_says_the_same(made: MadeRun, tmp_path: Path) -> None:
    found = json.loads(json.dumps(comparison.record(two(made, tmp_path))))
    assert set(found["differs"]) == {"batch size", "device", "where", "augment.degrees"}
    assert [run["run"] for run in found["runs"]] == ["dry-finch", "brave-otter"]
    assert found["schema_version"] == 1


def test_the_page_overlays_the_curves(made: MadeRun, tmp_path: Path) -> None:
    reader = Reader(page.comparison(two(made, tmp_path)))
    alone(reader)
    assert len(reader.all("svg")) == 2 and len(reader.all("path")) == 4
    assert "batch size 64 128 differs" in reader.text
    assert "99.41%, " in reader.text and "dry-finch ended at 99.41%; brave-otter ended at 99.43%" in reader.text


def test_a_run_without_figures_can_stand_beside_one_with(made: MadeRun, tmp_path: Path) -> None:
    found = two(made, tmp_path)
    bare = MadeRun(tmp_path / "runs" / "calm-raven")
    bare.receipt |= {"name": "calm-raven", "ended_how": "failed", "goals": [], "settings": {"hyperparameters": {}}}
    bare.events, bare.metrics, bare.predictions = [], {}, []
    three = comparison.compare([*found.runs, bare.facts()])
    assert "calm-raven has no epoch" in page.comparison(three)
    assert next(line for line in console.lines(three) if line.startswith("best test acc")).endswith("  -")
