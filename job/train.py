"""Train one network on MNIST: `python -m job.train --model 3 --epochs 15`.

`train` is the story of a run: device, data, model, recipe, epochs, results. `main` turns failures into an event, a
line and an exit code: 0 done, 1 failed, 2 bad arguments, 143 ended by SIGTERM (130 by Ctrl-C).
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from job import needs  # noqa: F401  # isort: skip  (before all others: it ends here where a package is missing)
from job import cores  # noqa: F401  # isort: skip  (before torch: it settles how OpenMP waits)

import torch

from job import checkpoint, data, devices, failures, models, recipes
from job.console import Console, Pace
from job.errors import JobError
from job.evaluate import evaluate
from job.events import EventLog
from job.interrupt import Stop, Stopped
from job.optim import rate
from job.options import BadArguments, Options, parse
from job.outputs import Outputs, on_cpu, summarise
from job.progress import Progress
from job.step import Eager, Graphs, NonFiniteLoss, OnCpu

REPORTS_PER_SECOND = 4.0  # `step` and `data` events, and redraws of the bar


def train(options: Options, console: Console, events: EventLog, stop: Stop) -> None:
    """One run from start to end.

    Raises:
        JobError: a failure with a name.
        Stopped: a signal asked for the end; everything that going on needs is saved.
    """
    outputs = Outputs(options.out)
    device = devices.choose(options.device, noting(console, events))
    console.line(device.type)
    outputs.environment(gpu=device.type == "cuda")

    train_split, test_split = load_data(options, console, events, stop, device)
    scored_split = test_split
    if options.val:
        train_split, scored_split = data.hold_out(train_split)

    model, parameters = build_model(options, device, outputs, console)
    progress = set_out(options, model, device, train_split, scored_split)
    tell_scope(progress, len(test_split.labels), console)
    if options.resume is not None:
        resume(progress, options.resume, outputs, console)
    tell_start(progress, parameters, events, resumed=options.resume is not None)

    path = way(progress, console)
    while progress.epoch < progress.epochs:
        run_epoch(progress, path, outputs, console, events, stop)

    if options.val:
        open_test_set(progress, test_split, outputs, console)
    finish(progress, parameters, outputs, console, events)


# before the first epoch


def noting(console: Console, events: EventLog) -> Callable[[str], None]:
    """What takes a message into the log and, as a warning, among the events."""

    def note(message: str) -> None:
        console.line(message)
        events.emit("warning", message=message)

    return note


def load_data(
    options: Options, console: Console, events: EventLog, stop: Stop, device: torch.device
) -> tuple[data.Split, data.Split]:
    """The training and test split on `device`, fetched first where they are not here."""
    pace = Pace(REPORTS_PER_SECOND)

    def progress(source: str, done: int, total: int) -> None:
        stop.check()
        console.progress(source, done, total)
        if pace.due():
            events.emit("data", source=source, done=done, total=total)

    source = data.prepare(options.data, progress=progress, note=noting(console, events))
    if source != "cache":
        console.data_ready(source)
    events.emit("data", source=source, sha256={name: file.sha256 for name, file in data.FILES.items()})
    splits = data.load(options.data)
    if options.subset is not None:
        splits = splits[0].first(options.subset), splits[1].first(max(1, options.subset // 6))
    return splits[0].to(device), splits[1].to(device)


def build_model(
    options: Options, device: torch.device, outputs: Outputs, console: Console
) -> tuple[torch.nn.Module, int]:
    """The untrained network on `device`, and how many parameters its layer table counts."""
    torch.manual_seed(options.seed)
    model = models.build(options.model).to(device)
    summary = summarise(model)
    outputs.summary(summary)
    console.line(summary.table())
    console.line(f"CUDA Available? {torch.cuda.is_available()}")
    return model, summary.parameters


def set_out(
    options: Options, model: torch.nn.Module, device: torch.device, train: data.Split, scored: data.Split
) -> Progress:
    """A run of which nothing is done: recipe, optimiser, schedule. Each epoch will be scored on `scored`."""
    recipe = recipes.choose(options.recipe, options.model, device.type, **options.changes)
    plain = recipes.choose(options.recipe, options.model, device.type)
    return Progress(
        options.model,
        model,
        recipe,
        options.seed,
        device,
        train,
        scored,
        options.subset,
        val=options.val,
        changed=recipes.differing(recipe, plain),
    )


def tell_scope(progress: Progress, test_images: int, console: Console) -> None:
    """Say which part of MNIST this run trains and is scored on, where it is not all of it."""
    if progress.subset is not None:
        console.line(
            f"Subset: the first {progress.subset:,} of 60,000 training images and the first "
            f"{test_images:,} of 10,000 test images; no accuracy below is one of MNIST"
        )
    if progress.val:
        console.line(
            f"Validation: the last {len(progress.test.labels):,} training images are held out, each epoch is scored on "
            f"them, and the test set is opened once, at the end"
        )


def resume(progress: Progress, path: Path, outputs: Outputs, console: Console) -> None:
    """Stand where the checkpoint at `path` stood.

    Raises:
        JobError: it cannot be read, or is of another run.
    """
    progress.restore(checkpoint.load(path, progress.identity()))
    console.line(f"Resumed: {progress.epoch} of {progress.epochs} epochs and {progress.step} steps are done")
    if progress.best is not None:  # the folder may be a new one: what came before belongs there too
        write_weights(progress, outputs, best=True)


def tell_start(progress: Progress, parameters: int, events: EventLog, *, resumed: bool) -> None:
    """The `start` event: what is trained, on what, with which settings."""
    recipe = progress.recipe
    events.emit(
        "start",
        model=progress.model_number,
        parameters=parameters,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=progress.seed,
        lr=recipe.lr,
        recipe=recipe.name,
        device=progress.device.type,
        device_name=progress.device_name,
        torch=torch.__version__,
        steps=progress.steps,
        goals=list(recipes.GOALS),
        goal_test_acc=recipes.GOAL_TEST_ACCURACY,
        settings=asdict(recipe),
        changed=progress.changed,
        scored_on=progress.scored_on,
        subset=progress.subset,
        resumed={"epoch": progress.epoch, "step": progress.step} if resumed else None,
    )


def way(progress: Progress, console: Console) -> OnCpu | Eager:
    """The fastest way that this device has of running a step."""
    if progress.device.type == "cpu":
        return OnCpu(progress.stepper, progress.train, progress.seed)
    if progress.device.type == "cuda":
        return Graphs(progress.stepper, progress.train, console.line)
    return Eager(progress.stepper, progress.train)


# an epoch


def run_epoch(
    progress: Progress, path: OnCpu | Eager, outputs: Outputs, console: Console, events: EventLog, stop: Stop
) -> None:
    """One epoch, or what is left of it: its steps, its score, and all that is kept of it.

    Raises:
        Stopped: a signal came; the checkpoint goes on from this very step.
        JobError: the loss is no number any more (`non_finite_loss`).
    """
    console.epoch(progress.epoch)
    started = time.monotonic() - progress.elapsed
    try:
        train_epoch(progress, path, console, events, stop)
        reading = progress.meter.read(progress.steps)
        train_seconds = time.monotonic() - started
        console.bar_done(progress.steps, reading.last_loss, reading.accuracy, train_seconds)
        score = evaluate(progress.scored, progress.test)
        if not math.isfinite(score.loss):
            raise failures.non_finite_score(score.loss, progress.epoch + 1, progress.recipe)
    except Stopped:
        progress.elapsed = time.monotonic() - started
        save_stopped(progress, outputs, console, events)
        raise
    except Exception:
        with contextlib.suppress(OSError):  # the failure itself is what matters
            outputs.metrics(progress.metrics(), progress.document("failed"))
        raise
    console.test(score.loss, score.correct, score.total, held_out=progress.val)
    lr = rate((progress.epoch + 1) * progress.steps - 1, progress.epochs * progress.steps, progress.recipe)
    progress.finish_epoch(reading, score, lr, time.monotonic() - started, train_seconds)
    keep_epoch(progress, outputs, events)


def train_epoch(progress: Progress, path: OnCpu | Eager, console: Console, events: EventLog, stop: Stop) -> None:
    """The steps of one epoch that are still to do.

    Raises:
        Stopped: a signal came; `progress.step` says how many steps are done.
        JobError: the loss is no number any more (`non_finite_loss`).
    """
    path.begin(progress.epoch, progress.step, progress.order())
    pace = Pace(REPORTS_PER_SECOND)
    pace.due()  # the first report comes after a moment's training, not after the first step
    since = progress.step, time.monotonic()
    progress.model.train()
    for step in range(progress.step, progress.steps):
        stop.check()
        path.run(progress.epoch, step)
        progress.step = step + 1
        if pace.due():
            report_step(progress, console, events, since)
    report_step(progress, console, events, None)


def report_step(progress: Progress, console: Console, events: EventLog, since: tuple[int, float] | None) -> None:
    """Tell how far the epoch is and how fast it went `since` a step and its time; None: check the figures alone.

    Raises:
        JobError: a loss is no number any more (`non_finite_loss`).
    """
    try:
        reading = progress.meter.read(progress.step)
    except NonFiniteLoss as broken:
        raise failures.non_finite(broken, progress.epoch + 1, progress.recipe) from None
    if since is None:
        return
    step, started = since
    console.bar(progress.step, progress.steps, reading.last_loss, reading.accuracy)
    events.emit(
        "step",
        epoch=progress.epoch + 1,
        step=progress.step,
        steps=progress.steps,
        loss=reading.loss,
        train_acc=reading.accuracy,
        rate=round((progress.step - step) / (time.monotonic() - started), 2),
    )


def keep_epoch(progress: Progress, outputs: Outputs, events: EventLog) -> None:
    """Write down the epoch that has just ended: weights, figures, then the checkpoint to go on from."""
    row = progress.rows[-1]
    write_weights(progress, outputs, best=row["best"])
    outputs.metrics(progress.metrics(), progress.document("running"))
    told = {key: row[key] for key in row if key not in ("t", "confusion")}
    events.emit("epoch", **told, epochs=progress.epochs, scored_on=progress.scored_on)
    progress.save(outputs)
    events.emit("checkpoint", epoch=progress.epoch, name="checkpoints/last.pt")


def write_weights(progress: Progress, outputs: Outputs, *, best: bool) -> None:
    """The weights scored after the last epoch; with `best` also those of the best one, and its predictions."""
    if progress.step == 0:
        outputs.weights("last", on_cpu(progress.scored.state_dict()))
    if best:
        outputs.weights("best", progress.best.state)
        if not progress.val:  # its test set is still closed
            outputs.predictions(progress.test.labels, progress.best.predicted, progress.best.confidence)


def save_stopped(progress: Progress, outputs: Outputs, console: Console, events: EventLog) -> None:
    """Keep what going on from this very step needs, and the results so far.

    Raises:
        JobError: the loss is no number any more, so nothing is worth going on from; the older checkpoint stays.
    """
    if progress.step:
        report_step(progress, console, events, None)
    progress.save(outputs)
    outputs.metrics(progress.metrics(), progress.document("stopped"))
    events.emit("checkpoint", epoch=progress.epoch, name="checkpoints/last.pt", step=progress.step)
    where = f"epoch {progress.epoch + 1} of {progress.epochs}, step {progress.step} of {progress.steps}"
    events.emit("warning", message=f"stopped in {where}; the checkpoint goes on from there")
    console.line(f"Stopped: {where}. A checkpoint to go on from is saved.")


# after the last epoch


def open_test_set(progress: Progress, test: data.Split, outputs: Outputs, console: Console) -> None:
    """With `--val`: score the trained network on the test set, once."""
    progress.opened, progress.test_labels = evaluate(progress.scored, test), test.labels
    console.test(progress.opened.loss, progress.opened.correct, progress.opened.total)
    outputs.predictions(test.labels, progress.opened.predicted, progress.opened.confidence)


def finish(progress: Progress, parameters: int, outputs: Outputs, console: Console, events: EventLog) -> None:
    """The results: in the folder, in the log, as an event."""
    outputs.metrics(progress.metrics(), progress.document("done"))
    told = progress.headline()
    console.results(parameters, told["best_train_acc"], told["best_test_acc"], told["best_epoch"])
    # An accuracy on a part of the data set is not judged.
    met = {goal["goal"]: None if goal["value"] is None else goal["met"] for goal in progress.goals()}
    events.emit("result", parameters=parameters, **told, goals=met)


# the program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    console, stop = Console(), Stop()
    events = EventLog(None)
    try:
        options = parse(argv)
        events = EventLog(options.events)
        with stop.listening():
            train(options, console, events, stop)
        return 0
    except Stopped:
        return stop.exit_code
    except KeyboardInterrupt:  # the second Ctrl-C
        return 130
    except BadArguments as error:
        if os.environ.get("CLOUDTRAIN_EVENTS"):
            events = EventLog(Path(os.environ["CLOUDTRAIN_EVENTS"]))
        failed(console, events, JobError("bad_arguments", str(error), "python -m job.train --help lists what there is"))
        return 2
    except Exception as error:
        known = failures.named(error)
        if known is None:
            console.traceback()
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            known = JobError("unexpected", text, "the traceback above is in the console log")
        failed(console, events, known)
    finally:
        console.close()
        events.close()
    return 1


def failed(console: Console, events: EventLog, error: JobError) -> None:
    """Tell of a failure in the log and, where the disk still takes it, as an event."""
    console.error(error.message, error.hint)
    try:
        events.emit("error", code=error.code, message=error.message, hint=error.hint)
    except OSError:
        console.line("error: the event could not be written")


if __name__ == "__main__":
    raise SystemExit(main())
