"""Runs as rows, pages and records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudtrain.billing import expiry
from cloudtrain.billing.cost import cost
from cloudtrain.config.table import duration
from cloudtrain.console.pages import failure
from cloudtrain.console.text import EPOCH_HEADER, epoch_row, results_block, shown_path
from cloudtrain.core import disk
from cloudtrain.core.errors import RunError, UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import columns, counted, date_and_time, iso, money, percent, screen_safe, size
from cloudtrain.run_folder.files import read_attempts
from cloudtrain.run_folder.outcome import NOT_PULLED, Result, exit_code, lives, result
from cloudtrain.store import Run, Store

# Runs that `ls` shows besides those that live.
LATEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs a listing shows; None everywhere: all.

    Attributes:
        since: unix seconds; runs planned before then are left out.
    """

    model: int | None = None
    status: str | None = None
    where: str | None = None
    since: float | None = None

    WHERE: ClassVar = ("local", "host", "ec2", "rehearsal")
    STATUS: ClassVar = ("living", "parked", "kept", *(state.value for state in RunState), "done", "limit")

    @classmethod
    def of(cls, *, model: int | None, status: str | None, where: str | None, since: str | None) -> Filter:
        """A filter of words as typed.

        Raises:
            UsageError: a word that stands for nothing.
        """
        for flag, word, known in (("--status", status, cls.STATUS), ("--where", where, cls.WHERE)):
            if word is not None and word not in known:
                raise UsageError(f"{flag}: there is no {word!r}", hint=f"one of {', '.join(known)}", code="bad_setting")
        try:
            began = time.time() - duration(since) if since is not None else None
        except ValueError as error:
            raise UsageError(f"--since: {error}", hint="--since 3d", code="bad_setting") from error
        return cls(model=model, status=status, where=where, since=began)

    def takes(self, run: Run) -> bool:
        """Whether `run` is shown."""
        spec = run.plan.spec
        place = "rehearsal" if spec.rehearsal else spec.target.value
        return (
            self.model in (None, spec.train.model)
            and self.where in (None, place)
            and (self.since is None or run.created_at >= self.since)
            and (self.status is None or self.status in _words(run))
        )


def _words(run: Run) -> set[str]:
    """The words of `Filter.status` that hold for a run."""
    words = {run.state.value}
    if not run.state.final:
        words.add("living")
    if run.state is RunState.SUCCEEDED:
        words.add("done")
    if run.state is RunState.STOPPED and run.stop == "deadline":
        words.add("limit")
    if run.life is InstanceLife.PARKED:
        words.add("parked")
    if expiry.is_kept(run, time.time()):
        words.add("kept")
    return words


