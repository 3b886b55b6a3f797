"""What commands do to a run that exists, beside taking it to its end (`run.resume`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from cloudtrain.core.errors import GONE, RECLAIMED, ArtifactRefused, Busy, CloudtrainError, ConnectionFailed, UsageError
from cloudtrain.core.events import Noted, PhaseChanged, Warned
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import background_pull, fetch_results, machine_end, spot, story
from cloudtrain.lifecycle.session import Context, Link
from cloudtrain.run_folder import files, receipt
from cloudtrain.run_folder.artifacts import FileEntry
from cloudtrain.run_folder.outcome import NOT_PULLED, Result, result, stopped
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
            with Link(run, context, wakes=False) as link:
                Follower(run.folder, link, context.emit, keep=False, sleep=context.sleep).run()
        except CloudtrainError as error:
            # The other command was quicker: it has ended the machine, and deleted the keys to it.
            if error.code not in (GONE, RECLAIMED, "parked") and context.store.get(run.name).state is RunState.RUNNING:
                raise
    return _finished_elsewhere(run, context)


def pull_now(run: Run, context: Context) -> Result:
    """Fetch what a run that has not ended has finished so far; a run that only needs its end is taken there.

    Raises:
        UsageError: it has not begun to train.
    """
    if run.state is RunState.SYNCING:
        with suppress(Busy), story.claim(run.name), Link(run, context) as link:
            if story.started_unnoted(run, link):
                run = link.move(run, RunState.RUNNING)
    if run.state is RunState.PULLING:
        return story.resume(run, context)
    if run.state is not RunState.RUNNING:
        raise UsageError(f"{run.name} has not begun to train", hint=f"cloudtrain logs {run.name}", code="nothing_yet")
    with _unless_gone(), Link(run, context) as link:
        for _ in range(fetch_results.LIVE_PULLS):
            if link.supervisor().poll(0, 0).state != "running":
                break
            try:
                story.fetch_results(run, link)
                return result(run, context)
            except ArtifactRefused as error:
                # The job has written the file anew since the manifest was made: a new manifest, and again.
                refused = error
        else:
            context.emit(Warned(f"a file changes while it is pulled: {refused.message}", hint="pull again later"))
            return result(run, context)
    return story.resume(run, context)


def pull_again(run: Run, context: Context) -> Result:
    """Fetch an ended run's results once more: what is here and right is kept, what is missing or spoilt is replaced.

    Raises:
        ConnectionFailed: a file is missing or spoilt here, and the machine that had it is gone.
    """
    if machine_end.until(run) is not None:
        return _from_kept(run, context)
    if run.life is InstanceLife.TERMINATED:
        return _all_here(run, context)
    with story.claim(run.name), Link(run, context) as link:
        link.journal.write({"pulled": [asdict(entry) for entry in story.fetch_results(run, link)]})
        if (run.error or {}).get("code") == NOT_PULLED:
            run = context.store.note(run, error=stopped(run))
        receipt.write(run, context.store)
        files.sha256sums(run.folder)
        return result(context.store.get(run.name), context)


def _all_here(run: Run, context: Context) -> Result:
    """How a run stands whose machine is gone, once its files here have been checked."""
    outcome = result(run, context)
    fetch_results.check_here(run, outcome.artifacts)
    receipt.update(run, context.store, context.emit)
    context.emit(Noted(f"its machine is gone; all {len(outcome.artifacts)} files are here, checksums verified"))
    return outcome


def _from_kept(run: Run, context: Context) -> Result:
    """The same of a run whose machine is kept. What it was when it was pulled is what counts: whoever works on the
    machine since may have changed the files there."""
    if machine_end.lasts(run, context.clock()):
        with _unless_gone(), story.claim(run.name), Link(run, context, wakes=False) as link:
            if spoilt := fetch_results.spoilt(run, result(run, context).artifacts):
                fetch_results.fetch_again(run, link, spoilt)
                files.sha256sums(run.folder)
            receipt.update(run, context.store, context.emit)
            context.emit(Noted(f"all its files are here, checksums verified; {machine_end.told(run, context.clock())}"))
            return result(run, context)
    context.store.write_journal(run.name, {"owed": True})
    settle(run, context)
    return _all_here(context.store.get(run.name), context)


def stop(run: Run, context: Context, *, keep_s: float = 0.0) -> Result:
    """End a run: the job is asked to save and end, what exists is pulled, the machine is given back.

    Safe to call again, and while another command follows the run: that one then finishes the story.

    Args:
        keep_s: seconds that the machine stays up once the results are here (`hold.py`), whatever `run` was given.

    Raises:
        UsageError: the machine is to be kept, and there is none that could be; nothing was changed.
    """
    run = context.store.get(run.name)  # it may have gone on while a person was asked
    if keep_s:
        check_keep(run)
    if run.state.final:
        if machine_end.until(run) is not None:
            context.store.write_journal(run.name, {"owed": True})
        return settle(run, context)
    context.store.write_journal(run.name, {"stop_wanted": True, "keep_s": keep_s, "no_pull": False})
    if run.state.trains:
        return _ended(run, context)
    abandon(run, context)
    # Where its machine could not be given back, this tries again and says so as an error.
    return settle(context.store.get(run.name), context)


def check_keep(run: Run) -> None:
    """The machine of `run` can be kept when the run is stopped.

    Raises:
        UsageError: it has none of its own, does not train yet, or has ended.
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


