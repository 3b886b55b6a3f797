"""Where nothing is redrawn: one line an epoch, a sign of life after a quiet minute, tenths for a person who listens."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtrain.console.reporters import plain
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.console.reporters.pulse import Pulse
from cloudtrain.core.events import LogLines, Metric, Noted, PhaseChanged, StepDone, StepProgress, StepStarted
from cloudtrain.core.plan import CodeSummary, make_plan
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.store import Run
from tests import plans

LIMIT_S = 30.0


def run_of(folder: Path, *command: str) -> Run:
    job = plans.JobSpec(source=str(folder), command=command)
    spec = plans.spec(folder, target=Target.EC2, ec2=Ec2Spec(), job=job)
    plan = make_plan(spec, plans.offer(0.5), CodeSummary(files=1, bytes=1))
    return Run(
        name=spec.name,
        state=RunState.RUNNING,
        life=InstanceLife.RUNNING,
        plan=plan,
        instance=None,
        created_at=time.time(),
    )


def lines() -> list[str]:
    return sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


class Told(io.StringIO):
    """A stream of which is known when something more stands in it."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Condition()

    def write(self, text: str) -> int:
        with self.more:
            self.more.notify_all()
            return super().write(text)


def until(at_least: int) -> None:
    """Wait for that many lines."""
    told = sys.stderr
    assert isinstance(told, Told)
    with told.more:
        assert told.more.wait_for(lambda: len(lines()) >= at_least, LIMIT_S), lines()


def pulses() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pulse"]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., PlainReporter]]:
    """Makes a reporter on a pipe, which follows a run: of the job that comes along, unless there is a command."""
    made: list[PlainReporter] = []

    def make(*command: str, **how: float) -> PlainReporter:
        monkeypatch.setattr(sys, "stderr", Told())
        made.append(PlainReporter(**how))  # type: ignore[arg-type]
        run = run_of(tmp_path, *command)
        made[-1].about(run, lambda: run)
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert not pulses()


def steps(shown: PlainReporter, epochs: int = 2) -> None:
    shown.emit(PhaseChanged("brave-otter", RunState.RUNNING))
    shown.emit(Metric("start", {"epochs": epochs, "steps": 100}))
    for epoch in range(1, epochs + 1):
        for step in range(1, 101):
            shown.emit(Metric("step", {"epoch": epoch, "step": step, "steps": 100, "rate": 50.0}))
        shown.emit(Metric("epoch", {"epoch": epoch, "epochs": epochs, "test_acc": 98.5, "seconds": 2.0}))


def test_a_pipe_has_one_line_an_epoch(piped: Callable[..., PlainReporter]) -> None:
    steps(piped(), epochs=3)
    assert [line.split()[0] for line in lines()] == ["epoch", "1/3", "2/3", "3/3"]


def test_a_quiet_minute_of_training_says_how_it_stands(piped: Callable[..., PlainReporter]) -> None:
    shown = piped(heartbeat_s=0.05)
    steps(shown)
    shown.emit(Metric("step", {"epoch": 2, "step": 40, "steps": 100, "rate": 50.0}))
    until(5)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d epoch 2/2 step 40 of 100, 50 it/s, 1\.2 s left,"
        r" \$0(\.0\d+)? of at most \$1\.00, \d\.\d s, ends itself by \d\d:\d\d",
        lines()[3],
    ), lines()[3]


def test_a_quiet_minute_of_a_step_says_what_is_waited_for(piped: Callable[..., PlainReporter]) -> None:
    shown = piped(heartbeat_s=0.05)
    shown.emit(StepStarted("instance", "g4dn.xlarge", 600))
    shown.emit(StepProgress("instance", "pending", 3, 600, "s"))
    until(2)
    assert re.fullmatch(r"\S+ step instance pending, \d\.\d s of at most 10m 00s", lines()[1]), lines()[1]
    shown.emit(StepDone("instance", "i-1", 4.0))
    said = len(lines())
    for pulse in pulses():
        pulse.join(LIMIT_S)
    assert not pulses() and len(lines()) == said, "nothing is waited for"