def latest(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Of `runs`, latest first: the latest 20 and each older one that lives or may be billed; how many are left out."""
    shown = [run for number, run in enumerate(runs) if number < LATEST or lives(run)]
    return shown, len(runs) - len(shown)


def table(runs: Iterable[Run]) -> list[str]:
    """The lines of `cloudtrain ls`."""
    now, runs = time.time(), list(runs)
    header = ("NAME", "MODEL", "WHERE", "STATUS", "TEST ACC", "COST", "AGE")
    rows, owing = [], []
    for run in runs:
        owing += [run] if owed(run) else []
        usd = cost(run, now)
        unbilled = "not billed" if run.plan.spec.rehearsal else "-"
        told = (run.name, str(run.plan.spec.train.model), where(run), status(run))
        # Until its end; more, if it has not ended.
        more = "+" if expiry.overdue_s(run, now) is not None else ""
        accuracy, spent = percent(run.progress.best_test_acc), money(usd) + more if usd is not None else unbilled
        rows.append((*told, accuracy, spent, age(now - run.created_at)))
    lines = columns(header, rows, right=(4, 5))
    lines += [f"{run.name}: {fetch(run)}" for run in runs if expiry.away(run)]
    overdue = [run for run in runs if expiry.overdue_s(run, now) is not None]
    lines += [f"{run.name}: its machine {expiry.overdue_words(run, now)}" for run in overdue]
    ended = [run for run in runs if run.life is InstanceLife.TERMINATED and not run.state.final]
    lines += [f"{run.name}: cloudtrain pull {run.name} tells what had come before its machine ended" for run in ended]
    interrupted = [run for run in runs if run.state is RunState.INTERRUPTED]
    lines += [f"{run.name}: {run.error.hint}" for run in interrupted if run.error and run.error.hint]
    lines += [f"{run.name}: {expiry.kept_hint(run)}" for run in runs if expiry.is_kept(run, now)]
    for run in owing:
        if (at := expiry.kept_until(run)) is not None:
            was = f"its machine was to end itself {date_and_time(at)}"
            lines.append(f"{run.name}: {was}; cloudtrain stop {run.name} confirms it")
        else:
            lines.append(f"{run.name} has ended, its instance may still be billed: cloudtrain stop {run.name}")
    return [screen_safe(line) for line in lines]


def fetch(run: Run) -> str:
    """What to do about a run whose machine has parked."""
    return f"its disk keeps the results; cloudtrain pull {run.name} starts the machine, fetches them and ends it"


def record(run: Run) -> dict[str, Any]:
    """One run for programs: points in time ISO 8601 UTC, money USD."""
    usd = cost(run, time.time())
    return {
        "name": run.name,
        "state": run.state.value,
        "status": status(run),
        "target": run.plan.spec.target.value,
        "where": where(run),
        "model": run.plan.spec.train.model,
        "seed": run.plan.spec.train.seed,
        "epoch": run.progress.epoch,
        "epochs": run.progress.epochs or run.plan.spec.train.epochs,
        "best_test_acc": run.progress.best_test_acc,
        "best_epoch": run.progress.best_epoch,
        "cost": None if usd is None else round(usd, 6),
        "rehearsal": run.plan.spec.rehearsal,
        "instance": {"life": run.life.value, "id": run.instance.id if run.instance else None},
        "ends_by": iso(expiry.expires_at(run)) if not run.state.final or expiry.is_kept(run, time.time()) else None,
        "kept_until": iso(expiry.kept_until(run)) if expiry.is_kept(run, time.time()) else None,
        "parked_per_day": run.plan.offer.details.parked_per_day if expiry.away(run) else None,
        "created": iso(run.created_at),
        "ended": iso(run.ended_at),
        "folder": str(run.folder),
        "exit_code": int(exit_code(run)),
        "error": failure.of_run(run.error, int(exit_code(run)), run.name, failure.kept(run.folder, run.life)),
    }


def where(run: Run) -> str:
    """Where a run trains, for people."""
    spec = run.plan.spec
    match spec.target:
        case Target.LOCAL:
            return "this computer"
        case Target.HOST:
            return spec.host.address if spec.host else "host"
    kind = run.instance.type if run.instance else run.plan.offer.candidates[0].type
    return f"{kind} (rehearsal)" if spec.rehearsal else kind


def status(run: Run) -> str:
    """How a run stands, for people, as far as this computer knows."""
    if expiry.is_kept(run, time.time()):
        return f"{_status(run)}, {expiry.kept_words(run, time.time())}"
    if expiry.kept_until(run) is not None:
        return f"{_status(run)}, its kept time is over"
    return f"{_status(run)}, instance may still run" if owed(run) else _status(run)


def owed(run: Run) -> bool:
    """Whether an ended run's machine should have ended and is not known to: the first thing to know of it."""
    return run.state.final and run.life.may_exist and not expiry.is_kept(run, time.time())


def _status(run: Run) -> str:
    if expiry.away(run):
        return _away(run)
    if expiry.overdue_s(run, time.time()) is not None:
        return "past its end, not confirmed"
    if run.life is InstanceLife.TERMINATED and not run.state.final:
        return "its machine has ended"
    if run.state is RunState.RUNNING:
        if ended_unseen(run):
            return "ended, not pulled yet"
        epoch, epochs = run.progress.epoch, run.progress.epochs
        return f"training {epoch}/{epochs}" if epoch and epochs else "training"
    if run.state is RunState.FAILED and run.ending:
        code = f"signal {run.ending.signal}" if run.ending.signal else f"exit {run.ending.code}"
        return f"failed ({code})"
    if run.state is RunState.STOPPED and run.stop == "deadline":
        return "ended by its limit"
    if run.error is not None and run.error.code == NOT_PULLED:
        return "stopped, not pulled"
    return "done" if run.state is RunState.SUCCEEDED else run.state.value


def _away(run: Run) -> str:
    """A run whose machine has parked."""
    usd = run.plan.offer.details.parked_per_day
    daily = f", {money(usd)} a day" if usd is not None and not run.plan.spec.rehearsal else ""
    return f"parked{daily}"


def ended_unseen(run: Run) -> bool:
    """Whether a local run has ended without anybody watching: a look at one file, no network."""
    if run.plan.spec.target is not Target.LOCAL:
        return False
    return (disk.state_dir() / "local" / "runs" / run.name / "exit.json").exists()


def age(seconds: float) -> str:
    """How long ago, roughly."""
    for unit, length in (("day", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{max(0, int(seconds))} s"


def page(run: Run, store: Store) -> list[str]:
    """The lines of `cloudtrain show`."""
    outcome = result(run, store.read_journal(run.name), time.time())
    started, epochs = _course(run)
    code = run.plan.code
    lines = [
        f"{run.name}: {status(run)}",
        f"  where    {where(run)}",
        f"  train    {', '.join(_settings(run, started))}",
        f"  code     {counted(code.files, 'file')}{f', git {code.git}' if code.git else ''}",
        f"  results  {shown_path(run.folder)}",
        *_story(run, store.read_journal(run.name)),
        *_machine(run),
        *_files_and_cost(run, outcome),
        *_error(run.error),
        *_results(epochs, outcome.metrics),
    ]
    if not run.state.final:
        lines += ["", f"follow it: cloudtrain logs {run.name}   end it: cloudtrain stop {run.name}"]
    return [screen_safe(line) for line in lines]


def _course(run: Run) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    """What the job told when it began, and of each epoch last."""
    started: dict[str, Any] = {}
    epochs: dict[int, Mapping[str, Any]] = {}
    for values in read_attempts(run.folder):
        if values.get("kind") == "start":
            started = dict(values)
        elif values.get("kind") == "epoch":
            epochs.pop(values["epoch"], None)
            epochs[values["epoch"]] = values
    return started, list(epochs.values())


def _settings(run: Run, started: Mapping[str, Any]) -> list[str]:
    train = run.plan.spec.train
    epochs = started.get("epochs") or train.epochs
    return [
        f"model {train.model}",
        counted(epochs, "epoch") if epochs else "? epochs",
        f"batch {started.get('batch_size') or train.batch_size or '?'}",
        f"recipe {started.get('recipe') or train.recipe or '?'}",
        f"seed {train.seed}",
        f"device {started.get('device_name') or started.get('device') or train.device}",
    ]


def _machine(run: Run) -> list[str]:
    """What becomes of its machine."""
    now = time.time()
    if expiry.away(run):
        return [f"  machine  {fetch(run)}"]
    if expiry.overdue_s(run, now) is not None:
        return [f"  machine  {expiry.overdue_words(run, now)}"]
    if expiry.is_kept(run, now):
        return [f"  machine  {expiry.kept_words(run, now)}, then it ends itself", f"           {expiry.kept_hint(run)}"]
    ends = expiry.expires_at(run)
    return [f"  machine  ends itself by {date_and_time(ends)}"] if ends is not None and not run.state.final else []


def _files_and_cost(run: Run, outcome: Result) -> list[str]:
    lines = []
    if outcome.artifacts:
        total = sum(entry.size for entry in outcome.artifacts)
        lines.append(f"  files    {len(outcome.artifacts)}, {size(total)}, checksums verified")
    if outcome.cost_usd is not None:
        more = " until its end; more, if it has not ended" if expiry.overdue_s(run, time.time()) is not None else ""
        lines.append(f"  cost     about {money(outcome.cost_usd)}{more}")
    elif run.plan.spec.rehearsal:
        real = f". The same time on EC2: about {money(outcome.rehearsed_usd)}" if outcome.rehearsed_usd else ""
        lines.append(f"  cost     nothing is billed: a rehearsal{real}")
    return lines


def _error(error: RunError | None) -> list[str]:
    if error is None:
        return []
    lines = [f"  error    {error.message} [{error.code}]"]
    lines += [f"           {error.detail}"] if error.detail else []
    return [*lines, f"  hint     {error.hint}"] if error.hint else lines


def _results(epochs: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> list[str]:
    lines = ["", EPOCH_HEADER, *(epoch_row(values) for values in epochs)] if epochs else []
    block = results_block(metrics)
    lines += ["", *block] if block else []
    goals = metrics.get("goals")
    if isinstance(goals, dict):
        lines.append("goals: " + ", ".join(f"{goal} {'met' if met else 'not met'}" for goal, met in goals.items()))
    return lines


def _story(run: Run, notes: RunNotes) -> list[str]:
    """What a run went on from, and the spot instances that were taken from it."""
    lines = []
    if run.plan.spec.resume is not None:
        lines.append(f"  resumed  from {run.plan.spec.resume.run}, {run.plan.spec.resume.where}")
    for over in notes.attempts:
        at = date_and_time(over.ended) if over.ended else "?"
        where = ", ".join(filter(None, (over.instance_type, over.zone)))
        lines.append(f"  spot     {over.instance_id} ({where}) was taken back {at}; log console.{over.n}.log")
    return lines
