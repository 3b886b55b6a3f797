"""Plays a run on this process's terminal, stop by stop, for the tests of screens.

`python -m tests.host.console.play SCENE`.

At each stop it writes a byte to file descriptor CLOUDTRAIN_PLAY_TO and waits for one from CLOUDTRAIN_PLAY_FROM.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tqdm import tqdm

from cloudtrain.console import choose
from cloudtrain.console.log_text import LogView
from cloudtrain.console.reporters import base
from cloudtrain.console.reporters.live import LiveReporter
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.core.errors import ConnectionFailed, ExitCode
from cloudtrain.core.events import (
    Emit,
    FiguresTold,
    GpuUse,
    LogLines,
    Metric,
    Noted,
    PhaseChanged,
    StepDone,
    StepProgress,
    StepStarted,
    Warned,
)
from cloudtrain.core.figures import BOARD, EVENTS, Row, row
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, OfferDetails, Plan, Took, make_plan
from cloudtrain.core.spec import Ec2Spec, JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Store

ACCURACIES = (98.74, 99.21, 99.31, 99.39, 99.43)
WALL = 1_780_000_000.0


class Clock:
    """Stands still until a scene moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return WALL + self.now


def plan(*, tried: bool = True, command: tuple[str, ...] = ()) -> Plan:
    """Model 3, or a command, on one of two EC2 types, one of them tried before."""
    spec = RunSpec(
        name="brave-otter",
        target=Target.EC2,
        train=TrainSpec(model=3, epochs=5, recipe="fast", device="cuda"),
        job=JobSpec(source=str(Path.cwd() / "job"), command=command),
        runs_dir=str(Path.cwd() / "runs"),
        ec2=Ec2Spec(types=("g4dn.xlarge", "g6.xlarge"), region="us-east-1"),
    )
    zones = ("us-east-1a", "us-east-1b", "us-east-1c")
    offer = Offer(
        where="us-east-1",
        account="profile student, account ...9012",
        candidates=(
            Candidate(type="g4dn.xlarge", gpu="1x T4 16 GB", vcpus=4, memory_gib=16, price_per_hour=0.536, zones=zones),
            Candidate(type="g6.xlarge", gpu="1x L4 24 GB", vcpus=4, memory_gib=16, price_per_hour=0.815, zones=zones),
        ),
        alternatives=(
            Candidate(type="g5.xlarge", gpu="1x A10G 24 GB", vcpus=4, memory_gib=16, price_per_hour=1.016, zones=zones),
        ),
        price_note="$/HOUR includes instance, public IPv4 and 45 GB disk; table of 2026-07-20.",
        enforcer="the instance ends itself, laptop on or off",
        details=OfferDetails(root_gb=45),
    )
    code = CodeSummary(files=14, bytes=38_000, git="3f9c1d2 with 2 changed files")
    took = Took(run="dry-finch", type="g4dn.xlarge", setup_s=102.0, training_s=51.0, pull_s=8.0, scaled_from=15)
    return make_plan(spec, offer, code, times=(took,) if tried else (), last=took if tried else None)


