"""`stop` in all its forms, `run --on-interrupt`, `logs` and Ctrl-C: on the command line, in this process.

Jobs are real, and trained on this computer. What becomes of a launched machine: tests/region/whole_path/test_keep.py.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cloudtrain.cli import signals
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.states import RunState
from cloudtrain.lifecycle import stop as lifecycle_stop
from cloudtrain.lifecycle import story
from cloudtrain.store import Run, Store
from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")


def test_all_runs_are_ended_and_one_that_fails_keeps_no_other(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "this computer knows no active run" in cli("stop", "--all").err
    for name in ("first-run", "bad-run", "last-run"):
        trains(name)
    asked = cli("stop", "--all", code=2)
    assert "add --yes" in asked.err
    assert all(name in asked.err for name in ("first-run", "bad-run", "last-run", "COST", "nothing"))
    whole = lifecycle_stop.stop

    def stop(run: Run, *arguments: Any, **named: Any) -> Any:
        if run.name == "bad-run":
            raise ConnectionFailed("it does not answer", code="unreachable")
        return whole(run, *arguments, **named)

    with monkeypatch.context() as broken:
        broken.setattr(lifecycle_stop, "stop", stop)
        told = cli("stop", "--all", "--yes", code=6)
    assert "2 of 3 ended" in told.err and "bad-run: error: it does not answer" in told.err
    assert [store.get(name).state for name in ("first-run", "bad-run", "last-run")] == [
        RunState.STOPPED,
        RunState.RUNNING,
        RunState.STOPPED,
    ]
    assert (store.get("last-run").folder / "report.html").exists()
    result = json.loads(cli("stop", "--all", "--yes", "--json").out.splitlines()[-1])
    [row] = result["runs"]
    assert (row["run"], row["exit"], row["state"], result["billing"]["running"]) == ("bad-run", 0, "stopped", False)
    assert json.loads(cli("stop", "--all", "--json").out.splitlines()[-1])["runs"] == []


def test_an_end_without_a_pull_says_what_it_leaves_and_pull_still_gets_it(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store
) -> None:
    run = trains("left-run")
    asked = cli("stop", "left-run", "--no-pull", code=2)
    assert "weights/last.bin (1 kB)" in asked.err and "it stays on the machine" in asked.err
    assert store.get("left-run").state is RunState.RUNNING
    told = cli("stop", "left-run", "--no-pull", "--yes", "--json")
    result = json.loads(told.out.splitlines()[-1])
    assert (result["state"], result["error"]["code"], result["artifacts"]) == ("stopped", "not_pulled", [])
    assert any("not here" in line.get("message", "") for line in map(json.loads, told.out.splitlines()))
    assert not (run.folder / "weights").exists()
    assert "were not pulled" in cli("show", "left-run").out and "stopped, not pulled" in cli("ls").out
    cli("pull", "left-run")
    assert (run.folder / "weights" / "last.bin").exists()
    assert "were not pulled" not in cli("show", "left-run").out


def test_a_run_here_cannot_be_kept(cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store) -> None:
    trains("here-run")
    assert "never ended" in cli("stop", "here-run", "--keep", "5m", "--yes", code=2).err
    assert store.get("here-run").state is RunState.RUNNING


class Once:
    """The story, broken off at its first moment by what a person or a system does."""

    def __init__(self, interruption: BaseException) -> None:
        self.whole, self.interruption, self.begun = story.resume, interruption, False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.begun:
            self.begun = True
            raise self.interruption
        return self.whole(*arguments, **named)


DETACH = [
    (KeyboardInterrupt(), ()),
    (signals.Leave(getattr(signal, "SIGHUP", 1)), ("--on-interrupt", "stop")),
    (signals.Leave(signal.SIGTERM), ("--on-interrupt", "detach")),
]


@pytest.mark.parametrize(
    ("detaching", "stopping_"),
    [(DETACH, KeyboardInterrupt()), ([], signals.Leave(signal.SIGTERM))],
    ids=["all", "term"],
)
def test_what_becomes_of_a_run_where_nobody_can_be_asked(
    cli: Callable[..., Typed],
    trains: Callable[[str], Run],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    detaching: list[tuple[BaseException, tuple[str, ...]]],
    stopping_: BaseException,
) -> None:
    trains("long-run")

    def joined(interruption: BaseException, *flags: str, code: int) -> str:
        # By its name, as by arrow-up and Enter.
        with monkeypatch.context() as interrupted:
            interrupted.setattr(story, "resume", Once(interruption))
            return cli("run", "--local", "--name", "long-run", *flags, code=code).err

    for interruption, flags in detaching:
        assert "detached; long-run goes on" in joined(interruption, *flags, code=8)
        assert store.get("long-run").state is RunState.RUNNING
    told = joined(stopping_, "--on-interrupt", "stop", code=130)
    assert "stopping long-run; Ctrl-C leaves at once" in told
    assert store.get("long-run").state is RunState.STOPPED


def test_ctrl_c_leaves_logs_and_breaks_off_a_stop_with_a_word_on_what_is_left(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains("long-run")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(story, "resume", Once(KeyboardInterrupt()))
        told = cli("logs", "long-run", code=130)
    assert "left; long-run goes on" in told.err and "cloudtrain stop long-run" in told.err

    def breaks(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(lifecycle_stop, "stop", breaks)
        told = cli("stop", "long-run", "--yes", code=8)
    assert "left in the middle of the stop" in told.err and "cloudtrain stop long-run ends it" in told.err
    assert store.get("long-run").state is RunState.RUNNING
