"""Following a run that another command acts on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from cloudtrain.core.errors import GONE, RECLAIMED, Busy, CloudtrainError, ConnectionFailed
from cloudtrain.core.events import Event, Noted, PhaseChanged, StepDone, StepStarted
from cloudtrain.core.states import RunState
from cloudtrain.core.text import time_of_day
from cloudtrain.lifecycle import spot, story
from cloudtrain.lifecycle.progress import Heard
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run, Store
from cloudtrain.transfer.follow import Follower

# Another command may be launching another machine for a run whose spot instance was taken back, in seconds.
RELAUNCH_S = 1800.0
_LOOK_S = 0.5
# States in which a run is set up, and the step that each of them is.
_STEPS = {RunState.PROVISIONING: "instance", RunState.BOOTING: "boot", RunState.SYNCING: "sync"}


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
    context.emit(Noted(f"another command is moving {run.name} to another machine; waiting for it, at most 30 min"))
    while now.state in spot.ON_THE_WAY and context.clock() < until:
        context.sleep(_LOOK_S)
        now = context.store.get(run.name)
    return now.state not in spot.ON_THE_WAY


def set_up(run: Run, store: Store) -> list[Event]:
    """The steps of a run that is not training yet, as the registry has them: those that are over, and the one that goes
    on. Of one that trains or has ended: none."""
    if run.state.trains or run.state.final:
        return []
    moves = store.moves(run.name)
    first = max((number for number, (state, _) in enumerate(moves) if state is RunState.PROVISIONING), default=0)
    events: list[Event] = _over(run, store, moves[first:])
    if run.state in _STEPS:
        began = moves[-1][1]
        events.append(StepStarted(_STEPS[run.state], f"since {time_of_day(began, began)}"))
    return events


def _over(run: Run, store: Store, moves: Sequence[tuple[RunState, float]]) -> list[Event]:
    notes, instance = store.read_journal(run.name), run.instance
    where = f"{instance.id} {instance.type}" + (f", {instance.zone}" if instance.zone else "") if instance else ""
    details = {RunState.PROVISIONING: where, RunState.BOOTING: notes.host.summary() if notes.host else ""}
    return [
        StepDone(_STEPS[state], details.get(state, ""), until - at)
        for (state, at), (_, until) in pairwise(moves)
        if state in _STEPS
    ]


def _made_ready(run: Run, context: Context) -> Run | Result:
    """Wait while another command sets the run up, and tell of each step that is over. Once it trains, or the story
    where the other command lets go of it.

    Raises:
        Busy: that command takes longer than any set-up does.
    """
    told, until = len(set_up(run, context.store)), context.clock() + RELAUNCH_S
    while not (run.state.trains or run.state.final):
        try:
            return story.resume(run, context)
        except Busy:
            if context.clock() >= until:
                raise
        context.sleep(_LOOK_S)
        before, run = run, context.store.get(run.name)
        if run.state is not before.state:
            moves = context.store.moves(run.name)
            steps = set_up(run, context.store) or _over(run, context.store, moves)
            for event in steps[max(0, told - 1) :]:
                context.emit(event)
            told = len(steps)
            context.emit(PhaseChanged(run.name, run.state))
    return run


def _watch_machine(run: Run, context: Context) -> Result:
    """Watch what becomes of a run on the machine that it has, or gets.

    Raises:
        Busy: another command still acts on it a minute after that machine's end.
    """
    ready = _made_ready(run, context)
    if isinstance(ready, Result):
        return ready
    run = ready
    if run.state is RunState.RUNNING:
        try:
            # Whether a machine that has parked is started again is the other command's to decide.
            with Session(run, context, wakes=False) as session:
                emit = Heard(run, context.emit).emit
                Follower(run.folder, session, emit, keep=False, sleep=context.sleep).run()
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


def finished_elsewhere(run: Run, context: Context) -> Result:
    """Finish the story here as soon as no other command does; at the latest a minute after the job's end."""
    for _ in range(120):
        try:
            return story.resume(context.store.get(run.name), context)
        except Busy:
            context.sleep(_LOOK_S)
        now = context.store.get(run.name)
        # One that is interrupted may go on: the command that has it says so by letting go of it.
        if now.state.final and now.state is not RunState.INTERRUPTED:
            return context.result(now)
        if spot.relaunched(run, now, context.store.read_journal(run.name)):
            break
    raise Busy(f"another command is still pulling {run.name}", hint=f"cloudtrain show {run.name}")
