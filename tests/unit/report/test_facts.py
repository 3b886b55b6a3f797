"""Facts of a run: what is told is told exactly, what is odd is left out, nothing that a job wrote breaks a view."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import UsageError
from cloudtrain.report import comparison, markdown, page, record, words
from cloudtrain.report.facts import gather
from cloudtrain.report.notebook import LoadedRun
from cloudtrain.report.sources import of_path
from tests.made import RECEIPT, TEST, MadeRun


def test_the_figures_are_those_of_the_files(made: MadeRun) -> None:
    facts = made.facts()
    assert [epoch.test_acc for epoch in facts.epochs] == TEST
    assert facts.last is not None and (facts.last.epoch, facts.last.test_acc) == (15, 99.43)
    assert facts.best is not None and (facts.best.epoch, facts.best.test_acc) == (14, 99.44)
    assert (facts.parameters, facts.best_train_acc, facts.planned_epochs) == (7902, 98.66, 15)
    assert facts.training_seconds == pytest.approx(153)
    assert facts.phases["running"] == 158.4
    assert facts.answers is not None and (facts.answers.total, len(facts.answers.mistakes)) == (10_000, 57)
    assert [mistake.index for mistake in facts.answers.mistakes[:3]] == [5, 0, 1]
    assert facts.log == ("cuda", "EPOCH: 0", "Loss=0.1 Batch_id=468 Accuracy=77.44: 100%", "", "bye")
    assert [(goal.met, goal.value) for goal in facts.goals] == [(True, 99.43), (True, 7902), (True, 15)]
    assert words.target_accuracy(facts) == 99.4


def test_an_epoch_that_was_told_twice_counts_as_it_was_told_last(made: MadeRun) -> None:
    made.events += [{**made.events[2], "test_acc": 50.0}, {"v": 1, "kind": "epoch", "epoch": 16}]
    epochs = made.facts().epochs
    assert [epoch.epoch for epoch in epochs] == list(range(1, 17))
    assert epochs[2].test_acc == 50.0 and epochs[15].test_acc is None


def test_the_first_of_equals_is_the_best(made: MadeRun) -> None:
    made.events[14]["test_acc"] = 99.44
    best = made.facts().best
    assert best is not None and best.epoch == 14


def test_the_home_folder_is_in_no_report(made: MadeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "anna"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    made.log = f"MNIST in {home}/.cache/mnist\n".encode()
    # Of the host, and of whoever sent the folder.
    for other in ("/home/anna", "/Users/anna", "C:\\Users\\anna"):
        made.log += f'File "{other}/train.py", line 3\n'.encode()
    made.receipt["ended_how"] = "failed"
    facts = made.facts()
    assert facts.log[0].startswith("MNIST in ~")
    assert "anna" not in page.report(facts) and "anna" not in markdown.section(facts)


def test_of_a_very_long_log_the_end_is_shown(made: MadeRun) -> None:
    made.log = b"one line of the log\n" * 75_000 + b"the end\n"
    facts = made.facts()
    assert facts.log[-1] == "the end" and facts.log[0].startswith("[the first 1.0 MB")


def test_a_folder_with_a_receipt_alone_is_a_report_too(tmp_path: Path) -> None:
    facts = gather(RECEIPT, tmp_path)
    assert not facts.epochs and facts.best is None
    assert "No epoch was finished" in page.report(facts)
    assert "# Model 3" in markdown.section(facts)


def test_what_is_no_receipt_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UsageError, match="cannot be understood"):
        of_path(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = sorted(RECEIPT)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6),
    inner=st.dictionaries(st.sampled_from([*RECEIPT["settings"], *RECEIPT["machine"], *RECEIPT["cost"]]), JSON),
    events=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["epoch", "train_loss", "train_acc", "test_loss", "test_acc", "lr", "seconds", "t", "step"]
            ),
            st.integers(-3, 10**6) | st.floats() | JSON,
        ),
        max_size=4,
    ),
    metrics=JSON,
    final=JSON,
    answers=st.text(max_size=60),
    log=st.binary(max_size=200),
)
def test_nothing_that_was_written_can_break_a_report(
    tmp_path: Path,
    told: dict[str, Any],
    inner: dict[str, Any],
    events: list[dict[str, Any]],
    metrics: Any,
    final: Any,
    answers: str,
    log: bytes,
) -> None:
    receipt = copy.deepcopy(RECEIPT)
    for part in ("settings", "machine", "cost"):
        receipt[part] |= inner
    receipt |= told
    lines = [json.dumps({"v": 1, "kind": "epoch", **event}) for event in events]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    outcome = metrics if metrics is not None else {"goals": final, "final": {"epoch": final, "confusion": final}}
    (tmp_path / "metrics.json").write_text(json.dumps(outcome), encoding="utf-8")
    (tmp_path / "predictions.csv").write_bytes(
        b"index,label,predicted,confidence\n" + answers.encode("utf-8", "replace")
    )
    (tmp_path / "console.log").write_bytes(log)
    facts = gather(receipt, tmp_path, "why")
    assert page.report(facts).rstrip().endswith("</html>")
    assert markdown.section(facts).endswith("\n")
    json.dumps(record.build(facts))
    found = comparison.compare([facts, gather(RECEIPT, tmp_path)])
    assert page.comparison(found).rstrip().endswith("</html>")
    run = LoadedRun(facts)
    assert repr(run) and run._repr_html_().startswith("<table>")