def test_a_bar_is_said_now_and_then_and_at_its_end(
    piped: Callable[..., PlainReporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, offset = piped(), 0
    shown.emit(PhaseChanged("brave-otter", RunState.RUNNING))
    for step in range(100):
        monkeypatch.setattr(plain, "_PROGRESS_EVERY_S", 0.0 if step in (40, 80) else 1e9)
        data = b"\r%d%%" % step
        shown.emit(LogLines(data, offset))
        offset += len(data)
    shown.emit(LogLines(b"\r100%\n", offset))
    shown._beat()
    assert [line for line in lines() if "%" in line] == ["40%", "80%", "100%"]


def log(shown: PlainReporter, *pieces: str) -> None:
    for piece in pieces:
        shown.emit(LogLines(piece.encode(), 0))


def test_what_a_program_prints_is_said_at_once_and_what_it_draws_by_its_last_state(
    piped: Callable[..., PlainReporter],
) -> None:
    shown = piped("python", "train.py")
    shown.emit(PhaseChanged("brave-otter", RunState.RUNNING))
    log(
        shown,
        "reading the data\n",
        *(f"\r{step / 100:.0f}%" for step in range(10_000)),
        "\r100%\n",
        "done\nEpoch 1 ... ",
    )
    shown.emit(Metric("step", {"step": 3, "val_ppl": 12.5}))
    log(shown, "ok\n")
    assert lines() == ["reading the data", "100%", "done", "Epoch 1 ... ok"]


def test_a_line_without_an_end_is_said_after_a_moment_and_goes_on_where_it_stands(
    piped: Callable[..., PlainReporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_OPEN_AFTER_S", 0.01)
    shown = piped("python", "train.py")
    shown.emit(PhaseChanged("brave-otter", RunState.RUNNING))
    log(shown, "Epoch 1 ... ")
    until(1)
    log(shown, "loss 0.5")
    told = sys.stderr
    assert isinstance(told, Told)
    with told.more:
        assert told.more.wait_for(lambda: lines() == ["Epoch 1 ... loss 0.5"], LIMIT_S), lines()
    log(shown, " done\nEpoch 2 ... ")
    until(2)
    shown.emit(Noted("connected again"))
    log(shown, "loss 0.4\n", "all of it\n")
    assert [line.split(" note ")[-1] for line in lines()] == [
        "Epoch 1 ... loss 0.5 done",
        "Epoch 2 ... ",
        "connected again",
        "loss 0.4",
        "all of it",
    ]


def test_a_line_without_an_end_is_not_said_twice_when_it_ends_as_it_stood(
    piped: Callable[..., PlainReporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_OPEN_AFTER_S", 0.01)
    shown = piped("python", "train.py")
    shown.emit(PhaseChanged("brave-otter", RunState.RUNNING))
    log(shown, "waiting")
    until(1)
    shown.emit(Noted("connected again"))
    shown.emit(PhaseChanged("brave-otter", RunState.PULLING))
    shown.emit(StepDone("pull", "3 files", 1.0))
    assert [line.split(" ", 1)[-1] for line in lines()] == [
        "waiting",
        "note connected again",
        "ok   pull 3 files 1.0 s",
    ]


def test_nothing_is_said_after_the_end(piped: Callable[..., PlainReporter]) -> None:
    shown = piped(heartbeat_s=0.02)
    steps(shown)
    shown.close()
    said = len(lines())
    assert not pulses()
    steps(shown)
    until(said + 3)


def test_what_nobody_follows_has_no_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    PlainReporter(heartbeat_s=0.01).emit(StepStarted("look", "into the account", 60))
    assert not pulses()


def test_tenths_are_said_once_and_not_in_a_flood(
    piped: Callable[..., PlainReporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(tenths: bool, every_s: float) -> list[str]:
        monkeypatch.setattr(plain, "_TENTHS_EVERY_S", every_s)
        shown = piped(tenths=tenths)
        shown.emit(StepStarted("sync"))
        for done in range(0, 1001, 5):
            shown.emit(StepProgress("sync", "job", done, 1000, "B"))
        shown.emit(StepDone("sync"))
        return [line.rpartition(", ")[2] for line in lines()[1:-1]]

    assert told(True, 0.0) == [f"{tenth} %" for tenth in range(10, 100, 10)]
    assert told(True, 2.0) == [], "it is over before it was worth a word"
    assert told(False, 0.0) == []


def test_tenths_of_an_epoch(piped: Callable[..., PlainReporter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_TENTHS_EVERY_S", 0.0)
    steps(piped(tenths=True))
    said = [line.split(" ", 1)[1] for line in lines() if "%" in line and "step" in line]
    assert len(said) == 18
    assert said[0] == "epoch 1/2 step 10 of 100, 50 it/s, 3.8 s left, 10 %"


def test_a_pulse_that_is_asked_to_go_on_while_it_ends_goes_on() -> None:
    beats: list[int] = []
    third = threading.Event()

    def beat() -> bool:
        beats.append(1)
        if len(beats) == 3:
            third.set()
        if len(beats) == 1:
            pulse.said()  # something began just now
            return False
        return len(beats) < 3

    pulse = Pulse(beat, 0.01)
    pulse.said()
    assert third.wait(LIMIT_S)
    pulse.stop()
