"""A signal at each step of the story: what is said of the run, of its machine and of money is so, and all goes on."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cloudtrain.cli import app, following
from cloudtrain.console.reporters.live import LiveReporter
from cloudtrain.core import disk
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, make_plan
from cloudtrain.core.spec import Ec2Spec, JobSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import planning, story
from cloudtrain.provider.ec2.notes import Debt, Ec2Notes, LaunchAttempt, Launched, Pending, Slot
from cloudtrain.store import Run, Store
from tests import plans
from tests.fake_provider import FakeMachine, FakeProvider
from tests.fakes import VERBS, FakeHost, FakeRun
from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as a terminal sends them")

NAME = "brave-otter"
PRICE = "$0.360 an hour"


def job(run: FakeRun) -> Iterator[float]:
    run.print("epoch 1")
    yield 60.0
    run.out["weights"] = b"trained"


class Ec2(FakeProvider):
    """Machines as EC2 has them, as far as the notes go: each is on the disk before the call that it announces.

    Attributes:
        strikes: what a step does besides, by its name; taken out when it has struck.
    """

    def __init__(self) -> None:
        super().__init__(job, owned=True)
        self.kind = Ec2Machine
        self.now = time.time()
        self.strikes: dict[str, Callable[[], None]] = {}

    def strike(self, step: str) -> None:
        self.strikes.pop(step, lambda: None)()

    def survey(self, spec: Any) -> Offer:
        self.strike("plan")
        return Offer(where="EC2", candidates=(Candidate(type="g4dn.xlarge", price_per_hour=0.36),))

    def acquire(self, plan: Any, journal: Any, emit: Any) -> Any:
        self.strike("launch")
        attempt = LaunchAttempt(seed="s", run=plan.spec.name, expires_at=self.clock() + 3600)
        slot = Slot("g4dn.xlarge", "us-east-1a", price=0.36)
        journal.write(Ec2Notes(attempt=attempt, request=Pending(slot=slot, request={})))
        self.strike("launch, no answer")
        if not self.machines:
            self.made = super().acquire(plan, journal, emit)
        launched = Launched(id=self.made.id, type="g4dn.xlarge", price=0.36, at=self.clock())
        journal.write(Ec2Notes(request=None, instance=launched))
        self.strike("launch, answered")
        return replace(self.made, details=replace(self.made.details, spot=False))


class Ec2Machine(FakeMachine):
    def open(self) -> Any:
        self.there.strike("boot")
        return super().open()

    def park_at_end(self) -> bool:
        return True

    def release(self) -> Any:
        debt = Debt(id=self.instance.id, price=self.instance.price_per_hour)
        self.journal.write(Ec2Notes(release_pending=debt))
        self.there.strike("release")
        released = super().release()
        self.journal.write(Ec2Notes(release_pending=None))
        return released


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Ec2:
    made = Ec2()
    monkeypatch.setattr(following, "provider_of", lambda spec, trusts: made)
    parse, start = FakeHost._parse, FakeHost._start

    def asked(host: FakeHost, argv: Any) -> Any:
        made.strike(next((word for word in argv if word in VERBS), ""))
        return parse(host, argv)

    def started(host: FakeHost, *arguments: Any) -> Any:
        answer = start(host, *arguments)
        made.strike("started")
        return answer

    monkeypatch.setattr(FakeHost, "_parse", asked)
    monkeypatch.setattr(FakeHost, "_start", started)
    return made


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    source = tmp_path / "job"
    source.mkdir()
    (source / "train.py").write_text("the host has a job of its own")
    spec = plans.spec(
        tmp_path / "runs", NAME, target=Target.EC2, ec2=Ec2Spec(), job=JobSpec(source=str(source), module="job.train")
    )
    plan = make_plan(spec, plans.offer(0.36), CodeSummary(files=1, bytes=1))
    return planning.begin(plan, story.Context(store=store, provider=lambda spec: FakeProvider(job)))


def sent(number: int = signal.SIGINT) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


LEFT = "left; "
SET_UP = f"{LEFT}nothing of {NAME} has trained yet; "
UP = f"i-1 may be running at {PRICE}; it ends itself by "
GO_ON = f"To go on: cloudtrain logs {NAME}   To end it: cloudtrain stop {NAME}"
# Step -> what is said when it is struck, in this order.
STEPS: dict[str, tuple[str, ...]] = {
    "launch": (SET_UP, "no machine has been asked for", GO_ON),
    "launch, no answer": (SET_UP, f"one may be coming up at {PRICE}; it ends itself by ", GO_ON),
    "launch, answered": (SET_UP, f"i-1 is coming up at {PRICE}; it ends itself by ", GO_ON),
    "boot": (SET_UP, UP, GO_ON),
    "probe": (SET_UP, UP, GO_ON),
    "receive": (SET_UP, UP, GO_ON),
    "start": (f"{LEFT}{NAME} may train already; ", UP, GO_ON),
    "started": (f"{LEFT}{NAME} may train already; ", UP, GO_ON),
    "follow": (f"detached; {NAME} goes on. It ends itself by ", f"To return: cloudtrain logs {NAME}"),
    "manifest": (
        f"{LEFT}{NAME} trains no more, and not all of its results are here; i-1 may be running at {PRICE}; it parks",
        f"cloudtrain pull {NAME} fetches the rest",
    ),
    "release": (
        f"{LEFT}{NAME} trains no more, and its results are here; i-1 was to end, and EC2 has not confirmed it, may be "
        f"billed at {PRICE}, and ends itself by ",
        f"cloudtrain stop {NAME} finishes it",
    ),
}
STEPS["send"] = STEPS["manifest"]


def says(told: str, *parts: str) -> None:
    """`told` has these parts, in this order."""
    at = 0
    for part in parts:
        assert part in told[at:], f"not in its place: {part!r}\n{told}"
        at = told.index(part, at) + len(part)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_at_every_step_the_command_says_what_is_so_and_the_next_one_goes_on(
    cli: Callable[..., Typed], machines: Ec2, run: Run, store: Store, step: str, number: int
) -> None:
    machines.strikes[step] = sent(number)
    told = cli("run", "--name", NAME, code=8).err
    assert not machines.strikes
    says(told, *STEPS[step])
    if step != "release":
        assert machines.released == 0 and "not confirmed" not in told
    # Nothing is lost by it.
    cli("logs", NAME)
    now = store.get(NAME)
    assert (now.state, now.life, machines.released) == (RunState.SUCCEEDED, InstanceLife.TERMINATED, 1)
    assert len(machines.machines) == 1 and machines.host.asked.count("start") <= 2
    assert (now.folder / "console.log").read_bytes() == b"epoch 1\n" and (now.folder / "weights").exists()


@pytest.mark.parametrize("step", STEPS)
def test_asked_at_a_terminal_what_is_so_stands_in_the_question(
    cli: Callable[..., Typed],
    machines: Ec2,
    run: Run,
    store: Store,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is answered after that: here to go on."""
    from cloudtrain.cli import leaving
    from cloudtrain.console.reporters import base

    monkeypatch.setattr(base.Reporter, "may_ask", lambda reporter: True)
    for module in (leaving, base):
        monkeypatch.setattr(module, "answered", lambda: "c\n" if store.get(NAME).state.trains else "n\n")
    machines.strikes[step] = sent()
    told = cli("run", "--name", NAME).err
    match step:
        case "boot" | "probe" | "receive":
            says(told, "Nothing has trained yet. Terminate i-1? [Y/n]")
        case "follow":
            says(told, f"Watching stopped; {NAME} is still training ({PRICE})", "[s]top and terminate")
        case "manifest" | "send" | "release":
            says(told, *(part.removeprefix(LEFT) for part in STEPS[step][:1]), "[d]etach (default)   [c]ontinue")
            assert "still training" not in told and "[s]top" not in told
        case _:
            says(told, *(part.removeprefix(LEFT) for part in STEPS[step][:-1]), "End this run? [Y/n]")
    assert store.get(NAME).state is RunState.SUCCEEDED and machines.released == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "closed"])
