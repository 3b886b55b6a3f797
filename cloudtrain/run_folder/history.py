"""What the user's own earlier runs took, for the plan of the next one. From the registry alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloudtrain.core.plan import Took
from cloudtrain.core.spec import RunSpec, Target, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.store import Run, Store


def look_up(spec: RunSpec, types: Sequence[str], store: Store) -> tuple[tuple[Took, ...], Took | None]:
    """The times of the last successful run that trained what `spec` trains: on each of `types` (real EC2 instances
    alone, a rehearsal tells nothing of them), and at the place where `spec` trains, of which `types` names the first.

    A run counts if nothing but epochs, seed and learning rate is different; the training is scaled to the epochs that
    are planned now. Nothing is known of the rest of an interrupted run, nor from one that had several machines.
    """
    if spec.resume is not None:
        return (), None
    here = _place(spec, types[0] if types else "")
    missing = {("ec2", kind): kind for kind in types}
    times: dict[str, Took] = {}
    last: Took | None = None
    for run in store.runs(damaged=lambda _: None):  # a time is no reason to refuse a run
        place = _place(run.plan.spec, _type(run))
        wanted = (place in missing and missing[place] not in times) or (last is None and place == here)
        if not wanted or not _same_training(run.plan.spec, spec):
            continue
        took = _took(run, spec.train.epochs, store)
        if took is None:
            continue
        if place in missing:
            times.setdefault(missing[place], took)
        if place == here:
            last = last or took
        if last is not None and len(times) == len(missing):
            break
    return tuple(times[kind] for kind in dict.fromkeys(types) if kind in times), last


def _place(spec: RunSpec, type: str) -> tuple[str, ...]:
    """What a time is a property of: a type of instance, a machine, or this computer under one kind of run."""
    if spec.target is Target.HOST and spec.host is not None:
        return ("host", spec.host.address, str(spec.host.port))
    if spec.ec2 is not None:
        return ("rehearsal",) if spec.ec2.rehearsal else ("ec2", type)
    return (spec.target.value,)


def _type(run: Run) -> str:
    if run.instance is not None and run.instance.type:
        return run.instance.type
    return run.plan.offer.candidates[0].type if run.plan.offer.candidates else ""


def _same_training(one: RunSpec, other: RunSpec) -> bool:
    return (
        one.resume is None
        and all(getattr(one.job, name) == getattr(other.job, name) for name in ("source", "module", "command", "cwd"))
        and _timed(one.train) == _timed(other.train)
    )


def _timed(train: TrainSpec) -> TrainSpec:
    """The settings that an epoch's time hangs on."""
    return replace(train, epochs=None, seed=0, lr=None)


def _took(run: Run, epochs: int | None, store: Store) -> Took | None:
    """The run's times, for `epochs` epochs (None: the recipe's); None: it does not tell them."""
    if run.state is not RunState.SUCCEEDED:
        return None
    moves = store.moves(run.name)
    at = dict(moves)
    if len(at) != len(moves) or not {RunState.PLANNED, RunState.RUNNING, RunState.PULLING} <= set(at):
        return None
    training = at[RunState.PULLING] - at[RunState.RUNNING]
    # A run that nobody watched is pulled when somebody comes back; the host knows when the job ended.
    ended = run.ending.at if run.ending else None
    by_host = ended - at[RunState.RUNNING] if ended is not None else training
    training = min(training, by_host) if by_host > 0 else training
    factor = _factor(run, epochs)
    if factor is None or training <= 0:
        return None
    trained = run.progress.epochs
    return Took(
        run=run.name,
        type=_type(run) if run.plan.spec.target is Target.EC2 else "",
        setup_s=round(max(0.0, at[RunState.RUNNING] - at[RunState.PLANNED]), 3),
        training_s=round(training * factor, 3),
        pull_s=round(max(0.0, at[RunState.SUCCEEDED] - at[RunState.PULLING]), 3),
        scaled_from=trained if factor != 1 else None,
    )


def _factor(run: Run, epochs: int | None) -> float | None:
    """How many times as long as the run `epochs` epochs take; None: it cannot be told."""
    if run.plan.spec.train.epochs == epochs:
        return 1.0
    trained = run.progress.epochs
    if epochs is None or not isinstance(trained, int) or trained < 1:
        return None  # how many epochs a recipe has is the job's own business
    return epochs / trained
