"""A run before anything is created for it: what will happen, and its row, folder and receipt here."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from cloudtrain.core import crash, credentials, disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import Checkpoint, RunNotes
from cloudtrain.core.plan import CodeSummary, Plan, make_plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.environment.plan import plan as plan_environment
from cloudtrain.lifecycle import checkpoints, put_back, takeover
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder import code_copy, history, receipt
from cloudtrain.source import command, git, ignore, review, shipped, tree
from cloudtrain.store import Run


def check_folder(folder: Path) -> None:
    """The run's folder can be made. Found out before anything costs money.

    Raises:
        UsageError: it cannot, or is there already.
    """
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe = parent / f".{folder.name}.writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _no_folder(f"{parent} cannot be written", error) from error
    if folder.exists():
        raise UsageError(
            f"{folder} already exists",
            hint="choose another --name, or move that folder away",
            consequence="nothing was started",
            code="name_taken",
        )


def _no_folder(what: str, error: OSError) -> UsageError:
    hint = "make the folder writable, or set runs_dir to another one"
    return UsageError(f"{what}: {error.strerror}", hint=hint, consequence="nothing was started", code="folder")


def plan_run(spec: RunSpec, context: Context) -> Plan:
    """Resolve what was asked for by look-ups alone: nothing is created.

    Raises:
        UsageError, SignInError, Refused: the run cannot start.
    """
    check_folder(spec.folder)
    ignore.parse("\n".join(spec.job.outputs), "outputs")
    put_back.check(spec.job)
    training = shipped.training(spec.job, spec.train.argv())
    source = Path(spec.job.source)
    files = tree.scan(source, cache=disk.cache_dir(), runs_dir=spec.folder.parent)
    code_copy.check_names(files.files)
    if spec.job.command:
        command.check(spec.job, files)
    reuses = spec.ec2 is not None and spec.ec2.from_run is not None
    offer = takeover.survey(spec, context) if reuses else context.provider(spec).survey(spec)
    words = (*spec.job.command, *spec.job.packages, *spec.job.resume_args, *spec.train.args)
    state = git.state(files.source, files.files, timeout=5.0)
    code = CodeSummary(
        files=len(files.files),
        bytes=files.bytes,
        git=str(state) if state else None,
        stays=review.stays(files),
        warnings=(*review.warnings(files), *credentials.warnings(words, spec.job.vars)),
    )
    types = [machine.type for machine in (*offer.candidates, *offer.alternatives)]
    times, last = history.look_up(spec, types, context.store)
    environment = plan_environment(spec, offer.details.arch)
    return make_plan(spec, offer, code, times=times, last=last, environment=environment, training=training)


def begin(
    plan: Plan,
    context: Context,
    *,
    notes: RunNotes | None = None,
    checkpoint: tuple[Checkpoint, Path] | None = None,
) -> Run:
    """Record the intent. From here on the run has a row, whatever happens next.

    Args:
        notes: for the run's journal.
        checkpoint: what it goes on from, and the folder with it; it becomes the run's own.

    Raises:
        UsageError: the name is taken, its folder cannot be made, or the checkpoint not be taken.
    """
    crash.point("K0")
    run = context.store.add(plan)
    try:
        run.folder.mkdir(parents=True)
        own = (notes or RunNotes()) | _identity(plan.spec)
        if checkpoint is not None:
            checkpoints.copy(checkpoint[0], checkpoint[1], run.folder)
            own |= RunNotes(checkpoint=checkpoint[0])
        context.store.write_journal(run.name, own)
        receipt.write(run, context.store)
    except UsageError:
        context.store.forget(run.name)
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    except OSError as error:
        context.store.forget(run.name)
        raise _no_folder(f"{run.folder} cannot be made", error) from error
    return run


def _identity(spec: RunSpec) -> RunNotes:
    """What a run is known by on its host: its id, and a folder that no other computer's run of its name has.

    A machine that is launched for one run has no other, and `adopt` finds it there by its name.
    """
    made = uuid.uuid4().hex
    return RunNotes(id=made, on_host=spec.name if spec.target is Target.EC2 else f"{spec.name}-{made[:8]}")