@pytest.mark.parametrize("step", ["plan", "question"])
def test_before_a_run_there_is_nothing_to_end(
    cli: Callable[..., Typed],
    machines: Ec2,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    machines.strikes[step] = sent(number)
    from cloudtrain.console.reporters.base import Reporter

    monkeypatch.setattr(Reporter, "ask", lambda *_, **__: machines.strike("question"))
    told = cli("run", "--instance", "g4dn.xlarge", code=130).err
    says(told, "interrupted; nothing was started [interrupted]", "nothing of it is billed")
    assert not store.names() and not machines.machines


@pytest.fixture
def trains(machines: Ec2, run: Run, store: Store) -> Run:
    """It is detached while it trains."""
    story.resume(run, story.Context(store=store, provider=lambda spec: machines), detach=True)
    return run


def test_before_the_host_has_said_a_word_who_looks_on_sees_time_cost_end_and_keys(
    machines: Ec2, trains: Run, store: Store
) -> None:
    screen, seen = io.StringIO(), list[str]()
    reporter = LiveReporter(Console(file=screen, force_terminal=True, width=100), ticking=False)
    machines.strikes["follow"] = lambda: seen.append(screen.getvalue())
    code = following.to_the_end(
        store.get(NAME), following.context(store, reporter), reporter, join=True, only_shows=True
    )
    assert code == 0 and re.search(r"cost  .*\$.* of at most \$.*, ends itself by ", seen[0])
    assert "Ctrl-C to leave; it goes on" in seen[0]


STOPS = {
    "stop": (f"left in the middle of the stop. {NAME} was asked to end; i-1 may be running at {PRICE}",),
    "manifest": ("left in the middle of the stop. ", *STEPS["manifest"][:1]),
    "release": ("left in the middle of the stop. ", *STEPS["release"][:1]),
}


@pytest.mark.parametrize("step", STOPS)
def test_a_stop_that_is_broken_off_says_how_far_it_has_come(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store, step: str
) -> None:
    machines.strikes[step] = sent()
    told = cli("stop", NAME, "--yes", code=8).err
    says(told, *(part.removeprefix(LEFT) for part in STOPS[step]), f"cloudtrain stop {NAME} ends it")
    cli("stop", NAME, "--yes")
    assert store.get(NAME).life is InstanceLife.TERMINATED and machines.released == 1


def test_a_stop_whose_question_is_not_answered_changes_nothing(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtrain.console.reporters.base import Reporter

    monkeypatch.setattr(Reporter, "ask", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    told = cli("stop", NAME, code=8).err
    says(told, f"interrupted; {NAME} goes on; i-1 may be running at {PRICE}", f"To return: cloudtrain logs {NAME}")
    assert not store.read_journal(NAME).stop_wanted


def test_a_pull_that_is_broken_off_says_how_things_stand(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store
) -> None:
    machines.strikes["manifest"] = sent()
    says(cli("pull", NAME, code=8).err, f"interrupted; {NAME} goes on; i-1 may be running at {PRICE}")
    machines.sleep(100.0)
    machines.strikes["manifest"] = sent()
    says(cli("pull", NAME, code=8).err, f"interrupted; {NAME} trains no more, and not all of its results are here")
    cli("pull", NAME)
    assert store.get(NAME).state is RunState.SUCCEEDED


def test_a_wait_that_is_left_names_all_that_was_waited_for(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store, tmp_path: Path
) -> None:
    other = planning.begin(plans.plan(tmp_path / "runs", "calm-owl"), story.Context(store=store, provider=provided))
    machines.strikes["follow"] = sent()
    told = cli("wait", NAME, other.name, code=8).err
    says(told, f"detached; {NAME} goes on", "not waited for: nothing of calm-owl has trained yet")


def provided(spec: Any) -> FakeProvider:
    return FakeProvider(job)


def test_logs_is_left_with_how_things_stand(cli: Callable[..., Typed], machines: Ec2, trains: Run) -> None:
    machines.strikes["follow"] = sent()
    says(cli("logs", NAME, code=130).err, f"left; {NAME} goes on. It ends itself by ")
    machines.strikes["release"] = sent()
    says(cli("logs", NAME, code=130).err, *STEPS["release"])


def test_a_signal_after_the_end_says_how_it_ended(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtrain.cli import leaving

    monkeypatch.setattr(leaving, "write_report", lambda *_: signal.raise_signal(signal.SIGINT))
    told = cli("wait", NAME, code=130).err
    says(told, f"interrupted; {NAME} has ended (succeeded) and its results are here. cloudtrain show {NAME}")


def test_a_machine_that_may_be_up_after_the_end_is_named(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store
) -> None:
    from cloudtrain.core.errors import ConnectionFailed

    machines.fails = ConnectionFailed("it could not be ended", code="release_pending")
    cli("stop", NAME, "--yes", code=6)
    assert store.read_journal(NAME).owed and store.get(NAME).state.final
    machines.strikes["release"] = sent()
    told = cli("stop", NAME, "--yes", code=8).err
    says(told, f"{NAME} has ended (stopped) and its results are here; i-1 was to end, and EC2 has not confirmed it")
    machines.fails = None
    store.write_journal(NAME, RunNotes(owed=True))
    cli("stop", NAME, "--yes")
    assert store.get(NAME).life is InstanceLife.TERMINATED


@pytest.mark.parametrize("step", ["boot", "receive", "start", "follow", "release"])
def test_a_terminal_that_takes_nothing_any_more_is_no_failure_of_the_run(
    cli: Callable[..., Typed],
    machines: Ec2,
    run: Run,
    store: Store,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody sends SIGHUP, as after `setsid`: each write is refused (EIO)."""
    ours, theirs = os.openpty()
    with monkeypatch.context() as terminal, os.fdopen(theirs, "w") as stderr:
        terminal.setattr(sys, "stderr", stderr)
        machines.strikes[step] = lambda: os.close(ours)
        cli("run", "--name", NAME, "--plain", code=0 if step == "release" else 8)
    assert not list(disk.state_dir().glob("crashes/*"))
    assert machines.released == (1 if step == "release" else 0)
    cli("logs", NAME)
    assert store.get(NAME).state is RunState.SUCCEEDED and machines.released == 1


def test_a_pipe_that_is_not_read_is_no_failure_of_the_run(
    cli: Callable[..., Typed], machines: Ec2, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cloudtrain run --json | head -1`; and what only shows leaves as it does there."""

    def unread(*argv: str, code: int) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with monkeypatch.context() as piped, os.fdopen(writer, "w") as stdout:
            piped.setattr(sys, "stdout", stdout)
            monkeypatch.setattr(sys, "argv", ["cloudtrain", *argv])
            assert app.run() == code

    unread("run", "--name", NAME, "--json", code=8)
    assert not store.get(NAME).state.final and machines.released == 0
    story.resume(store.get(NAME), story.Context(store=store, provider=lambda spec: machines), detach=True)
    unread("logs", NAME, code=0)
    unread("ls", code=0)
    assert store.get(NAME).state is RunState.RUNNING and not list(disk.state_dir().glob("crashes/*"))


def test_a_stop_of_all_that_is_broken_off_says_how_each_stands(
    cli: Callable[..., Typed], machines: Ec2, trains: Run, store: Store, tmp_path: Path
) -> None:
    planning.begin(plans.plan(tmp_path / "runs", "calm-owl"), story.Context(store=store, provider=provided))
    machines.strikes["stop"] = sent()
    told = cli("stop", "--all", "--yes", code=8).err
    assert f"{NAME} was asked to end; i-1 may be running at {PRICE}" in told
    says(told, f"interrupted; not ended: {NAME} [still_running]", "cloudtrain stop --all goes on")
    cli("stop", "--all", "--yes")
    assert all(run.state is RunState.STOPPED for run in store.runs()) and machines.released >= 1


@pytest.mark.parametrize("rest", [True, False])
def test_a_clean_that_is_broken_off_says_what_is_ended_and_what_is_not_known(
    cli: Callable[..., Typed], trains: Run, store: Store, monkeypatch: pytest.MonkeyPatch, rest: bool
) -> None:
    from cloudtrain.cleanup.leftovers import View
    from cloudtrain.cli import leftovers as command
    from cloudtrain.provider.ec2.end import cleaning
    from cloudtrain.provider.ec2.end.cleaning import Ended, Known, Leftover
    from cloudtrain.provider.ec2.instances import Item

    class Place:
        region = "us-east-1"

    def struck(chosen: list[Leftover], *_: Any, told: Callable[[Ended], None]) -> list[Ended]:
        told(Ended(chosen[0], True, "terminated"))
        signal.raise_signal(signal.SIGINT)
        return []

    left = [Leftover(item=Item(kind="instance", id="i-1"), region="us-east-1", known=Known(run=NAME), safe=True)]
    left += [Leftover(item=Item(kind="instance", id="i-2"), region="us-east-1", safe=True)] if rest else []
    monkeypatch.setattr(command, "_places", lambda *_, **__: [Place()])
    monkeypatch.setattr(command, "_look", lambda *_, **__: View(tuple(left), ("us-east-1",)))
    monkeypatch.setattr(cleaning, "end", struck)
    told = cli("clean", "--yes", code=6 if rest else 130).err
    says(told, "interrupted; ended: i-1", *(("; not confirmed: i-2 [not_ended]",) if rest else ()))
    assert store.get(NAME).life is InstanceLife.TERMINATED and store.get(NAME).state is RunState.STOPPED
