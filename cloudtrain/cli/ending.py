"""What `cloudtrain stop` does: one run or all of them ended, and what was lost or kept said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cloudtrain.billing import expiry, running
from cloudtrain.cleanup import debts
from cloudtrain.cli import following, leaving, signals, standing
from cloudtrain.console.answer import Answer
from cloudtrain.console.pages import failure, stopping
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core.errors import Busy, CloudtrainError, ExitCode
from cloudtrain.core.events import Noted, Warned, discard
from cloudtrain.core.notes import FileEntry
from cloudtrain.core.states import RunState
from cloudtrain.lifecycle import fetch_results, takeover
from cloudtrain.lifecycle import pull as lifecycle_pull
from cloudtrain.lifecycle import stop as lifecycle_stop
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder import outcome
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run, Store

# What is not pulled yet is looked up for so long, in seconds; a machine that does not answer is ended all the same.
LOOK_S = 20.0
UNCHANGED = "nothing was changed"


def stop_one(row: Run, store: Store, reporter: Reporter, *, keep_s: float, pull: bool, yes: bool) -> int:
    """End one run, if the user agrees; the exit code. `keep_s`: seconds for which its machine is kept up."""
    context = following.context(store, reporter)
    if keep_s:
        lifecycle_stop.check_keep(row)
    if pull:
        fetch_results.check_decided(row, store.read_journal(row.name))
    if row.state.final and expiry.kept_until(row) is None:
        taker = takeover.holder(row, store)
        went = f"; its machine was taken over by {taker}: cloudtrain stop {taker} ends that" if taker else ""
        reporter.emit(Noted(f"{row.name} has already ended ({row.state.value}){went}"))
    else:
        if not pull:
            _say_losses(row, context, reporter)
        asked = stopping.question(row, keep_s=keep_s, pull=pull)
        otherwise = "add --yes" if pull else "add --yes to end it without what is named above"
        if not yes and not reporter.ask(asked, default=pull, otherwise=otherwise):
            reporter.emit(Noted(UNCHANGED))
            return int(ExitCode.DONE)
    _pay_others(row, store, reporter)
    reporter.own_exit = ExitCode.DONE
    return leaving.stopped(row, context, reporter, keep_s=keep_s, pull=pull)


def stop_all(store: Store, reporter: Reporter, *, pull: bool, yes: bool) -> Answer | int:
    """Every run that lives, each whatever became of the others; its error is the one that matters most."""
    context = following.context(store, reporter)
    damaged: list[CloudtrainError] = []
    rows = [run for run in store.runs(damaged.append) if outcome.lives(run)]
    for error in damaged:
        reporter.emit(Warned(f"{error.message}; whether it is up is not known", hint="cloudtrain clean finds machines"))
    if not rows:
        reporter.emit(Noted("this computer knows no active run: nothing to end"))
    elif not _agreed(rows, context, reporter, pull=pull, yes=yes):
        reporter.emit(Noted(UNCHANGED))
        return int(ExitCode.DONE)
    told: list[tuple[Run | Result, CloudtrainError | None]] = []
    for number, row in enumerate(rows):
        try:
            ended = _end(row, context, reporter, pull=pull)
        except (KeyboardInterrupt, signals.Leave):
            left = [store.get(run.name) for run in rows[number:]]
            for one in left:
                reporter.emit(Noted(leaving.stands(one, context)))
            raise Busy(
                f"interrupted; not ended: {', '.join(one.name for one in left)}",
                hint="cloudtrain stop --all goes on",
                consequence="the state of each is shown above",
                code="still_running",
            ) from None
        told.append(_tell(row, ended, store, reporter))
    if rows:
        done = sum(1 for _, error in told if error is None)
        reporter.remark(Noted(f"{done} of {len(rows)} ended" + ("" if done == len(rows) else "; cloudtrain ls")))
    fates = [_fate(row.name, stands, error) for row, (stands, error) in zip(rows, told, strict=True)]
    return Answer(
        lambda: {"runs": fates, "billing": running.now()},
        error=max((*(error for _, error in told if error), *damaged), key=_weight, default=None),
        said=True,
    )


def _agreed(rows: Sequence[Run], context: Context, reporter: Reporter, *, pull: bool, yes: bool) -> bool:
    """Whether the user wants these runs ended, having seen what they are and what is lost."""
    for line in () if yes else stopping.table(rows):
        reporter.emit(Noted(line))
    for row in () if pull else rows:
        _say_losses(row, context, reporter)
    what = "pull their results and end" if pull else "end, without pulling,"
    count = "this run" if len(rows) == 1 else f"these {len(rows)} runs"
    return yes or reporter.ask(f"Stop, {what} {count}?", default=pull)


def _end(row: Run, context: Context, reporter: Reporter, *, pull: bool) -> Result | CloudtrainError:
    """End one of several runs. What went wrong is returned: it keeps no other from being ended."""
    store = context.store
    reporter.about(row, lambda: store.get(row.name))
    try:
        _pay_others(row, store, reporter)
        with standing.told(row.name, store):
            return lifecycle_stop.stop(row, context) if pull else lifecycle_stop.discard(row, context)
    except CloudtrainError as error:
        return error
    except Exception as error:  # whatever it is: the other runs are to be ended all the same
        why = f"something unexpected happened: {type(error).__name__}: {error}"
        return CloudtrainError(why, hint=f"cloudtrain stop {row.name} tries again")


def _tell(
    row: Run, ended: Result | CloudtrainError, store: Store, reporter: Reporter
) -> tuple[Run | Result, CloudtrainError | None]:
    """Report on one of several runs; how it stands, and why it could not be ended."""
    if isinstance(ended, CloudtrainError):
        for line in failure.lines(ended):
            reporter.remark(Noted(f"{row.name}: {line}"))
        return store.get(row.name), ended
    leaving.write_report(ended, store, reporter)
    reporter.one_of(ended)
    return ended, None


def _fate(run: str, stands: Result | Run, error: CloudtrainError | None) -> dict[str, Any]:
    """What has become of a run, as `runs` of the result: how it stands, and why it could not be ended."""
    return {
        "run": run,
        "exit": int(error.exit_code) if error else 0,
        "state": stands.state.value,
        "life": stands.life.value,
        "error": failure.record(error) if error else None,
    }


def _weight(error: CloudtrainError) -> tuple[bool, int]:
    """What matters most: a machine that may be running, then whatever has failed."""
    return error.exit_code is ExitCode.CONNECTION, int(error.exit_code)


def _say_losses(row: Run, context: Context, reporter: Reporter) -> None:
    """Say what a run would lose that ends without a pull."""
    if not row.state.trains:
        return
    missing, why = _look(row, context)
    for line in stopping.losses(row, missing, why, context.store.read_journal(row.name)):
        reporter.emit(Warned(f"{row.name}: {line}"))


def _look(row: Run, context: Context) -> tuple[list[FileEntry] | None, str]:
    """What a run has finished that is not here, or why that cannot be told: in a moment, whatever its machine does."""
    if row.state is RunState.PULLING and (left := context.store.read_journal(row.name).left):
        return fetch_results.spoilt(row, left), ""
    try:
        look = partial(lifecycle_pull.missing, row, replace(context, emit=discard))
        return following.in_a_moment(look, LOOK_S), ""
    except CloudtrainError as error:
        return None, error.message


def _pay_others(row: Run, store: Store, reporter: Reporter) -> None:
    """A command that talks to AWS ends what other runs still owe, and takes on what a killed one left of this run."""
    debts.settle_beside(row.plan.spec, store, reporter.emit, skip=row.name)
    debts.admit(row, store)
