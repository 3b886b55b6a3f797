"""Tier 1: a log's bytes as a terminal shows them, beside a real emulator (pyte) and with what tqdm and Rich send."""

from __future__ import annotations

import io
import tracemalloc

import pyte
import pyte.modes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

from cloudtrain.core import terminal
from cloudtrain.core.terminal import MOST_LINE, ROWS, LogText
from cloudtrain.core.text import folded, screen_safe

tqdm.monitor_interval = 0


def shown(raw: str) -> list[str]:
    return LogText().feed(raw.encode(), final=True)


def as_emulated(raw: str, columns: int = 300) -> list[str]:
    """What the emulator's screen and scrollback hold in the end."""
    screen = pyte.HistoryScreen(columns, ROWS, history=5000, ratio=0.5)
    screen.set_mode(pyte.modes.LNM)  # a line's end begins the next line, as the kernel's terminals have it
    pyte.Stream(screen).feed(raw)
    past = ["".join(line[x].data for x in range(columns)) for line in screen.history.top]
    rows = [row.rstrip() for row in [*past, *screen.display]]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def nested(levels: int, *, leave: bool) -> str:
    """What tqdm sends for bars below each other, with a line written between."""
    file = io.StringIO()

    def loop(level: int) -> None:
        bar = tqdm(range(3), file=file, desc=f"level {level}", mininterval=0, leave=leave or not level, position=level)
        for _ in bar:
            if level + 1 < levels:
                loop(level + 1)
        if level == levels - 1:
            tqdm.write("saved", file=file)

    loop(0)
    file.write("\nend\n")
    return file.getvalue()


def rich_bars(bars: int, *, transient: bool = False) -> str:
    """What Rich sends for so many bars, with a line printed between, and one bar more later."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, legacy_windows=False)
    with Progress(console=console, auto_refresh=False, transient=transient) as progress:
        tasks = [progress.add_task(f"bar {number}", total=20) for number in range(bars)]
        for _ in range(20):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
        console.print("saved")
        tasks.append(progress.add_task("one more", total=20))
        progress.refresh()
    file.write("end\n")
    return file.getvalue()


REAL = {
    "one bar": lambda: nested(1, leave=True),
    "nested": lambda: nested(2, leave=False),
    "three": lambda: nested(3, leave=False),
    "nested that stay": lambda: nested(2, leave=True),
    "rich": lambda: rich_bars(1),
    "ten of rich": lambda: rich_bars(10),
    "rich that goes": lambda: rich_bars(3, transient=True),
}


@pytest.mark.parametrize("what", REAL)
def test_bars_of_tqdm_and_rich(what: str) -> None:
    """Given in their last state, each once, also as they come in pieces."""
    raw = REAL[what]()
    rows = [row.rstrip() for row in shown(raw)]
    assert rows == as_emulated(raw) and rows[-1] == "end"
    reader, given = LogText(), list[str]()
    for letter in raw:
        given += reader.feed(letter.encode())
    assert [row.rstrip() for row in [*given, *reader.open_rows()]] == rows
    assert reader.open_rows() in ([], ["end"]), "it stands where a bar was"


def test_what_stands_while_ten_bars_are_drawn() -> None:
    raw = rich_bars(10).partition("saved")[0].rpartition("\r\x1b[2K")[0]  # which makes room for that word
    reader = LogText()
    assert reader.feed(raw.encode()) == []
    assert [row.split()[1] for row in reader.open_rows()] == [str(number) for number in range(10)]
    assert reader.drawn


MOVES = [
    "\r",
    "\n",
    "\b",
    "\x1b[A",
    "\x1b[2A",
    "\x1b[C",
    "\x1b[3D",
    "\x1b[5G",
    "\x1b[K",
    "\x1b[1K",
    "\x1b[2K",
    "\x1b[J",
]
WORDS = ["a", "bc", "loss 0.1", "━━", "  ", "\x1b[31m", "\x1b[0m", "\x1b[?25l", "\x1b[?25h", "\x1b]0;title\x07"]
ODD = [
    *(
        "日本",
        "e\u0301",
        "\u0301",
        "\t",
        "\x1b[B",
        "\x1b[2J",
        "\x1b[H",
        "\x1b[3;4H",
        "\x1b]0;t",
        "\x1b\\",
        "\x1b",
        "\x1b[1",
    ),
    *(
        "\x1b(B",
        "\x9b1A",
        "\u200d",
        f"\x1b[{'1' * 70}A",
        "\x1b[1 A",
        "é\n" * 5,
        "line\n" * 130,
        "\x00",
        "x" * MOST_LINE,
    ),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*MOVES, *WORDS]), max_size=30))
def test_the_cursor_goes_where_a_terminal_has_it(pieces: list[str]) -> None:
    reader = LogText()
    reader._give = lambda given: None  # type: ignore[method-assign] # else a row may be given before it is drawn again
    rows = reader.feed("".join(pieces).encode(), final=True)
    assert [row.rstrip() for row in rows] == as_emulated("".join(pieces))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*MOVES, *WORDS, *ODD]), max_size=25), st.data())
def test_into_which_pieces_bytes_are_cut_makes_no_difference(pieces: list[str], data: st.DataObject) -> None:
    raw = "".join(pieces).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    whole, cut = LogText(), LogText()
    rows, given = whole.feed(raw), list[str]()
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        given += cut.feed(raw[start:end])
    assert cut.open_rows() == whole.open_rows()
    assert given == rows
    assert all(screen_safe(row) == row for row in [*rows, *whole.open_rows()])


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
    for percent in range(0, 100, 5):
        assert reader.feed(b"\r\x1b[31m%3d%%|%s\x1b[0m" % (percent, b"#" * 20_000)) == []
        (row,) = reader.open_rows()
        assert row.startswith(f"{percent:3d}%|#")
    assert reader.open_rows(10) == ["#" * 10]
    assert reader.feed(b"\r\x1b[K100%\rEpoch\b\b") == [] and reader.open_rows() == ["Epoch"]
    assert reader.feed(b"\nnext\n") == ["Epoch", "next"] and reader.open_rows() == []


def test_a_program_that_goes_up_unforeseen_has_its_rows_shown_again_and_from_then_on_once() -> None:
    frames = "".join(f"loss {step}\nacc {step}\n\x1b[2A" for step in range(9)) + "\n\nend\n"
    assert shown(frames) == ["loss 0", "acc 0", "loss 8", "acc 8", "end"]


@pytest.mark.parametrize("piece", [b"x" * 1000, b"ab\rcd", "日\b".encode(), "a\u0301".encode(), b"\x1b]0;"])
def test_a_line_without_an_end_takes_no_more_memory_the_longer_it_is(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "MOST_LINE", 2048)

    def fed(times: int) -> int:
        reader = LogText()
        tracemalloc.start()
        for _ in range(times):
            reader.feed(piece * (5_000 // len(piece)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert fed(16) < 1.5 * fed(4)


def test_a_screen_that_is_cleared_moves_up() -> None:
    assert shown("one\ntwo\x1b[2J\x1b[Hthree\n") == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("epoch 12", ["epoch", " 12"]),
        ("", [""]),
        ("日本語", ["日本", "語"]),
        ("ab日cd", ["ab日c", "d"]),
        ("a\tb", ["a    ", "   b"]),
    ],
)
def test_a_line_that_is_too_wide_is_folded(line: str, rows: list[str]) -> None:
    assert folded(line, 5) == rows
