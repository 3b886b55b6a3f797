"""Runs as rows, pages and records."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cloudtrain.billing import expiry
from cloudtrain.billing.cost import cost
from cloudtrain.console import colour as colours
from cloudtrain.console.pages import failure, figures
from cloudtrain.console.table import fitted_table
from cloudtrain.console.text import NARROW, epoch_header, epoch_row, results_block, shown_path, verdicts
from cloudtrain.core import disk, secrets
from cloudtrain.core.errors import RunError
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import an_hour, counted, date_and_time, fitted, iso, money, screen_safe, size
from cloudtrain.core.told import ExitRecord
from cloudtrain.run_folder.figures import read
from cloudtrain.run_folder.files import read_attempts
from cloudtrain.run_folder.outcome import NOT_PULLED, Result, exit_code, result
from cloudtrain.store import Run, Store

_HANG = 11  # what follows "  where    "
# What was heard within so many seconds is as of now.
FRESH_S = 10.0
# Columns of the table as they give way on a narrow screen, each with the room for a status that is worth it: age,
# where, model; then the accuracy, then the cost.
_GIVE_WAY = ((6, 32), (2, 32), (1, 32), (4, 16), (5, 16))


def table(
    runs: Iterable[Run], *, width: int | None = None, colour: bool = False, silent: Mapping[str, str] | None = None
) -> list[str]:
    """The lines of `cloudtrain ls`.

    Args:
        width: of the screen; None: a line may be as long as it is.
        silent: of runs whose machine was asked and did not answer, by name, why.
    """
    now, runs, silent = time.time(), [_seen(run) for run in runs], silent or {}
    (what, whats), (figure, figured) = figures.whats(runs), figures.cells(runs)
    header = ("NAME", what, "WHERE", "STATUS", figure, "COST", "AGE")
    rows, owing = [], []
    for run, trains, newest in zip(runs, whats, figured, strict=True):
        owing += [run] if owed(run) else []
        usd = cost(run, now)
        unbilled = "not billed" if run.plan.spec.rehearsal else "-"
        told = (run.name, trains, where(run), standing(run, now, silent=run.name in silent))
        # Until its end; more, if it has not ended.
        more = "+" if expiry.overdue_s(run, now) is not None else ""
        spent = money(usd) + more if usd is not None else unbilled
        rows.append(tuple(screen_safe(cell) for cell in (*told, newest, spent, age(now - run.created_at))))
    lines = [f"{run.name}: {fetch(run)}" for run in runs if expiry.away(run)]
    overdue = [run for run in runs if expiry.overdue_s(run, now) is not None]
    lines += [f"{run.name}: its machine {expiry.overdue_words(run, now)}" for run in overdue]
    late = [run for run in runs if expiry.late_s(run, now) is not None]
    lines += [f"{run.name}: {expiry.late_words(run, now)}" for run in late]
    lines += [f"{run.name}: no answer: {silent[run.name]}" for run in runs if run.name in silent]
    ended = [run for run in runs if run.life is InstanceLife.TERMINATED and not run.state.final]
    lines += [f"{run.name}: cloudtrain pull {run.name} shows what had come before its machine ended" for run in ended]
    interrupted = [run for run in runs if run.state is RunState.INTERRUPTED]
    lines += [f"{run.name}: {run.error.hint}" for run in interrupted if run.error and run.error.hint]
    lines += [f"{run.name}: {expiry.kept_hint(run)}" for run in runs if expiry.is_kept(run, now)]
    for run in owing:
        if (at := expiry.kept_until(run)) is not None:
            was = f"its machine was to end itself {date_and_time(at)}"
            lines.append(f"{run.name}: {was}; cloudtrain stop {run.name} confirms it")
        else:
            lines.append(f"{run.name} has ended, its instance may still be billed: cloudtrain stop {run.name}")
    styles = [_style(run) for run in runs] if colour else []
    head = fitted_table(header, rows, width, long=3, gives_way=_GIVE_WAY, right=(4, 5), styles=styles)
    return [*head, *fitted([screen_safe(line) for line in lines], width)]


def spending(runs: Iterable[Run], silent: Collection[str], now: float) -> str:
    """What the machines of `runs` cost that may be up: "2 machines run: $1.07 an hour, $0.43 so far"; and parked ones.

    Args:
        silent: names of those that were asked and did not answer.
    """
    rehearsed = [run for run in runs if run.plan.spec.rehearsal and run.life.may_be_up]
    billed = [run for run in runs if run.life.may_exist and not run.plan.spec.rehearsal]
    up, parked = [run for run in billed if run.life.may_be_up], [run for run in billed if not run.life.may_be_up]
    hourly = sum((run.instance or run.plan).price_per_hour or 0.0 for run in up)
    unsure = any(run.name in silent or owed(run) or expiry.overdue_s(run, now) is not None for run in up)
    verb = "may run" if unsure else "runs" if len(up) == 1 else "run"
    spent = sum(cost(run, now) or 0.0 for run in up)
    told = "no machine is billed by the hour"
    if up:
        told = f"{counted(len(up), 'machine')} {verb}: ${hourly:.2f} an hour, {money(spent)} so far"
    daily = sum(run.plan.offer.details.parked_per_day or 0.0 for run in parked)
    told += f"; {counted(len(parked), 'parked disk')}: {money(daily)} a day" if parked else ""
    return told + (f"; {counted(len(rehearsed), 'rehearsal')}, not billed" if rehearsed else "")


def fetch(run: Run) -> str:
    """What to do about a run whose machine has parked."""
    if run.error is not None and run.error.hint:
        return f"{run.error.message}; {run.error.hint}"
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
        "model": None if run.plan.spec.job.command else run.plan.spec.train.model,
        "what": figures.what(run),
        "seed": run.plan.spec.train.seed,
        "epoch": run.progress.epoch,
        "epochs": run.progress.epochs or run.plan.spec.train.epochs,
        "best_test_acc": run.progress.best_test_acc,
        "best_epoch": run.progress.best_epoch,
        "figure": asdict(run.progress.figure) if run.progress.figure else None,
        "cost": None if usd is None else round(usd, 6),
        "rehearsal": run.plan.spec.rehearsal,
        "instance": {"life": run.life.value, "id": run.instance.id if run.instance else None},
        "ends_by": iso(expiry.expires_at(run)) if not run.state.final or expiry.is_kept(run, time.time()) else None,
        "kept_until": iso(expiry.kept_until(run)) if expiry.is_kept(run, time.time()) else None,
        "parked_per_day": run.plan.offer.details.parked_per_day if expiry.away(run) else None,
        "as_of": None if run.state.final else iso(run.updated_at),
        "created": iso(run.created_at),
        "ended": iso(run.ended_at),
        "folder": str(run.folder),
        "exit_code": int(exit_code(run)),
        "error": failure.of_run(run.error, int(exit_code(run)), run.name, failure.kept(run.folder, run.life)),
    }


def where(run: Run) -> str:
    """Where a run trains, human-readable."""
    spec = run.plan.spec
    match spec.target:
        case Target.LOCAL:
            return "this computer"
        case Target.HOST:
            return spec.host.address if spec.host else "host"
    kind = run.instance.type if run.instance else run.plan.offer.candidates[0].type
    return f"{kind} (rehearsal)" if spec.rehearsal else kind


def status(run: Run) -> str:
    """How a run stands, in words, as far as this computer knows."""
    return _status(_seen(run))


def _status(run: Run) -> str:
    if expiry.is_kept(run, time.time()):
        return f"{_state(run)}, {expiry.kept_words(run, time.time())}"
    if expiry.kept_until(run) is not None:
        return f"{_state(run)}, its kept time is over"
    return f"{_state(run)}, instance may still run" if owed(run) else _state(run)


def standing(run: Run, now: float, *, silent: bool = False) -> str:
    """How a run stands and, where it may stand otherwise by `now` (unix seconds), when that was heard.

    Args:
        run: as `_seen` gives it.
        silent: its machine was asked just now, and did not answer.
    """
    words, since = _status(run), now - run.updated_at
    if silent:
        return f"{words}, no answer; as of {age(since)} ago"
    # That something should have ended is so now, that it has ended is so for good.
    over = run.state.final or run.life is InstanceLife.TERMINATED or _ended_there(run)
    sure = over or expiry.overdue_s(run, now) is not None or expiry.late_s(run, now) is not None
    return words if sure or since < FRESH_S else f"{words}, as of {age(since)} ago"


def _style(run: Run) -> str:
    """The colour of how a run stands; its words say the same."""
    now = time.time()
    may_be_billed = owed(run) or expiry.overdue_s(run, now) is not None or expiry.late_s(run, now) is not None
    if may_be_billed or run.state in (RunState.FAILED, RunState.LOST):
        return colours.BAD
    if not run.state.final:
        waits = _ended_there(run) or run.life is InstanceLife.TERMINATED or expiry.away(run)
        return colours.HEED if waits else colours.LIVES
    if expiry.is_kept(run, now) or run.state is RunState.INTERRUPTED:
        return colours.HEED
    return colours.WELL if run.state is RunState.SUCCEEDED else ""


def owed(run: Run) -> bool:
    """Whether an ended run's machine should have ended and is not known to: the first thing to know of it."""
    return run.state.final and run.life.may_exist and not expiry.is_kept(run, time.time())


