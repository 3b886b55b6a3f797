"""`stop` in all its forms, `run --on-interrupt`, `logs` and Ctrl-C: on the command line, in this process.

Jobs are real, and trained on this computer. What becomes of a launched machine: tests/region/whole_path/test_keep.py.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.cli import app, leaving, stopping
from cloudtrain.console.pages import stopping as lines
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.spec import Ec2Spec, JobSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import planning, pull, story
from cloudtrain.lifecycle import stop as lifecycle_stop
from cloudtrain.provider.local import LocalProvider
from cloudtrain.run_folder import outcome
from cloudtrain.run_folder.artifacts import FileEntry
from cloudtrain.store import Run, Store
from tests import plans
from tests.docs.test_json import Answer, check
from tests.region.whole_path.place import JOBS
from tests.unit.lifecycle.test_machine_end import kept

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")

FOREVER = ("--until", "never", "--epochs", "1", "--lines", "2")


@dataclass
class Typed:
    """What a command printed, and how it left."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    def run(*argv: str, code: int = 0) -> Typed:
        monkeypatch.setattr(sys, "argv", ["cloudtrain", *argv])
        capfd.readouterr()
        left = app.run()
        typed = Typed(left, *capfd.readouterr())
        assert left == code, f"exit {left}, not {code}\n{typed.err}{typed.out}"
        if "--json" in argv:
            check(argv[0], Answer([json.loads(line) for line in typed.out.splitlines()], left, typed.err), typed.err)
        return typed

    return run


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def trains(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Run]]:
    """Starts a run here that has written a file and does not end by itself; all are ended after the test."""
    monkeypatch.chdir(tmp_path)
    context = story.Context(store=store, provider=lambda spec: LocalProvider())

    def start(name: str) -> Run:
        job = JobSpec(source=str(JOBS / "toy"), module="toy.train")
        train = plans.TrainSpec(args=FOREVER)
        run = planning.begin(plans.plan(tmp_path / "runs", name, job=job, train=train), context)
        story.resume(run, context, detach=True)
        deadline = time.monotonic() + 60
        while not pull.missing(store.get(name), context):
            assert time.monotonic() < deadline
        return store.get(name)

    yield start
    monkeypatch.undo()
    for run in store.runs():
        if run.plan.spec.target is Target.LOCAL and not run.state.final:
            lifecycle_stop.stop(run, context)


def test_all_runs_are_ended_and_one_that_fails_keeps_no_other(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no run of this computer lives" in cli("stop", "--all").err
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


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("stop", "--all", "some-run"), "takes no name"),
        (("stop", "--all", "--keep", "5m"), "for one run"),
        (("stop", "--keep", "5m", "--no-pull"), "exclude each other"),
        (("stop", "--keep", "soon"), "not a duration"),
        (("stop", "--keep", "5s"), "too short"),
        (("run", "--local", "--keep", "5m"), "this computer, which is never ended"),
        (("run", "--host", "ada@example.org", "--keep", "5m"), "a machine of yours"),
        (("run", "--instance-id", "i-1", "--keep", "5m"), "an instance of yours"),
        (("run", "--local", "--on-interrupt", "dance"), "dance"),
        (("pull", "--only", "dances"), "no group of results called 'dances'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    cli: Callable[..., Typed], argv: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in cli(*argv, code=2).err


def test_a_run_here_cannot_be_kept(cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store) -> None:
    trains("here-run")
    assert "never ended" in cli("stop", "here-run", "--keep", "5m", "--yes", code=2).err
    assert store.get("here-run").state is RunState.RUNNING


def test_a_kept_machine_is_among_what_lives(store: Store, tmp_path: Path) -> None:
    run = kept(store, tmp_path, 600.0)
    assert outcome.lives(run)
    [_, row] = lines.table([run])
    assert "$0.500 an hour, ends itself by" in row and "kept until" in row
    assert "lose what was changed on it since" in lines.question(run)
    assert not outcome.lives(store.note(run, life=InstanceLife.TERMINATED))


def test_the_questions_name_what_is_lost_and_what_is_billed(store: Store, tmp_path: Path) -> None:
    over = kept(store, tmp_path, 600.0)
    values = {name: getattr(over, name) for name in Run.__dataclass_fields__}
    run = Run(**{**values, "state": RunState.RUNNING, "progress": {"epoch": 9, "epochs": 15}})
    assert lines.question(run) == "Stop brave-otter after epoch 9 of 15, pull its results and terminate i-0a1b?"
    assert "keep i-0a1b up 10m 00s longer at $0.500 an hour?" in lines.question(run, keep_s=600)
    assert "without pulling and delete i-0a1b" in lines.question(run, pull=False)
    parked = Run(**{**values, "state": RunState.RUNNING, "life": InstanceLife.PARKED})
    assert lines.question(parked) == "brave-otter is parked. Start i-0a1b to pull its results, then terminate it?"
    many = [FileEntry(f"weights/{n}.pt", 1000, "0" * 64) for n in range(10)]
    first, second, third = lines.losses(run, many, "", {"trickled": [{}]})
    assert "deleted with the machine, for good: weights/0.pt (1 kB)" in first and "and 2 more (2 kB)" in first
    assert "not asked to save" in second and "1 file in" in third
    assert "(no answer)" in lines.losses(run, None, "no answer", {})[0]
    assert "so far is here" in lines.losses(run, [], "", {})[0]


def test_a_look_that_hangs_keeps_nobody_from_ending_a_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    hangs = threading.Event()
    monkeypatch.setattr(stopping, "LOOK_S", 0.1)
    monkeypatch.setattr(pull, "missing", lambda run, context: hangs.wait(60))
    context = story.Context(store=store, provider=lambda spec: LocalProvider())
    assert stopping._look(kept(store, tmp_path, 60.0), context) == (None, "no answer within 0 s")
    hangs.set()


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
    (leaving.Leave(getattr(signal, "SIGHUP", 1)), ("--on-interrupt", "stop")),
    (leaving.Leave(signal.SIGTERM), ("--on-interrupt", "detach")),
]


@pytest.mark.parametrize(
    ("detaching", "stopping_"),
    [(DETACH, KeyboardInterrupt()), ([], leaving.Leave(signal.SIGTERM))],
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


def test_an_ec2_run_that_cannot_be_given_back_is_no_success(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop before training began, and the machine does not end."""
    run = store.add(plans.plan(tmp_path / "runs", target=Target.EC2, ec2=Ec2Spec()))
    run = store.move(run, RunState.PROVISIONING)
    owned = LocalProvider()
    instance = plans_instance()

    def fails(*_: Any) -> Any:
        raise ConnectionFailed("it could not be ended", code="release_pending")

    monkeypatch.setattr(owned, "find", lambda *_: instance)
    monkeypatch.setattr(owned, "release", fails)
    context = story.Context(store=store, provider=lambda spec: owned)
    with pytest.raises(ConnectionFailed, match="could not be ended"):
        lifecycle_stop.stop(run, context)
    assert store.read_journal(run.name)["owed"]


def plans_instance() -> Any:
    from cloudtrain.core.instance import Instance

    return Instance(id="i-1", provider=Target.EC2, owned=True, workdir="x", life=InstanceLife.RUNNING)