def first_plan(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """The plan of somebody's first run."""
    reporter.plan(plan(tried=False))
    stop()


def training(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """From the plan to the Results block."""
    emit = reporter.emit
    reporter.plan(plan())
    emit(PhaseChanged("brave-otter", RunState.PROVISIONING))
    emit(StepStarted("instance", "g4dn.xlarge in us-east-1a", 600))
    clock.now = 12.0
    emit(StepProgress("instance", "pending"))
    stop()
    clock.now = 31.0
    emit(StepDone("instance", "i-0a1b2c3d4e5f60718 g4dn.xlarge, us-east-1b", 31.0))
    emit(StepDone("ssh", "host key checked, and replaced by one that only the machine has", 27.0))
    emit(StepStarted("sync", "", 300))
    emit(StepProgress("sync", "job", 12_000, 38_000, "B"))
    clock.now = 59.0
    stop()
    emit(StepDone("sync", "14 files, 38 kB", 1.0))
    emit(StepDone("start", "survives disconnects; log: cloudtrain logs brave-otter", 0.4))
    emit(PhaseChanged("brave-otter", RunState.RUNNING))
    train(emit, clock, stop)


def train(emit: Emit, clock: Clock, stop: Callable[[], None]) -> None:
    emit(Metric("start", {"epochs": 5, "steps": 937, "goal_test_acc": 99.4}))
    for epoch, accuracy in enumerate(ACCURACIES, 1):
        clock.now = 60.0 + 10.2 * epoch
        emit(Metric("step", {"epoch": epoch, "step": 624, "steps": 937, "rate": 93.7}))
        if epoch == 1:
            stop()
        if epoch == 4:
            emit(Warned("connection lost; training goes on. Reconnecting in 4 s (3 of 8)"))
            emit(Noted("reconnected"))
            for _ in range(10):
                emit(GpuUse(31.0, 913, 15360))
            stop()
        values = {"epoch": epoch, "epochs": 5, "train_acc": accuracy - 0.5, "test_loss": 0.0226, "test_acc": accuracy}
        emit(Metric("epoch", {**values, "seconds": 10.2, "best": True}))


def ended(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """The whole run, and how it ended well."""
    training(reporter, clock, lambda: None)
    metrics = {
        "parameters": 7902,
        "best_epoch": 5,
        "best_train_acc": 98.93,
        "best_test_acc": 99.43,
        "final_test_acc": 99.43,
        "goals": {"test accuracy >= 99.4 %": True, "parameters < 8000": True, "epochs <= 15": True},
    }
    reporter.emit(PhaseChanged("brave-otter", RunState.PULLING))
    reporter.emit(StepDone("pull", "11 files, 0.5 MiB verified in runs/brave-otter", 0.8))
    reporter.emit(StepDone("terminate", "i-0a1b2c3d4e5f60718 terminated, nothing is billed any more", 9.0))
    reporter.result(
        Result(
            run="brave-otter",
            state=RunState.SUCCEEDED,
            exit_code=ExitCode.DONE,
            folder=Path.cwd() / "runs" / "brave-otter",
            metrics=metrics,
            seconds=128.0,
            cost_usd=0.019,
            life=InstanceLife.TERMINATED,
        )
    )
    stop()


def failure(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """What a failure looks like."""
    reporter.failure(
        ConnectionFailed(
            "the host cannot be reached: nothing answers at 203.0.113.20 port 22 within 10 s",
            hint="cloudtrain logs brave-otter",
            consequence="the run goes on, its log and results stay on the host",
        )
    )
    stop()


def bar(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """A program that tells no figures and draws a bar; a bar below another one; a line that never ends."""
    emit, offset = reporter.emit, 0

    def log(data: bytes) -> None:
        nonlocal offset
        emit(LogLines(data, offset))
        offset += len(data)

    emit(PhaseChanged("brave-otter", RunState.RUNNING))
    log(b"loading\n\repoch 1:  10%|#  ")
    clock.now = 5.0
    log(b"\repoch 1: \x1b[32m 70%\x1b[0m|" + b"#" * (60 if sys.argv[-1] == "-t" else 20) + b"| 70/100")
    stop()
    emit(Warned("connection lost; training goes on. Reconnecting in 4 s (3 of 8)"))
    log(b"\r\x1b[Kepoch 1: 100%\n\n\rsteps  50%\x1b[A\n\rsteps 100%")
    stop()
    log(b"\n.....\x1b]0;title\x07..")
    emit(PhaseChanged("brave-otter", RunState.PULLING))
    reporter.failure(ConnectionFailed("the host cannot be reached"))


def program(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """A program of the user's: it says nothing, draws with tqdm and Rich, waits in a line, tells figures of its own."""
    emit, log = reporter.emit, Log(reporter.emit)

    def tell(kind: str, values: dict[str, float]) -> None:
        emit(Metric(kind, values))
        told = row(values, EVENTS)
        assert told is not None
        emit(FiguresTold(told))

    if isinstance(reporter, LiveReporter | PlainReporter):
        reporter.plan(plan(tried=False, command=("python", "train.py")))
    emit(PhaseChanged("brave-otter", RunState.RUNNING))
    clock.now = 40.0
    emit(GpuUse(97.0, 913, 15360))
    stop()
    log.write("reading the data\n")
    bar = "{desc:<14}{percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt}"
    for epoch in tqdm(range(3), "epochs", file=log, mininterval=0, bar_format=bar):
        for step in tqdm(range(100), "steps", file=log, mininterval=0, bar_format=bar, leave=False):
            if (epoch, step) == (1, 40):
                stop()
        tqdm.write(f"loss {1 / (1 + epoch):.3f}", file=log)
    columns = TextColumn("{task.description:<14}"), BarColumn(24), MofNCompleteColumn()
    console = RichConsole(file=log, force_terminal=True, width=78, legacy_windows=False)
    with Progress(
        *columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        tasks = [progress.add_task(f"shard {number}", total=4) for number in range(3)]
        for step in range(12):
            progress.advance(tasks[step % 3])
            progress.refresh()
            if step == 6:
                stop()
    log.write("\x1b]0;title\x07Epoch 4 ... ")
    tell("step", {"step": 40, "steps": 100, "val_ppl": 12.345, "lr\x1b[2J": 3e-4})
    stop()
    log.write("done\n")
    tell("epoch", {"epoch": 4, "val_ppl": 11.9})
    emit(FiguresTold(Row(origin=BOARD, values={"grad": 0.25})))
    stop()


class Log(io.StringIO):
    """A file that a program of this process writes its log to."""

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self._emit, self._offset = emit, 0

    def write(self, text: str) -> int:
        data = text.encode()
        self._emit(LogLines(data, self._offset))
        self._offset += len(data)
        return len(text)


def silent(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """A program that says nothing at all, on a screen whose time goes on by itself."""
    alive = LiveReporter(wall=clock.wall)
    alive.plan(plan(tried=False, command=("python", "train.py")))
    alive.emit(PhaseChanged("brave-otter", RunState.RUNNING))
    for _ in range(2):
        time.sleep(0.6)
        stop()
    alive.close()


def watched(reporter: base.Reporter, clock: Clock, stop: Callable[[], None]) -> None:
    """A run that trains, in the view of its log: it prints a line, begins another, and says nothing more."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "registry.sqlite")
        run = store.add(plan(tried=False, command=("python", "train.py")))
        for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
            run = store.move(run, state)
        reporter.about(run, lambda: run)
        reporter.emit(LogLines(b"loading data\nepoch 1:", 0))
        for _ in range(2):
            time.sleep(1.2)
            stop()
        reporter.emit(LogLines(b" done\n", 21))


SCENES = {
    "bar": bar,
    "ended": ended,
    "failure": failure,
    "plan": first_plan,
    "program": program,
    "silent": silent,
    "training": training,
    "watched": watched,
}


def main() -> None:
    to, back = int(os.environ["CLOUDTRAIN_PLAY_TO"]), int(os.environ["CLOUDTRAIN_PLAY_FROM"])

    def stop() -> None:
        sys.stderr.flush()
        os.write(to, b".")
        os.read(back, 1)

    base.forgive_encodings()
    os.environ["TZ"] = "UTC"
    time.tzset()
    clock = Clock()
    time.time = clock.wall  # what a plan says of the time of day is told from the scene's clock
    look = choose.Look(plain="--plain" in sys.argv)
    reporter = LogView(stamped="-t" in sys.argv) if "logs" in sys.argv else choose.reporter(look)
    if isinstance(reporter, LiveReporter):
        reporter = LiveReporter(clock=clock, wall=clock.wall, ticking=False)
    SCENES[sys.argv[1]](reporter, clock, stop)
    reporter.close()


if __name__ == "__main__":
    main()
