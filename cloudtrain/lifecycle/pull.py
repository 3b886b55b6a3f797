"""Fetching results by command: so far, once more, or a part of them (`pull --only`).

A part never counts as the pull: no state moves, no machine is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cloudtrain.billing import expiry
from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, Busy, UsageError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.states import RunState
from cloudtrain.core.told import LOG_FILES
from cloudtrain.lifecycle import fetch_results, host_folder, machine_end, story
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.lifecycle.stop import settle
from cloudtrain.lifecycle.watch import unless_gone
from cloudtrain.run_folder import files, receipt, result_groups
from cloudtrain.run_folder.outcome import NOT_PULLED, Result, stopped
from cloudtrain.store import Run
from cloudtrain.transfer.follow import GrowingFile

# Of a log that grows while it is fetched: pieces of at most 1 MiB.
_PIECES = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """What was asked for and is here: `result` has these artifacts alone, `logs` names the files of the log."""

    result: Result
    logs: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """All files of it, with size and sha256 as they are here."""
        folder = self.result.folder
        paths = [(name, folder / name) for name in self.logs]
        logs = [FileEntry(name, path.stat().st_size, disk.sha256(path) or "") for name, path in paths]
        return (*self.result.artifacts, *logs)


def whole(outcome: Result) -> Part:
    """All results of a run; its log counts once it is complete."""
    logs = LOG_FILES if outcome.state.final else ()
    return Part(outcome, tuple(name for name in logs if disk.is_plain(outcome.folder / name)))


def pull(run: Run, context: Context, names: Sequence[str]) -> Part:
    """Bring the results of `run` that are in the groups called `names`, each verified.

    Raises:
        UsageError: the run has not begun to train, or its machine is parked and not for what is beyond
            `results_limit`: it is not started for a part.
        ConnectionFailed: the host cannot be reached, or is gone and had what is missing here.
        ArtifactRefused: a file is not what the host's manifest says; the others are here.
    """
    notes = context.store.read_journal(run.name)
    if expiry.away(run) and not notes.left:
        raise UsageError(
            f"{run.name} has a machine that is parked, and it is not started for a part of the results",
            hint=f"cloudtrain pull {run.name} starts it, fetches everything and ends it",
            consequence="nothing was fetched; its disk keeps the results",
            code="parked",
        )
    if not (run.state.final or run.state.trains):
        raise UsageError(f"{run.name} has not begun to train", hint=f"cloudtrain logs {run.name}", code="nothing_yet")
    if run.state.final and notes.pulled is not None:
        entries = _verified(run, context, names)
    elif host_folder.is_gone(run, notes):
        raise fetch_results.gone(run, "no result of it was pulled")
    elif expiry.away(run):
        with claim(run.name), Session(run, context) as session:
            entries = _fetched(run, session, names)
            machine_end.park(context.store.get(run.name), session)
    else:
        with Session(run, context, wakes=False) as session:
            entries = _fetched(run, session, names)
    if notes.left and not run.state.final:
        came = {entry.name: entry for entry in entries}
        context.store.write_journal(run.name, RunNotes(left=tuple(came.get(one.name, one) for one in notes.left)))
    logs: tuple[str, ...] = ()
    if result_groups.LOG in names:
        bring_log(run, context)
        logs = tuple(name for name in LOG_FILES if disk.is_plain(run.folder / name))
    return Part(replace(context.result(run), artifacts=tuple(entries)), logs)


def _verified(run: Run, context: Context, names: Sequence[str]) -> list[FileEntry]:
    """Of a run that is over and pulled: what is spoilt here is fetched again as it was."""
    entries = result_groups.chosen(context.result(run).artifacts, names)
    if host_folder.is_gone(run, context.store.read_journal(run.name)):
        fetch_results.check_here(run, entries)
    elif fetch_results.spoilt(run, entries):
        with claim(run.name), Session(run, context, wakes=False) as session:
            fetch_results.fetch_again(run, session, names)
    return entries


def _fetched(run: Run, session: Session, names: Sequence[str]) -> list[FileEntry]:
    """Of a run that has not ended here: what its host has finished by now."""
    with session.step("pull") as closing:
        for left in reversed(range(fetch_results.LIVE_PULLS)):
            try:
                report, _ = session.insist(lambda: fetch_results.taken(run, session, names))
                break
            except ArtifactRefused:
                if not left or run.state is not RunState.RUNNING:
                    raise
        closing.append(report.summary(run.folder))
        return list(report.files)


def bring_log(run: Run, context: Context, *, times: bool = False) -> None:
    """The log and the events up to now, where no other command brings them already; `times`: those of its lines, too.

    Raises:
        ConnectionFailed: the host cannot be reached. What is here is what it was, or more.
    """
    if run.state is not RunState.RUNNING:
        return
    try:
        with claim(run.name), Session(run, context, wakes=False) as session:
            log, events = (GrowingFile(run.folder / name) for name in LOG_FILES)
            try:
                for _ in range(_PIECES):
                    told = session.insist(lambda: session.supervisor().poll(log.size, events.size))
                    new = log.append(log.size, told.log), events.append(events.size, told.events)
                    if not any(new):
                        break
                if times:
                    fetch_results.bring_log_times(run.folder, session)
            finally:
                log.close()
                events.close()
    except Busy:
        context.emit(Noted("the log is brought by the command that follows the run"))


def pull_now(run: Run, context: Context, *, everything: bool = False) -> Result:
    """Fetch what a run that has not ended has finished so far; a run that only needs its end is taken there.

    Args:
        everything: from now on `results_limit` does not count.

    Raises:
        UsageError: it has not begun to train.
        LimitReached: there is more than `results_limit` lets come; the rest is here.
    """
    if everything:
        context.store.write_journal(run.name, RunNotes(take_all=True, no_pull=False))
    if run.state is RunState.SYNCING:
        with suppress(Busy), claim(run.name), Session(run, context) as session:
            if story.started_unnoted(run, session):
                run = session.move(run, RunState.RUNNING)
    if run.state is RunState.PULLING:
        return story.resume(run, context)
    if run.state is not RunState.RUNNING:
        raise UsageError(f"{run.name} has not begun to train", hint=f"cloudtrain logs {run.name}", code="nothing_yet")
    with unless_gone(), Session(run, context) as session:
        for _ in range(fetch_results.LIVE_PULLS):
            if session.supervisor().poll(0, 0).state != "running":
                break
            try:
                report = fetch_results.fetch_results(run, session)
                if report.beyond:
                    told = fetch_results.beyond(run, report.beyond)
                    context.emit(Warned(told.message, hint=f"cloudtrain pull {run.name} --all"))
                return context.result(run)
            except ArtifactRefused as error:
                # The job has written the file anew since the manifest was made: a new manifest, and again.
                refused = error
        else:
            context.emit(Warned(f"a file changes while it is pulled: {refused.message}", hint="pull again later"))
            return context.result(run)
    return story.resume(run, context)


def pull_again(run: Run, context: Context, *, everything: bool = False) -> Result:
    """Fetch an ended run's results once more: what is here and right is kept, what is missing or spoilt is replaced.

    Args:
        everything: also what is beyond `results_limit`.

    Raises:
        ConnectionFailed: a file is missing or spoilt here, and the machine that had it is gone.
    """
    if expiry.kept_until(run) is not None:
        return _from_kept(run, context)
    if host_folder.is_gone(run, context.store.read_journal(run.name)):
        return _all_here(run, context)
    if everything:
        context.store.write_journal(run.name, RunNotes(take_all=True))
    with claim(run.name), Session(run, context) as session:
        report = fetch_results.fetch_results(run, session)
        session.journal.write(RunNotes(pulled=report.files, left=report.beyond))
        if run.error is not None and run.error.code == NOT_PULLED:
            run = context.store.note(run, error=stopped(run))
        receipt.write(run, context.store)
        files.sha256sums(run.folder)
        return context.result(context.store.get(run.name))


def _all_here(run: Run, context: Context) -> Result:
    """How a run stands that can no longer be fetched, once its files here have been checked."""
    outcome = context.result(run)
    fetch_results.check_here(run, outcome.artifacts)
    receipt.update(run, context.store, context.emit)
    context.emit(
        Noted(f"{fetch_results.no_more(run)}; all {len(outcome.artifacts)} files are here, checksums verified")
    )
    return outcome


def _from_kept(run: Run, context: Context) -> Result:
    """The same of a run whose machine is kept. What it was when it was pulled is what counts: whoever works on the
    machine since may have changed the files there."""
    if expiry.is_kept(run, context.clock()):
        with unless_gone(), claim(run.name), Session(run, context, wakes=False) as session:
            if fetch_results.spoilt(run, context.result(run).artifacts):
                fetch_results.fetch_again(run, session)
                files.sha256sums(run.folder)
            receipt.update(run, context.store, context.emit)
            context.emit(
                Noted(f"all its files are here, checksums verified; {expiry.kept_words(run, context.clock())}")
            )
            return context.result(run)
    context.store.write_journal(run.name, RunNotes(owed=True))
    settle(run, context)
    return _all_here(context.store.get(run.name), context)


def missing(run: Run, context: Context) -> list[FileEntry]:
    """The finished files of a run that are not here, by the manifest that its host makes now. A parked machine is not
    started for it.

    Raises:
        CloudtrainError: the host cannot be asked.
    """
    with Session(run, context, wakes=False) as session:
        return files.apart(session.supervisor().manifest().files, run.folder)[1]
