"""Tier 1: foreign text cannot act on a terminal; numbers read well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.console.text import JobLog, epoch_row, results_block
from cloudtrain.core.text import columns, ordinal, screen_safe, seconds, size

HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://x\x1b\\",
    "\x1bP1$r\x1b\\",
    "\x9b31m",
    "\x1b(B",
    "\x08\x08",
    "\x07",
    "\u202e",
    "\x1b]0;never ended",
]


@pytest.mark.parametrize("sequence", HOSTILE)
def test_escapes_are_gone_and_the_words_stay(sequence: str) -> None:
    assert screen_safe(f"before {sequence}").rstrip() == "before"
    assert screen_safe("[bold]not markup[/bold]") == "[bold]not markup[/bold]"


@given(st.text())
def test_nothing_that_a_terminal_obeys_survives(text: str) -> None:
    safe = screen_safe(text)
    assert not any((ord(c) < 32 and c != "\t") or 0x7F <= ord(c) <= 0x9F or c == "\u202e" for c in safe)


def test_what_a_job_prints_is_shown_at_once_whatever_it_tells() -> None:
    log = JobLog()
    assert log.feed(b"first\nsecond\n10%\r20%") == ["first", "second"]
    assert log.open_rows() == ["20%"] and log.drawn
    log.figures_came()
    assert log.feed(b"\r30%") == [] and log.open_rows() == ["30%"]
    assert log.rest(final=True) == ["30%"]


def test_of_the_job_that_comes_along_the_figures_stand_for_its_log() -> None:
    now = [0.0]
    log = JobLog(clock=lambda: now[0])
    log.figured = True
    assert log.feed(b"first\nsecond") == []
    assert (log.held, log.open_rows()) == (["first"], ["second"])
    now[0] = 10.0
    assert log.feed(b"\n") == ["first", "second"], "held back for no longer than it takes"
    log.figures_came()
    assert log.feed(b"third\nfourth") == [] == log.rest(final=True)
    assert [] == log.held == log.open_rows()


def test_an_epoch_of_ones_own_figures() -> None:
    assert epoch_row({"epoch": 2, "epochs": 9, "val_ppl": 12.3456, "seconds": 2.0}) == "epoch 2/9  val_ppl 12.35  2.0 s"
    odd = {
        "epoch": 1,
        "x\x1b[2J\n" * 30: 1,
        "huge": 10**400,
        "yes": True,
        "word": "a",
        **{f"f{i}": i for i in range(20)},
    }
    row = epoch_row(odd)
    assert "\x1b" not in row and row.endswith("  13 more") and len(row) < 120


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (113, "113th")],
)
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.44, "0.4 s"), (12.3, "12 s"), (98, "98 s"), (185, "3m 05s"), (3720, "1h 02m"), (200_000, "2 days")],
)
def test_spans(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1000, "1 kB"),
        (38_100, "38 kB"),
        (999_600, "1 MB"),
        (1.24e6, "1.2 MB"),
        (5e12, "5000 GB"),
    ],
)
def test_sizes(value: float, text: str) -> None:
    assert size(value) == text


def test_columns_line_up() -> None:
    assert columns(("A", "B"), [("xx", "1"), ("y", "22")], right=(1,)) == ["A    B", "xx   1", "y   22"]


def test_the_results_block_is_the_seeds() -> None:
    metrics = {"parameters": 7902, "best_epoch": 14, "best_train_acc": 98.66, "best_test_acc": 99.44}
    assert results_block(metrics) == [
        "===================",
        "Results:",
        "Parameters: 7.9k",
        "Best Train Accuracy: 98.66",
        "Best Test Accuracy: 99.44 (14th Epoch)",
        "===================",
    ]
    assert results_block({}) == []
