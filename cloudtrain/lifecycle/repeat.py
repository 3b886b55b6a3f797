"""The same run once more, or the rest of it, from its own record: settings, seed, target and the very code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import Checkpoint, RunNotes, SentCode
from cloudtrain.core.spec import ResumeSpec, RunSpec, TrainSpec, check_train
from cloudtrain.core.states import RunState
from cloudtrain.lifecycle import checkpoints, put_back
from cloudtrain.run_folder import code_copy
from cloudtrain.run_folder.files import read_attempts
from cloudtrain.source import tree
from cloudtrain.store import Run, Store


@dataclass(frozen=True, slots=True)
class Repetition:
    """What to start.

    Attributes:
        origin: for the new run's receipt (`rerun_of`): name and id of the run that is repeated.
        code_from: human-readable: where the code is taken from.
    """

    spec: RunSpec
    origin: Mapping[str, Any]
    code_from: str


def repetition(run: Run, store: Store, name: str) -> Repetition:
    """A run called `name` that repeats `run`.

    Raises:
        UsageError: the code that it ran is no longer available (code `no_code`).
    """
    notes = store.read_journal(run.name)
    source, told = source_of(run, notes.code or SentCode())
    spec = run.plan.spec
    ec2 = spec.ec2
    if ec2 is not None:
        # Where it ran then, whatever Region this shell has now; on a machine of its own.
        ec2 = replace(ec2, region=ec2.region or run.plan.offer.details.region, from_run=None)
    # From its first step on: what it had gone on from is another run's, and changes nothing of what comes out.
    spec = replace(spec, name=name, job=replace(spec.job, source=str(source)), ec2=ec2, resume=None)
    return Repetition(spec, {"name": run.name, "id": notes.id}, told)


@dataclass(frozen=True, slots=True)
class Continuation:
    """The rest of a run, as a run of its own.

    Attributes:
        spec: what is to be started, on the target of the run that is continued.
        notes: for the new run's journal (`resumed_from` of its receipt).
        checkpoint: None: a command, which goes on from its results (`put_back` of the notes).
        folder: where the checkpoint lies.
        code_from: human-readable: where the code is taken from.
    """

    spec: RunSpec
    checkpoint: Checkpoint | None
    folder: Path
    code_from: str
    notes: RunNotes = field(default_factory=RunNotes)


def continuation(run: Run, store: Store, name: str) -> Continuation:
    """A run called `name` that goes on from the checkpoint of `run`, or, of a command, from its results.

    Raises:
        UsageError: `run` has finished (code `finished`) or is still going on (`still_running`), no checkpoint of it is
            here (`no_checkpoint`), or the code that it ran is no longer available (`no_code`).
    """
    if run.state is RunState.SUCCEEDED:
        raise _not_resumed(f"{run.name} has finished: there is nothing left to train", f"rerun {run.name}", "finished")
    if not run.state.final:
        message = f"{run.name} has not ended ({run.state.value}), as far as this computer knows"
        raise _not_resumed(message, f"logs {run.name}", "still_running")
    notes = store.read_journal(run.name)
    back = put_back.of(run, notes, checked=True)
    checkpoint = checkpoints.latest(run, notes) if back is None else None
    if checkpoint is None and back is None:
        what = "result" if run.plan.spec.job.command else "checkpoint"
        message = f"no {what} of {run.name} is here, or it is not what its host had"
        raise _not_resumed(message, f"rerun {run.name}", "no_checkpoint")
    again = repetition(run, store, name)
    told = put_back.where(back, again.spec.job) if back else checkpoint.where() if checkpoint else ""
    resume = ResumeSpec(run=run.name, where=told)
    spec = replace(again.spec, train=_as_it_was(run), resume=resume)
    if spec.ec2 is not None:
        spec = replace(spec, ec2=replace(spec.ec2, faults=()))
    origin = {**again.origin, **({"checkpoint": asdict(checkpoint)} if checkpoint else {})}
    own = RunNotes(resumed_from=origin) | (RunNotes(put_back=back) if back else RunNotes())
    return Continuation(spec, checkpoint, run.folder, again.code_from, own)


def _as_it_was(run: Run) -> TrainSpec:
    """What was trained, with what the shipped job decided by itself: on another device it might decide otherwise, and
    refuse the checkpoint."""
    train = run.plan.spec.train
    if not run.plan.spec.job.shipped:
        return train
    started: Mapping[str, Any] = {}
    for event in read_attempts(run.folder):
        if event.get("kind") == "start":
            started = event
    told = {key: started.get(key) for key in ("recipe", "epochs", "batch_size", "lr")}
    decided = {key: value for key, value in told.items() if value is not None and getattr(train, key) is None}
    try:
        return check_train(replace(train, **decided))
    except (UsageError, TypeError, ValueError):  # a job of the user's under the same name
        return train


def _not_resumed(message: str, command: str, code: str) -> UsageError:
    return UsageError(message, hint=f"cloudtrain {command}", consequence="nothing was started", code=code)


def source_of(run: Run, code: SentCode) -> tuple[Path, str]:
    """The folder with the code that `run` ran, and where that is, in words.

    Args:
        code: the journal's note of it.

    Raises:
        UsageError: it is no longer available (code `no_code`).
    """
    source = Path(run.plan.spec.job.source)
    digest = code.digest
    if not digest:
        return source, f"{run.name} never sent its code: {source} is used as it is now"
    try:
        now = tree.scan(source, cache=disk.cache_dir(), runs_dir=run.folder.parent).digest
    except UsageError:  # it is gone, or cannot be sent any more
        now = None
    if now == digest:
        return source, f"the code in {source} is what {run.name} ran"
    archive, kept = run.folder / code_copy.NAME, code.archive
    if not kept:
        raise _no_code(f"the code in {source} is not what {run.name} ran, and no copy was kept with it", code)
    try:
        if disk.sha256(archive) != kept.sha256:
            there = "was changed" if disk.present(archive) else "is gone"
            raise _no_code(f"the code in {source} is not what {run.name} ran, and its copy {archive} {there}", code)
        place = code_copy.unpack(archive, digest, source.name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _no_code(f"the copy of the code in {run.folder} cannot be unpacked: {reason}", code) from error
    changed = "has changed since" if now else "no longer exists"
    return place, f"the code in {source} {changed}: the copy that {run.name} kept is used ({place})"


def _no_code(message: str, code: SentCode) -> UsageError:
    git = code.git
    committed = f"git checkout {git.commit[:12]} brings it back" if git and not git.dirty else None
    return UsageError(
        message,
        hint=committed or "restore it, or start a new run",
        consequence="nothing was started",
        code="no_code",
    )
