"""Following a run that another command acts on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloudtrain.core.errors import GONE, RECLAIMED, Busy, CloudtrainError, ConnectionFailed
from cloudtrain.core.events import Noted, PhaseChanged
from cloudtrain.core.states import RunState
from cloudtrain.lifecycle import spot, story
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run
from cloudtrain.transfer.follow import Follower

# Another command may be launching another machine for a run whose spot instance was taken back, in seconds.
RELAUNCH_S = 1800.0
_LOOK_S = 0.5


def watch(run: Run, context: Context) -> Result:
    """Follow a run that another command acts on: reads only, writes nothing, waits until that command has finished."""
    while True:
        run = context.store.get(run.name)
        try:
            return _watch_machine(run, context)
        except Busy:
            # Bounded: a run gets so many machines and no more.
            if not _goes_on(run, context):
                raise


def _goes_on(run: Run, context: Context) -> bool:
    """Whether another command takes the run to another machine; waits until it trains there, or has ended."""
    now, until = context.store.get(run.name), context.clock() + RELAUNCH_S
    if not spot.relaunched(run, now, context.store.read_journal(run.name)):
        return False
    context.emit(PhaseChanged(run.name, RunState.PROVISIONING))
    context.emit(Noted(f"another command takes {run.name} to another machine; waiting for it, at most 30 min"))
    while now.state in spot.ON_THE_WAY and context.clock() < until:
        context.sleep(_LOOK_S)
        now = context.store.get(run.name)
    return now.state not in spot.ON_THE_WAY


def _watch_machine(run: Run, context: Context) -> Result:
    """Watch what becomes of a run on the machine that it has.

    Raises:
        Busy: another command still acts on it a minute after that machine's end.
    """
    if run.state is RunState.RUNNING:
        try:
            # Whether a machine that has parked is started again is the other command's to decide.
            with Session(run, context, wakes=False) as session:
                Follower(run.folder, session, context.emit, keep=False, sleep=context.sleep).run()
        except CloudtrainError as error:
            # The other command was quicker: it has ended the machine, and deleted the keys to it.
            if error.code not in (GONE, RECLAIMED, "parked") and context.store.get(run.name).state is RunState.RUNNING:
                raise
    return finished_elsewhere(run, context)


@contextmanager
def unless_gone() -> Iterator[None]:
    """A machine that has ended needs nothing more; the story says what is left of the run."""
    try:
        yield
    except ConnectionFailed as error:
        if error.code not in (GONE, RECLAIMED):
            raise


def finished_elsewhere(run: Run, context: Context, *, leave_refused: bool = False) -> Result:
    """Finish the story here as soon as no other command does; at the latest a minute after the job's end."""
    for _ in range(120):
        try:
            return story.resume(context.store.get(run.name), context, leave_refused=leave_refused)
        except Busy:
            context.sleep(_LOOK_S)
        now = context.store.get(run.name)
        # One that is interrupted may go on: the command that has it says so by letting go of it.
        if now.state.final and now.state is not RunState.INTERRUPTED:
            return context.result(now)
        if spot.relaunched(run, now, context.store.read_journal(run.name)):
            break
    raise Busy(f"another command is still pulling {run.name}", hint=f"cloudtrain show {run.name}")