def _state(run: Run) -> str:
    if expiry.away(run):
        return _away(run)
    if expiry.overdue_s(run, time.time()) is not None:
        return "past its end, not confirmed"
    if run.life is InstanceLife.TERMINATED and not run.state.final:
        return "its machine has ended"
    if run.state is RunState.RUNNING:
        if _ended_there(run):
            return "ended, not pulled yet"
        if expiry.late_s(run, time.time()) is not None:
            return "past its limit, not confirmed"
        epoch, epochs = run.progress.epoch, run.progress.epochs
        return f"training {epoch}/{epochs}" if epoch and epochs else "training"
    if run.state is RunState.PROVISIONING and run.life.may_be_up and not run.plan.spec.rehearsal:
        return f"{run.state.value}{an_hour(run.plan.offer.dearest, ', at most ')}"
    if run.state in (RunState.BOOTING, RunState.SYNCING) and run.instance is not None and run.instance.owned:
        return f"{run.state.value} {_named(run, run.instance)}"
    if run.state is RunState.PULLING and run.error is not None:
        return "ended, not all pulled"
    if run.state is RunState.FAILED and run.ending:
        code = f"signal {run.ending.signal}" if run.ending.signal else f"exit {run.ending.code}"
        return f"failed ({code})"
    if run.state is RunState.STOPPED and run.stop == "deadline":
        return "ended by its limit"
    if run.error is not None and run.error.code == NOT_PULLED:
        return "stopped, not pulled"
    return "done" if run.state is RunState.SUCCEEDED else run.state.value


