"""Machines that a run still owes: its story is over, and EC2 has not said yet that its instance has ended.

Every command that talks to AWS tries to settle them first. It takes a moment at most, and no failure of it fails the
command: what is not settled now stays on the disk for the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from cloudtrain.billing import cost, expiry
from cloudtrain.core.errors import Busy, CloudtrainError
from cloudtrain.core.events import Emit, Noted, Warned, discard
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.emulator import service
from cloudtrain.lifecycle import overdue, stop, story
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.base import Provider
from cloudtrain.provider.choose import provider_of, rehearsal_folder
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.store import Run, Store

LIMIT_S = 10.0


def owes(run: Run, store: Store) -> bool:
    """Whether the machine of `run` should be gone and is not known to be."""
    if run.plan.spec.target is not Target.EC2:
        return False
    notes, pending = store.read_journal(run.name), store.read_notes(run.name, Ec2Notes).release_pending
    if run.state.final:
        if notes.owed or pending:
            return True
        if (kept_until := expiry.kept_until(run)) is not None:
            return time.time() >= kept_until
        # Without a note: a machine that may hold what exists nowhere else is not ended by the way.
        if not run.life.may_exist or notes.pulled:
            return run.life.may_exist
        return all(state is not RunState.RUNNING for state, _ in store.moves(run.name))
    if overdue.is_due(run, time.time()):
        return True
    # A command was killed between telling the machine to end and seeing that it did.
    return bool(pending) and (bool(notes.pulled) or not run.state.trains)


def admit(run: Run, store: Store) -> None:
    """Note the debt of a run that a killed command has left without one, so that `stop` pays it."""
    if run.state.final and owes(run, store):
        store.write_journal(run.name, RunNotes(owed=True))


def settle(
    store: Store,
    emit: Emit,
    *,
    skip: str | None = None,
    provider: Callable[[RunSpec], Provider] | None = None,
    limit_s: float = LIMIT_S,
) -> None:
    """End what the runs of this registry still owe, confirm it by state, and say so. Raises nothing.

    Args:
        skip: name of the run that the command is about; it settles that one itself.
        provider: gives the provider of a run; None: the usual ones, with short waits.
        limit_s: seconds for all of them. What AWS does not answer in this time goes on in the background while the
            command does its work, and is cut off with it: every step of it can be repeated.
    """

    def untold(error: CloudtrainError) -> None:
        emit(Warned(f"debts cannot be looked up: {error.message}", hint=error.hint))

    try:
        owing = [run for run in store.runs(untold) if run.name != skip and owes(run, store)]
    except CloudtrainError as error:
        return untold(error)
    # A rehearsed machine costs nothing and ends with its Region, which is not started again for it.
    gone = [run for run in owing if _ended_with_its_region(run)]
    owing = [run for run in owing if run not in gone]
    for run in gone:
        gone_now = cost.down(run, InstanceLife.TERMINATED, None, time.time())
        store.note(run, life=InstanceLife.TERMINATED, instance=gone_now)
        store.write_journal(run.name, Ec2Notes(release_pending=None))
        store.write_journal(run.name, RunNotes(owed=False))
    if owing:
        _settle_all(owing, store, emit, provider or _quick, limit_s)


def settle_beside(spec: RunSpec, store: Store, emit: Emit, *, skip: str | None = None) -> None:
    """The same for a command about one run, which is called `skip`, if that command talks to AWS for it."""
    if spec.target is Target.EC2 and not spec.rehearsal:
        settle(store, emit, skip=skip)


def _settle_all(
    owing: Sequence[Run], store: Store, emit: Emit, provider: Callable[[RunSpec], Provider], limit_s: float
) -> None:
    emit(Noted(f"still to end: {', '.join(_named(run) for run in owing)}; trying again, at most {limit_s:.0f} s"))
    context = Context(store=store, provider=provider, emit=discard)
    failures: dict[str, CloudtrainError] = {}

    def pay(run: Run) -> None:
        try:
            _pay(run, context)
        except CloudtrainError as error:
            failures[run.name] = error

    # Daemons: a call that hangs on a dead network must neither hold the command up nor outlive it.
    threads = [threading.Thread(target=pay, args=(run,), name=f"settle {run.name}", daemon=True) for run in owing]
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for run in owing:
        error = failures.get(run.name)
        if isinstance(error, Busy):
            continue
        now = store.get(run.name)
        if now.life is InstanceLife.PARKED:
            emit(Noted(f"{_named(run)}: stopped, its disk keeps the results; cloudtrain pull {run.name} fetches them"))
        elif not owes(now, store):
            emit(Noted(f"{_named(run)}: ended, nothing of it is billed any more"))
        else:
            why = f": {error.message}" if error else f" within {limit_s:.0f} s"
            emit(
                Warned(
                    f"the end of {_named(run)} could not be confirmed{why}",
                    hint=f"cloudtrain stop {run.name} tries again and waits; else its own lease switches it off",
                )
            )


def _pay(run: Run, context: Context) -> None:
    if run.state.trains and overdue.is_due(run, context.clock()):
        with claim(run.name), Session(run, context, wakes=False) as session:
            session.guard.look()
    elif run.state.final:
        admit(run, context.store)
        stop.settle(run, context)
    elif run.state is RunState.PULLING:
        story.resume(run, context)
    else:
        stop.abandon(run, context)


def _quick(spec: RunSpec) -> Provider:
    pace = Pace(poll=1.0, settle=3.0, visible=3.0, end=LIMIT_S - 2, group=3.0)
    return provider_of(spec, lambda question: False, pace)


def _named(run: Run) -> str:
    return f"{run.instance.id} of {run.name}" if run.instance else f"the machine of {run.name}"


def _ended_with_its_region(run: Run) -> bool:
    ec2 = run.plan.spec.ec2
    return ec2 is not None and ec2.rehearsal and service.living(rehearsal_folder(run.name, ec2)) is None
