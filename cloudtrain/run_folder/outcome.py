"""How a run stands or has ended: result, exit code, cost. From the registry and the run's folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudtrain.billing.cost import cost, would_cost
from cloudtrain.core.decode import brief
from cloudtrain.core.errors import RECLAIMED, ExitCode, RunError
from cloudtrain.core.figures import Figure
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import EVENTS, ExitRecord, read_events
from cloudtrain.store import Run

NOT_PULLED = "not_pulled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run stands when the story returns.

    Attributes:
        metrics: the job's own `result` event, or what is known of its last epoch.
        figure: what stands for a job that is not the shipped one, see `Figures`; also among `metrics`.
        artifacts: files in `folder` whose sha256 was verified against the host's manifest.
        seconds: from the plan to the end.
        cost_usd: None where nothing is billed.
        rehearsed_usd: what the same time on the real instance costs; None but in a rehearsal.
        leftovers: what the run still has in the account, human-readable; empty: nothing.
        left: results that are not here because they could not be taken, or were not wanted in the end.
        elsewhere: how many of the job's files were passed over; None: nobody has asked for any.
    """

    run: str
    state: RunState
    exit_code: ExitCode
    folder: Path
    metrics: Mapping[str, Any] = field(default_factory=dict)
    figure: Figure | None = None
    artifacts: tuple[FileEntry, ...] = ()
    seconds: float = 0.0
    cost_usd: float | None = None
    rehearsed_usd: float | None = None
    leftovers: tuple[str, ...] = ()
    left: tuple[FileEntry, ...] = ()
    elsewhere: int | None = 0
    life: InstanceLife = InstanceLife.NONE
    error: RunError | None = None


def result(run: Run, notes: RunNotes, now: float) -> Result:
    """How `run` stands at `now` (unix seconds), from its row, its journal's `notes` and its folder alone."""
    metrics = brief(run.progress)
    for values in read_events(run.folder / EVENTS):
        if values.get("kind") == "result":
            metrics.update({k: v for k, v in values.items() if k not in ("v", "t", "kind")})
    billed = cost(run, now)
    return Result(
        run=run.name,
        state=run.state,
        exit_code=exit_code(run),
        folder=run.folder,
        metrics=metrics,
        figure=run.progress.figure,
        artifacts=notes.pulled or (),
        seconds=(run.ended_at or now) - run.created_at,
        cost_usd=billed,
        rehearsed_usd=would_cost(run, now) if billed is None else None,
        leftovers=notes.leftovers,
        left=notes.left,
        elsewhere=None if notes.pulled is None else notes.passed_over,
        life=run.life,
        error=run.error,
    )


def lives(run: Run) -> bool:
    """Whether there is something of `run` to end: it has not ended, or its machine may be up though it has."""
    return not run.state.final or run.life.may_exist


def exit_code(run: Run) -> ExitCode:
    """The exit code of a command that followed `run` to where it stands."""
    match run.state:
        case RunState.SUCCEEDED:
            return ExitCode.DONE
        case RunState.STOPPED:
            return ExitCode.LIMIT if run.stop and run.stop != "user" else ExitCode.INTERRUPTED
        case RunState.INTERRUPTED:
            return ExitCode.LIMIT
        case RunState.LOST:
            return ExitCode.CONNECTION
        case RunState.FAILED if run.ending is not None:
            return ExitCode.TRAINING_FAILED
        case RunState.FAILED:
            return run.error.exit if run.error and run.error.exit is not None else ExitCode.UNEXPECTED
    return ExitCode.STILL_RUNNING


_LOGOUT = "its host ends what a login has started with that login: KillUserProcesses"
_LINGER = "once, on the host: loginctl enable-linger"