def _named(run: Run, instance: Instance) -> str:
    """ "i-0a1b, $0.526 an hour"."""
    return instance.id + an_hour(None if run.plan.spec.rehearsal else instance.price_per_hour, ", ")


def _away(run: Run) -> str:
    """A run whose machine has parked."""
    usd = run.plan.offer.details.parked_per_day
    daily = f", {money(usd)} a day" if usd is not None and not run.plan.spec.rehearsal else ""
    return f"parked{daily}"


def _ended_there(run: Run) -> bool:
    """Whether a run that is not pulled yet has ended: its host has said so, or this computer sees it."""
    return run.state is RunState.RUNNING and run.ending is not None


def _seen(run: Run) -> Run:
    """`run`, with the end of a local one that nobody has watched: a look at one file, no network."""
    if run.state is not RunState.RUNNING or run.plan.spec.target is not Target.LOCAL or run.ending is not None:
        return run
    folder, marked = disk.state_dir() / "local" / "runs", f"{run.name}-{'[0-9a-f]' * 8}"
    ends = [folder / run.name / "exit.json", *folder.glob(f"{marked}/exit.json")]
    # Of an earlier run of this name another registry may have known.
    ended = any(end.exists() and end.stat().st_mtime >= run.created_at for end in ends)
    return replace(run, ending=ExitRecord()) if ended else run


