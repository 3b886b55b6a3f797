"""`cloudtrain logs` of a run that nobody follows: what its host has now, or how old is what is here."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cloudtrain.cli import following
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.states import RunState
from cloudtrain.core.text import time_of_day
from cloudtrain.lifecycle import story
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.store import Run, Store
from tests.fakes import FakeRun
from tests.typed import Typed
from tests.unit.cli.test_leaving import NAME, Ec2, says, sent
from tests.unit.cli.test_leaving import machines as machines
from tests.unit.cli.test_leaving import run as run

LINES = [f"epoch {number}" for number in range(1, 10)]


def job(run: FakeRun) -> Iterator[float]:
    for number, line in enumerate(LINES, 1):
        run.print(line)
        run.tell("epoch", epoch=number, epochs=9, test_acc=90.0 + number)
        yield 60.0


@pytest.fixture
def trains(machines: Ec2, run: Run, store: Store) -> Run:
    """It was followed for three lines and has written five."""
    machines.job = job
    story.resume(run, story.Context(store=store, provider=lambda spec: machines), detach=True)
    machines.sleep(250.0)
    (run.folder / "console.log").write_text("".join(f"{line}\n" for line in LINES[:3]))
    return store.get(NAME)


def is_what_the_host_has(run: Run, machines: Ec2) -> bool:
    """All of its log is here, or the beginning of it."""
    return machines.host.run_of(NAME).log.startswith((run.folder / "console.log").read_bytes())


def test_the_last_lines_are_the_last_of_the_host(cli: Callable[..., Typed], trains: Run, machines: Ec2) -> None:
    assert cli("logs", NAME, "-n", "2", "--no-follow").out == "epoch 4\nepoch 5\n"
    assert (trains.folder / "console.log").read_bytes() == machines.host.run_of(NAME).log
    machines.sleep(60.0)
    # Followed from there on: nothing that was written before comes after the last lines.
    assert cli("logs", NAME, "-n", "2").out.splitlines() == LINES[4:]
    assert (trains.folder / "console.log").read_bytes() == machines.host.run_of(NAME).log


def test_the_last_epochs_are_those_of_the_host(cli: Callable[..., Typed], trains: Run) -> None:
    told = cli("logs", NAME, "--epochs", "-n", "1", "--no-follow").err
    assert "95.00%" in told and "94.00%" not in told


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_where_the_host_does_not_answer_it_is_said_how_old_is_what_is_here(
    cli: Callable[..., Typed], trains: Run, machines: Ec2, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    at = 1_700_000_000.0 if how == "hangs" else (trains.folder / "console.log").stat().st_mtime
    os.utime(trains.folder / "console.log", (at, at))
    hangs = threading.Event()
    if how == "refuses":
        machines.refuses = ConnectionFailed("no route to host", code="auth_refused")  # not tried again
    else:
        monkeypatch.setattr(following, "LOOK_S", 0.1)
        machines.strikes["boot"] = lambda: hangs.wait(30) and None
    told = cli("logs", NAME, "-n", "1", "--no-follow")
    hangs.set()
    assert told.out == "epoch 3\n"
    why = "no route to host" if how == "refuses" else "no answer within 0 s"
    when = time_of_day(at, at) if how == "refuses" else "2023-11-14"
    says(told.err, f"the host of {NAME} did not answer ({why}); this is what was here at ", when)
    assert is_what_the_host_has(trains, machines)


def test_a_log_that_another_command_brings_is_shown_as_it_is_here(
    cli: Callable[..., Typed], trains: Run, machines: Ec2
) -> None:
    with claim(NAME):
        told = cli("logs", NAME, "-n", "1", "--no-follow")
    assert told.out == "epoch 3\n" and "did not answer" not in told.err


def test_the_steps_of_a_set_up_are_shown(cli: Callable[..., Typed], machines: Ec2, run: Run, store: Store) -> None:
    machines.strikes["receive"] = sent()
    cli("run", "--name", NAME, code=8)
    steps = (
        "ok    instance    i-1 fake, zone-1",
        "ok    boot        torch 2.13.0 (CUDA 13.0), Tesla T4",
        "step  sync        since ",
    )
    says(cli("logs", NAME, "--no-follow").err, *steps)
    says(cli("logs", NAME).err, *steps, "ok    sync        1 file", "ok    start       survives disconnects", "done")
    assert store.get(NAME).state is RunState.SUCCEEDED


def test_the_steps_that_another_command_takes_are_shown_as_it_takes_them(
    cli: Callable[..., Typed], machines: Ec2, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the run in boot, sets it up while this one looks, and follows it no more."""
    machines.strikes["boot"] = sent()
    cli("run", "--name", NAME, code=8)
    looked: list[float] = []
    held = claim(NAME)

    def sleep(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 2:
            held.__exit__(None, None, None)
            story.resume(store.get(NAME), story.Context(store=store, provider=lambda spec: machines), detach=True)

    whole = following.context
    monkeypatch.setattr(following, "context", lambda *given: replace(whole(*given), sleep=sleep))
    held.__enter__()
    told = cli("logs", NAME)
    steps = ("ok    instance    i-1 fake, zone-1", "step  boot        since ", "ok    boot        torch 2.13.0")
    says(told.err, *steps, "ok    sync ", "done")
    assert told.out == "epoch 1\n" and len(looked) >= 2
