"""Ending a run: with its results, without them, or before it trained; and giving back what is still owed."""

from __future__ import annotations

from contextlib import suppress

from cloudtrain.billing import expiry
from cloudtrain.core.errors import Busy, RunError, UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.states import RunState
from cloudtrain.lifecycle import background_pull, machine_end, overdue, story
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.lifecycle.watch import finished_elsewhere, unless_gone
from cloudtrain.run_folder import receipt
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run


def stop(run: Run, context: Context, *, keep_s: float = 0.0) -> Result:
    """End a run: the job is asked to save and end, what exists is pulled, the machine is given back, or parks where not
    all could be taken.

    Safe to call again, and while another command follows the run: that one then finishes the story.

    Args:
        keep_s: seconds that the machine stays up once the results are here, whatever `run` was given.

    Raises:
        UsageError: the machine is to be kept, and there is none that could be; nothing was changed.
    """
    run = context.store.get(run.name)  # it may have gone on while a person was asked
    if keep_s:
        check_keep(run)
    if run.state.final:
        if expiry.kept_until(run) is not None:
            context.store.write_journal(run.name, RunNotes(owed=True))
        return settle(run, context)
    context.store.write_journal(run.name, RunNotes(stop_wanted=True, keep_s=keep_s, no_pull=False))
    if run.state.trains:
        return _ended(run, context)
    abandon(run, context)
    # Where its machine could not be given back, this tries again and says so as an error.
    return settle(context.store.get(run.name), context)


def check_keep(run: Run) -> None:
    """The machine of `run` can be kept when the run is stopped.

    Raises:
        UsageError: it has none of its own, is not training yet, or has ended.
    """
    machine_end.check(run.plan.spec)
    if run.state.trains:
        return
    ended = run.state.final
    raise UsageError(
        f"{run.name} has ended ({run.state.value})" if ended else f"{run.name} has not begun to train",
        hint=f"cloudtrain show {run.name}" if ended else f"cloudtrain stop {run.name} ends it without --keep",
        consequence="nothing was changed",
        code="bad_setting",
    )


def discard(run: Run, context: Context) -> Result:
    """End a run and fetch nothing more: what is not here is deleted with its machine, if that is the run's own.

    A machine of its own is not asked for anything, so one that does not answer is ended all the same. Elsewhere, and
    where another command follows the run, the job is stopped first. A run whose other results are here has ended as its
    job did.

    Raises:
        CloudtrainError: the machine could not be ended, or a job elsewhere not be stopped.
    """
    run = context.store.get(run.name)
    if not run.state.trains:
        return stop(run, context)
    context.store.write_journal(run.name, RunNotes(stop_wanted=True, keep_s=0.0, no_pull=True))
    pulled = run.state is RunState.PULLING and context.store.read_journal(run.name).left
    if run.instance is not None and run.instance.owned and not pulled:
        with suppress(Busy):
            with claim(run.name), Session(run, context, wakes=False) as session:
                run = context.store.get(run.name)
                if not run.state.final:
                    story.unpulled(run, session)
            return settle(context.store.get(run.name), context)
    return _ended(run, context, wakes=False)


def _ended(run: Run, context: Context, *, wakes: bool = True) -> Result:
    """A run that trains or is pulled, once its job was told to end and its story is over, here or elsewhere."""
    if run.state is RunState.RUNNING:
        limit_s = expiry.STOP_GRACE_S + 10
        with unless_gone(), Session(run, context, wakes=wakes) as session, session.step("stop", limit_s=limit_s):
            within_s = expiry.STOP_GRACE_S + overdue.STOP_S
            session.guard.last_call(within_s, f"asked to stop, it gave no answer within {within_s:.0f} s")
            session.supervisor().stop(reason="user", grace=expiry.STOP_GRACE_S)
    return finished_elsewhere(run, context)


def settle(run: Run, context: Context) -> Result:
    """Give back the machine of a run that has ended, if that failed when it ended.

    Raises:
        CloudtrainError: it fails still.
    """
    if not context.store.read_journal(run.name).owed:
        return context.result(run)
    with claim(run.name), Session(run := context.store.get(run.name), context) as session:
        # Another run may have taken the machine over meanwhile: then it is that one's to end.
        machine = session.look_up()
        if machine is not None:
            released = machine.release()
            over = session.down(machine.instance, released.life, released.at)
            run = context.store.note(run, life=released.life, instance=over)
            session.journal.write(RunNotes(leftovers=released.leftovers))
        session.journal.write(RunNotes(owed=False))
        receipt.write(run, context.store)
        return context.result(run)


def abandon(run: Run, context: Context) -> Result:
    """End a run that has not begun to train: nothing can be lost, the machine is given back.

    One that trains by now is stopped instead, and what it has is pulled.
    """
    with claim(run.name), Session(run, context) as session:
        run = context.store.get(run.name)
        if story.started_unnoted(run, session):
            run = session.move(run, RunState.RUNNING)
        trains = run.state.trains
        if not run.state.final and not trains:
            story.give_back(run, session)
            again = session.journal.read(RunNotes).attempt > 1
            before = "while another machine was made ready for it" if again else "before training began"
            background_pull.keep(run.folder, session.journal)
            error = RunError(code="abandoned", message=f"ended {before}")
            run = session.move(run, RunState.STOPPED, error=error)
    return stop(run, context) if trains else context.result(run)