def missing(run: Run, context: Context) -> list[FileEntry]:
    """The finished files of a run that are not here, by the manifest that its host makes now. A parked machine is not
    started for it.

    Raises:
        CloudtrainError: the host cannot be asked.
    """
    with Link(run, context, wakes=False) as link:
        return [entry for entry in link.supervisor().manifest() if not files.is_here(entry, run.folder)]


def discard(run: Run, context: Context) -> Result:
    """End a run and fetch nothing more: what is not here is deleted with its machine, if that is the run's own.

    A machine of its own is not asked for anything, so one that does not answer is ended all the same. Elsewhere, and
    where another command follows the run, the job is stopped first.

    Raises:
        CloudtrainError: the machine could not be ended, or a job elsewhere not be stopped.
    """
    run = context.store.get(run.name)
    if not run.state.trains:
        return stop(run, context)
    context.store.write_journal(run.name, {"stop_wanted": True, "keep_s": 0.0, "no_pull": True})
    if run.instance is not None and run.instance.owned:
        with suppress(Busy):
            with story.claim(run.name), Link(run, context, wakes=False) as link:
                run = context.store.get(run.name)
                if not run.state.final:
                    story.unpulled(run, link)
            return settle(context.store.get(run.name), context)
    return _ended(run, context, wakes=False)


def _ended(run: Run, context: Context, *, wakes: bool = True) -> Result:
    """A run that trains or is pulled, once its job was told to end and its story is over, here or elsewhere."""
    if run.state is RunState.RUNNING:
        limit_s = story.STOP_GRACE_S + 10
        with _unless_gone(), Link(run, context, wakes=wakes) as link, link.step("stop", limit_s=limit_s):
            link.supervisor().stop(reason="user", grace=story.STOP_GRACE_S)
    return _finished_elsewhere(run, context, leave_refused=True)


def settle(run: Run, context: Context) -> Result:
    """Give back the machine of a run that has ended, if that failed when it ended.

    Raises:
        CloudtrainError: it fails still.
    """
    if not context.store.read_journal(run.name).get("owed"):
        return result(run, context)
    with story.claim(run.name), Link(run, context) as link:
        instance = link.instance or link.provider.find(run.name, link.journal)
        if instance is not None:
            released = link.provider.release(instance, link.journal, context.emit)
            run = context.store.note(run, life=released.life, instance=machine_end.over(run, context.clock()))
            link.journal.write({"leftovers": list(released.leftovers)})
        link.journal.write({"owed": False})
        receipt.write(run, context.store)
        return result(run, context)


def abandon(run: Run, context: Context) -> Result:
    """End a run that has not begun to train: nothing can be lost, the machine is given back.

    One that trains by now is stopped instead, and what it has is pulled.
    """
    with story.claim(run.name), Link(run, context) as link:
        run = context.store.get(run.name)
        if story.started_unnoted(run, link):
            run = link.move(run, RunState.RUNNING)
        trains = run.state.trains
        if not run.state.final and not trains:
            story.give_back(run, link)
            again = spot.attempt_of(link.journal.read()) > 1
            before = "while another machine was made ready for it" if again else "before training began"
            background_pull.keep(run.folder, link.journal)
            error = {"code": "abandoned", "message": f"ended {before}"}
            run = link.move(run, RunState.STOPPED, error=error)
    return stop(run, context) if trains else result(run, context)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """A machine that has ended needs nothing more; the story says what is left of the run."""
    try:
        yield
    except ConnectionFailed as error:
        if error.code not in (GONE, RECLAIMED):
            raise


def _finished_elsewhere(run: Run, context: Context, *, leave_refused: bool = False) -> Result:
    """Finish the story here as soon as no other command does; at the latest a minute after the job's end."""
    for _ in range(120):
        try:
            return story.resume(context.store.get(run.name), context, leave_refused=leave_refused)
        except Busy:
            context.sleep(_LOOK_S)
        now = context.store.get(run.name)
        # One that is interrupted may go on: the command that has it says so by letting go of it.
        if now.state.final and now.state is not RunState.INTERRUPTED:
            return result(now, context)
        if spot.relaunched(run, now, context.store.read_journal(run.name)):
            break
    raise Busy(f"another command is still pulling {run.name}", hint=f"cloudtrain show {run.name}")
