"""Tier 1: foreign text cannot act on a terminal; numbers read well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.console.text import UnfiguredLog, results_block
from cloudtrain.core.text import LogText, columns, ordinal, screen_safe, seconds, size, tail

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


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")))),
    st.data(),
)
def test_lines_come_out_whole_however_the_bytes_are_cut(lines: list[str], data: st.DataObject) -> None:
    raw = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    reader, seen = LogText(), []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        seen += reader.feed(raw[start:end])
    assert seen == lines


def test_of_a_redrawn_line_the_last_state_is_shown() -> None:
    reader = LogText()
    assert reader.feed(b"\r 10%|#\r100%|##########\r\nnext\n") == ["100%|##########", "next"]
    assert reader.feed(b"no end") == []
    assert reader.feed(b"", final=True) == ["no end"]


def test_a_line_without_an_end_is_known_as_it_stands() -> None:
    reader = LogText()
    seen = []
    for percent in range(0, 100, 5):
        assert reader.feed(b"\r\x1b[31m%3d%%|%s\x1b[0m" % (percent, b"#" * 20_000)) == []
        seen.append(reader.unfinished[:5])
    assert seen == [f"{percent:3d}%|" for percent in range(0, 100, 5)]
    assert reader.feed(b"\r100%\r") == [] and reader.unfinished == "100%", "the state that a bare return leaves"
    assert reader.feed(b"\n") == ["100%"] and reader.unfinished == ""


def test_bars_below_each_other_are_one_line_at_a_time() -> None:
    """As tqdm draws two: on to the next line, the inner one, and up again."""
    reader = LogText()
    assert reader.feed(b"\router 0/2") == []
    inner = b"".join(b"\n\rinner %d/9\x1b[A" % step for step in range(10))
    assert [line for cut in (inner[:30], inner[30:-1], inner[-1:]) for line in reader.feed(cut)] == ["outer 0/2"]
    assert reader.unfinished == "inner 9/9"
    assert reader.feed(b"\router 1/2\n\rinner 0/9\x1b[A") == ["outer 1/2"]


@pytest.mark.parametrize(("line", "shown"), [("epoch 12", "ch 12"), ("a\tb", "a b"), ("日本語", "本語")])
def test_of_a_line_that_is_too_wide_the_end_is_shown(line: str, shown: str) -> None:
    assert tail(line, 5) == shown


def test_a_job_without_figures_is_shown_by_its_own_words() -> None:
    now = [0.0]
    log = UnfiguredLog(clock=lambda: now[0])
    assert log.feed(b"first\n") == []
    assert log.last == ""
    now[0] = 10.0
    assert log.last == "first", "held back for no longer than it takes"
    assert log.feed(b"second\n10%\r20%") == ["first", "second"]
    assert log.last == "20%"
    assert log.rest(final=True) == ["20%"]
    log.figures_came()
    assert log.feed(b"third\nfourth") == [] == log.rest(final=True)
    assert log.last is None


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