def age(seconds: float) -> str:
    """How long ago, roughly."""
    for unit, length in (("day", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{max(0, int(seconds))} s"


def page(run: Run, store: Store, width: int | None = None) -> list[str]:
    """The lines of `cloudtrain show`, on a screen of so many columns (None: a line may be as long as it is)."""
    run, notes = _seen(run), store.read_journal(run.name)
    outcome = result(run, notes, time.time())
    started, epochs = _course(run)
    code = run.plan.code
    facts = [
        f"  where    {where(run)}",
        f"  train    {', '.join(_settings(run, started))}",
        f"  code     {counted(code.files, 'file')}{f', git {code.git}' if code.git else ''}",
        f"  results  {shown_path(run.folder)}",
        *_story(run, notes),
        *_secrets(run),
        *_machine(run),
        *_files_and_cost(run, outcome),
        *_error(run.error),
    ]
    lines = fitted([screen_safe(f"{run.name}: {standing(run, time.time())}")], width)
    lines += fitted(map(screen_safe, facts), width, _HANG)
    lines += fitted(map(screen_safe, _results(run, epochs, outcome.metrics, width or NARROW)), width)
    if not run.state.final:
        ways = [f"follow it: cloudtrain logs {run.name}", f"end it: cloudtrain stop {run.name}"]
        both = "   ".join(ways)
        # Commands to copy: none is broken where two lines will do.
        lines += ["", *([both] if width is None or len(both) <= width else ways)]
    return lines


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
    if run.plan.spec.job.command:
        return [figures.what(run)]
    epochs = started.get("epochs") or train.epochs
    return [
        f"model {train.model}",
        counted(epochs, "epoch") if epochs else "? epochs",
        f"batch {started.get('batch_size') or train.batch_size or '?'}",
        f"recipe {started.get('recipe') or train.recipe or '?'}",
        f"seed {train.seed}",
        f"device {started.get('device_name') or started.get('device') or train.device}",
    ]


def _secrets(run: Run) -> list[str]:
    """Which its job got, and whether its log gives one away."""
    found = secrets.places(run.ending.secrets) if run.ending else ""
    told = f"; its console log holds {found}, which logs and reports hide" if found else ""
    return [f"  secrets  {', '.join(run.plan.spec.job.secrets)}{told}"] if run.plan.spec.job.secrets else []


def _machine(run: Run) -> list[str]:
    """What becomes of its machine."""
    now = time.time()
    if expiry.away(run):
        return [f"  machine  {fetch(run)}"]
    if expiry.overdue_s(run, now) is not None:
        return [f"  machine  {expiry.overdue_words(run, now)}"]
    if expiry.is_kept(run, now):
        return [f"  machine  {expiry.kept_words(run, now)}, then it ends itself", f"           {expiry.kept_hint(run)}"]
    if expiry.late_s(run, now) is not None:
        return [f"  limit    {expiry.late_words(run, now)}"]
    ends, instance = expiry.expires_at(run), run.instance
    if ends is None or instance is None or run.state.final:
        return []
    return [f"  machine  {_named(run, instance)}, ends itself by {date_and_time(ends)}"]


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
    lines += [f"           {part}" for part in (error.detail or "").splitlines()]
    return [*lines, f"  hint     {error.hint}"] if error.hint else lines


def _results(run: Run, epochs: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], width: int) -> list[str]:
    columns = {"train_acc", "test_loss", "test_acc"} & {name for values in epochs for name in values}
    shipped = run.plan.spec.job.shipped
    table = ["", epoch_header(width), *(epoch_row(values, width) for values in epochs)]
    lines = table if columns or (epochs and shipped) else []
    if not shipped:
        told = read(run.folder, run.plan.spec.job.figures)
        others = figures.table(told, [one for one in told.curves() if one.name not in columns])
        lines += ["", *others] if others else []
    block = results_block(metrics)
    lines += ["", *block] if block else []
    goals = metrics.get("goals")
    if isinstance(goals, dict):
        lines.append(f"goals: {verdicts(goals)}")
    return lines


def _story(run: Run, notes: RunNotes) -> list[str]:
    """What a run went on from, and the spot instances that were taken from it."""
    lines = []
    if run.plan.spec.resume is not None:
        lines.append(f"  resumed  from {run.plan.spec.resume.run}, {run.plan.spec.resume.where}")
    if notes.handed_to is not None:
        lines.append(f"  machine  taken over by {notes.handed_to}")
    for over in notes.attempts:
        at = date_and_time(over.ended) if over.ended else "?"
        where = ", ".join(filter(None, (over.instance_type, over.zone)))
        lines.append(f"  spot     {over.instance_id} ({where}) was taken back {at}; log console.{over.n}.log")
    return lines
