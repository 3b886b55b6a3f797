"""Progress on the taskbar: only for terminals that are known to show it, only while a run trains, always taken away."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
import typer
from cloudtrain.console.reporters.taskbar import Taskbar, shown_by
from rich.console import Console

from cloudtrain.cli import following
from cloudtrain.console import choose
from cloudtrain.console.choose import Look
from cloudtrain.console.reporters.live import LiveReporter
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Emit, Metric, PhaseChanged, StepStarted
from cloudtrain.core.states import RunState

TOLD = re.compile(r"\x1b\]9;4;(\d;\d+)\x1b\\")


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, False),
        ({"WT_SESSION": "a1b2"}, True),
        ({"ConEmuANSI": "ON"}, True),
        ({"ConEmuANSI": "OFF"}, False),
        ({"TERM_PROGRAM": "WezTerm"}, True),
        ({"TERM_PROGRAM": "ghostty", "TERM_PROGRAM_VERSION": "1.2.0"}, True),
        ({"TERM_PROGRAM": "ghostty", "TERM_PROGRAM_VERSION": "1.10.1-main+0a1b"}, True),
        ({"TERM_PROGRAM": "ghostty", "TERM_PROGRAM_VERSION": "1.0.1"}, False),
        ({"TERM_PROGRAM": "ghostty"}, False),
        ({"TERM_PROGRAM": "iTerm.app"}, False),
        ({"TERM_PROGRAM": "tmux", "TERM": "tmux-256color"}, False),
    ],
)
def test_only_terminals_that_are_known_to_show_it(environment: dict[str, str], shown: bool) -> None:
    assert shown_by(environment) is shown


def test_it_is_told_when_it_changes_and_again_before_a_terminal_forgets_it() -> None:
    stream, now = io.StringIO(), [0.0]
    bar = Taskbar(stream, lambda: now[0])
    bar.clear()
    for at, share in ((0, 0.1), (1, 0.101), (4, 0.104), (5, 0.104), (6, 2.0), (7, -1.0)):
        now[0] = float(at)
        bar.show(share)
    bar.clear()
    bar.clear()
    assert TOLD.findall(stream.getvalue()) == ["1;10", "1;10", "1;100", "1;0", "0;0"]
    assert TOLD.sub("", stream.getvalue()) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def windows_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Puts a Windows Terminal on stderr, and gives it."""
    for name in ("TERM_PROGRAM", "ConEmuANSI", "NO_COLOR", "CLOUDTRAIN_PLAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WT_SESSION", "a1b2")
    monkeypatch.setenv("TERM", "xterm-256color")

    def sit() -> Terminal:
        error = Terminal()
        monkeypatch.setattr(sys, "stderr", error)
        return error

    return sit


def trains(emit: Emit) -> None:
    emit(StepStarted("sync", "", 300))
    emit(PhaseChanged("brave-otter", RunState.RUNNING))
    emit(Metric("start", {"epochs": 4, "steps": 100}))
    emit(Metric("step", {"epoch": 1, "step": 50, "steps": 100, "rate": 9.0}))
    emit(Metric("epoch", {"epoch": 1, "epochs": 4, "test_acc": 98.0, "seconds": 1.0}))
    emit(Metric("step", {"epoch": 2, "step": 50, "steps": 100, "rate": 9.0}))


def detaches() -> None:
    raise following.Leave


def interrupts() -> None:
    raise KeyboardInterrupt


def fails() -> None:
    raise ConnectionFailed("the host cannot be reached")


def ends() -> None:
    """Nothing more comes."""


@pytest.mark.parametrize("end", [ends, detaches, interrupts, fails])
def test_it_is_taken_away_however_the_command_ends(
    end: Callable[[], None], windows_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = windows_terminal()
    monkeypatch.chdir(tmp_path)
    try:
        with following.console(Look(), "brave-otter") as reporter:
            assert isinstance(reporter, LiveReporter)
            trains(reporter.emit)
            assert not terminal.getvalue().endswith("\x1b]9;4;0;0\x1b\\")
            end()
    except typer.Exit:
        pass
    assert TOLD.findall(terminal.getvalue()) == ["1;12", "1;25", "1;38", "0;0"]


def test_it_is_taken_away_before_results_are_pulled_and_questions_are_asked(
    windows_terminal: Callable[[], Terminal],
) -> None:
    terminal = windows_terminal()
    shown = LiveReporter(ticking=False)
    trains(shown.emit)
    shown.emit(PhaseChanged("brave-otter", RunState.PULLING))
    assert TOLD.findall(terminal.getvalue())[-1] == "0;0"
    trains(shown.emit)
    assert TOLD.findall(terminal.getvalue())[-1] == "1;38"
    shown.failure(ConnectionFailed("gone"))
    assert TOLD.findall(terminal.getvalue())[-1] == "0;0"


def test_none_of_it_stands_on_the_screen(windows_terminal: Callable[[], Terminal]) -> None:
    terminal = windows_terminal()
    shown = LiveReporter(Console(file=terminal, force_terminal=True, width=80, soft_wrap=True), ticking=False)
    trains(shown.emit)
    shown.close()
    screens = []
    for text in (terminal.getvalue(), TOLD.sub("", terminal.getvalue())):
        screen = pyte.Screen(80, 24)
        pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
        screens.append(list(screen.display))
    assert screens[0] == screens[1]


def test_a_plain_screen_and_a_pipe_get_none(
    windows_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = windows_terminal()
    trains(choose.reporter(Look(plain=True)).emit)
    assert "\x1b" not in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown = choose.reporter(Look())
    assert isinstance(shown, PlainReporter)
    trains(shown.emit)
    assert "\x1b" not in sys.stderr.getvalue()  # type: ignore[attr-defined]