def ending(run: Run) -> tuple[RunState, RunError | None]:
    """The final state that the host's exit record stands for, and the error to show with it."""
    record = run.ending or ExitRecord()
    if record.state != "exited":
        cause, mend = "killed, or the machine went down", ""
        if record.logout:
            cause, mend = _LOGOUT, f"; {_LINGER}"
        return RunState.LOST, RunError(
            code="run_lost",
            message=f"{run.name} was lost: its supervisor ended without a record ({cause})",
            hint=f"what could be saved is in {run.folder}{mend}",
        )
    if record.stop == "spot":
        # A job may end well for having saved: only what it told counts as its end.
        if record.code == 0 and any(values.get("kind") == "result" for values in read_events(run.folder / EVENTS)):
            return RunState.SUCCEEDED, None
        return RunState.INTERRUPTED, RunError(code=RECLAIMED, message=f"the spot instance of {run.name} was taken back")
    if record.stop == "shutdown" and record.logout:
        return RunState.STOPPED, RunError(
            code="machine_ended",
            message=f"{run.name} was ended: {_LOGOUT}",
            hint=f"{_LINGER}; then cloudtrain run --resume {run.name} goes on from what of it is here",
        )
    if record.stop:
        code, why = {
            "user": ("stopped", "was stopped"),
            "deadline": ("limit_reached", "was ended by its time limit"),
        }.get(record.stop, ("machine_ended", "was ended with its machine, which was shut down"))
        return RunState.STOPPED, RunError(code=code, message=f"{run.name} {why}")
    if record.code == 0:
        return RunState.SUCCEEDED, None
    told = [values for values in read_events(run.folder / EVENTS) if values.get("kind") == "error"]
    where = f" in epoch {run.progress.epoch}" if run.progress.epoch else ""
    how, mends = _how(record)
    log = f"the whole log: cloudtrain logs {run.name}"
    error = RunError(
        code="training_failed",
        message=f"training failed{where} with {how}",
        hint=f"{mends}; {log}" if mends else log,
    )
    if told:
        said = {key: str(told[-1].get(key) or "") for key in ("message", "code", "hint")}
        error = replace(error, detail=said["message"], cause=said["code"], hint=said["hint"] or error.hint)
    return RunState.FAILED, error


_MORE_MEMORY = "a smaller batch, fewer workers, or a machine with more memory"


def _how(record: ExitRecord) -> tuple[str, str | None]:
    """How a job ended by itself that failed, with the usual cause, and what helps against that."""
    short = (record.oom_kills or 0) > 0
    if not record.signal:
        code = f"exit code {record.code}"
        if short:
            return f"{code}: meanwhile the kernel there ended a process for lack of memory", _MORE_MEMORY
        return code, None
    name = record.signal_name
    told = f"signal {record.signal}" + (f" ({name})" if name else "")
    if name == "SIGKILL" and short:
        return f"{told}: the memory there ran out, and the kernel ended it", _MORE_MEMORY
    if name == "SIGKILL" and record.oom_kills == 0:
        return f"{told}: something there killed it; the kernel reports no lack of memory", None
    if name == "SIGKILL":
        return f"{told}: usually sent by the kernel when memory runs out", _MORE_MEMORY
    if name == "SIGBUS":
        mends = "fewer workers that load data, or a larger /dev/shm"
        return f"{told}: usually because /dev/shm is full, where processes share memory", mends
    if name == "SIGSEGV":
        return f"{told}: a fault in a library or driver that is not written in Python", None
    return told, None


def stopped(run: Run) -> RunError:
    """The `error` of a run that was ended on request."""
    return RunError(code="stopped", message=f"{run.name} was stopped")


def discarded(run: Run, notes: RunNotes) -> bool:
    """Whether a run's end was asked for without a pull. A job that had ended by itself is pulled all the same."""
    return notes.no_pull and run.stop == "user"


def not_pulled(run: Run, onward: str | None) -> RunError:
    """The `error` of a run that was ended on request without a pull; `onward`: see `checkpoints.onward`."""
    told = RunError(code="not_pulled", message=f"{run.name} was stopped; its results were not pulled, as you asked")
    here = f"what had come down before is in {run.folder}"
    if run.instance is None or not run.instance.owned:
        kept, hint = (
            "nothing was deleted: the results are still on the machine",
            f"cloudtrain pull {run.name} fetches them",
        )
        return replace(told, consequence=kept, hint=hint)
    if run.life is InstanceLife.RUNNING:
        kept, hint = f"{here}; the end of its machine is not confirmed", f"cloudtrain stop {run.name} tries again"
        return replace(told, consequence=kept, hint=hint)
    kept, hint = f"{here}; the rest was deleted with the machine", f"cloudtrain rerun {run.name} starts over"
    return replace(told, consequence=kept, hint=onward or hint)
