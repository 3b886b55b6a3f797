"""What the end of a run fetches: every finished file of its job, and a log that is the host's to the byte. Later what
is spoilt here once more.

Where not everything can be taken nothing is deleted: the machine parks, and its user decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, CloudtrainError, ConnectionFailed, LimitReached, RunError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import counted, shortened, size
from cloudtrain.core.told import LOG, ExitRecord
from cloudtrain.lifecycle import checkpoints, machine_end, spot
from cloudtrain.lifecycle.session import Session
from cloudtrain.run_folder import files, log_times
from cloudtrain.store import Run
from cloudtrain.transfer import pull
from cloudtrain.transfer.answers import Manifest
from cloudtrain.transfer.download import fetch, fetch_anew

# A job may write a file anew while it is fetched; then its manifest is asked for again, so often.
LIVE_PULLS = 3
# After so many seconds without a change a file counts as finished while its job goes on (`onhost/results.py`).
SETTLES_S = 11.0
# Of results, where nobody has set how many may come.
LIMIT_GIB = 5.0
# Code of results that are more than may come.
BEYOND = "results_limit"
# Codes of a disk here that takes no more.
_OURS = frozenset({"disk_full", "folder"})
_MOST_NAMED, _MOST_LISTED = 3, 50


def results_of(run: Run, session: Session, *, goes: bool) -> list[FileEntry]:
    """In PULLING: every finished file of the job, here and verified.

    Args:
        goes: the machine is about to go, whatever is still on it.

    Raises:
        LimitReached: there is more than `results_limit` lets come (code `results_limit`); the rest is here.
        ArtifactRefused: a file is not what the host's manifest says; the others are here.
        ConnectionFailed: the link broke again and again, or this disk is full.
    """
    emit, journal = session.context.emit, session.journal
    notes = journal.read(RunNotes)
    known = (*notes.trickled, *notes.left)
    if notes.left and notes.no_pull:
        emit(Warned(f"left behind, as you asked: {named(spoilt(run, notes.left))}"))
        return [entry for entry in known if files.is_here(entry, run.folder)]
    try:
        check_decided(run, notes)
    except LimitReached:
        machine_end.park(run, session)
        raise
    # A machine that has parked is not started for what is here.
    if notes.left and not spoilt(run, known):
        journal.write(RunNotes(left=()))
        return list(known)
    own = run.instance is not None and run.instance.owned
    try:
        report = fetch_results(run, session)
    except ArtifactRefused as error:
        found = session.supervisor().manifest(limit(run, notes))
        here, lacking = files.apart(pull.wanted(found.files, run.plan.spec.job.outputs), run.folder)
        # A size below 0 is none that the host told: in the journal it would damage the run's row.
        journal.write(RunNotes(trickled=tuple(here), left=tuple(one for one in lacking if one.size >= 0)))
        if goes or (notes.stop_wanted and not own):
            emit(Warned(f"left behind: {error.message}"))
            return here
        stop = f"cloudtrain stop {run.name} --no-pull ends it without that file"
        error.hint = f"cloudtrain pull {run.name} tries again; {stop}"
        if notes.stop_wanted:
            machine_end.park(run, session)
        raise
    except ConnectionFailed as error:
        if notes.stop_wanted and error.code in _OURS:
            machine_end.park(run, session)
        raise
    journal.write(RunNotes(left=report.beyond))
    if report.beyond:
        journal.write(RunNotes(trickled=report.files))
        told = beyond(run, report.beyond)
        run = session.context.store.note(run, error=RunError.of(told))
        machine_end.park(run, session)
        raise told
    return list(report.files)


def check_decided(run: Run, notes: RunNotes) -> None:
    """It need not be said first what is to become of results of `run` that are beyond `results_limit`.

    Raises:
        LimitReached: it must.
    """
    waits = run.error is not None and run.error.code == BEYOND and not notes.take_all
    if waits and (rest := spoilt(run, notes.left)):
        raise beyond(run, rest)


def beyond(run: Run, rest: Sequence[FileEntry]) -> LimitReached:
    """The error of a run whose results `rest` are more than `results_limit` lets come."""
    more = f"cloudtrain pull {run.name} --all fetches {'it' if len(rest) == 1 else 'them'}, --only PATTERN a part"
    return LimitReached(
        f"{counted(len(rest), 'result')} of {run.name} {'is' if len(rest) == 1 else 'are'} more than "
        f"results_limit = {allowed(run) / 2**30:g} GiB allows: {named(rest)}",
        hint=f"{more}; cloudtrain stop {run.name} --no-pull ends it without",
        consequence=f"nothing is deleted; all other results are in {run.folder}, verified",
        code="results_limit",
        detail="\n".join(f"{shortened(entry.name)}: {size(entry.size)}" for entry in rest[:_MOST_LISTED])
        if len(rest) > _MOST_NAMED
        else None,
    )


def named(entries: Sequence[FileEntry]) -> str:
    """Some files, with their sizes, in words."""
    told = ", ".join(f"{shortened(entry.name)} ({size(entry.size)})" for entry in entries[:_MOST_NAMED])
    more = entries[_MOST_NAMED:]
    return told + (f" and {len(more)} more ({size(sum(entry.size for entry in more))})" if more else "")


def limit(run: Run, notes: RunNotes) -> float | None:
    """Bytes of results that may come. None: all of them, as of a machine which cannot park, and loses what stays."""
    own = run.instance is not None and run.instance.owned
    if notes.take_all or (own and not machine_end.can_park(run)):
        return None
    return allowed(run)


def allowed(run: Run) -> float:
    """Bytes of results that may come unasked."""
    return (run.plan.spec.limits.results_gib or LIMIT_GIB) * 2**30


def fetch_results(run: Run, session: Session) -> pull.PullReport:
    """Pull every finished file of the job that its spec wants; a link that breaks meanwhile is opened again.

    Raises:
        ArtifactRefused: a file is not what the host's manifest says; the others are here.
        ConnectionFailed: the link broke again and again, or this disk is full; what arrived is kept.
    """

    with session.step("pull") as closing:
        try:
            report, found = session.insist(lambda: taken(run, session))
        except ConnectionFailed as error:
            if type(error) is ConnectionFailed and error.code not in {*spot.ENDED, *_OURS}:
                error.hint = f"cloudtrain pull {run.name} goes on where this one stopped"
                error.consequence = "what arrived is kept, the rest stays on the machine"
            raise
        closing.append(report.summary(run.folder))
    session.journal.write(RunNotes(passed_over=len(report.skipped) + len(report.left)))
    if found.growing:
        session.context.emit(
            Noted(f"{counted(len(found.growing), 'file')} may still be written there, and come once that is over")
        )
    if found.beside:
        told = pull.some([one.words() for one in found.beside])
        session.context.emit(Warned(f"left there, beside the project: {told}"))
    bring_log_times(run.folder, session)
    return report


def taken(run: Run, session: Session, only: Sequence[str] = ()) -> tuple[pull.PullReport, Manifest]:
    """One pull of what the host has by now, and what that is.

    Args:
        only: groups of results, however many bytes they are; empty: all, within the limit.

    Raises:
        ArtifactRefused, ConnectionFailed: see `pull.pull`.
    """
    most = limit(run, session.journal.read(RunNotes))
    for read in (most, None):
        found = _look(run, session, read)
        if not only:
            session.journal.write(checkpoints.coming(run, found.files))
        report = pull.pull(
            session.supervisor(),
            found.files,
            run.folder,
            outputs=run.plan.spec.job.outputs,
            only=only,
            most=None if only else most,
            emit=session.context.emit,
        )
        if not report.unread:
            break
    return report, found


def _look(run: Run, session: Session, most: float | None) -> Manifest:
    """The results on the host; of a job that trains once more where files may have been finished meanwhile."""
    found = session.supervisor().manifest(most)
    if found.growing and run.state is RunState.RUNNING:
        told = f"{counted(len(found.growing), 'file')} may still be written there; looking again in {SETTLES_S:.0f} s"
        session.context.emit(Noted(told))
        session.context.sleep(SETTLES_S)
        found = session.supervisor().manifest(most)
    return found


def check_log(run: Run, session: Session) -> None:
    """The local log equals the host's by the sha256 of the exit record; fetched again from the start if it does not."""
    record = run.ending or ExitRecord()
    path, most = run.folder / LOG, record.log_bytes or 0
    for attempt in range(2):
        if not record.log_sha256 or disk.sha256(path) == record.log_sha256:
            return
        if attempt == 0:
            session.context.emit(Noted("the local log differs from the host's and is fetched again"))
            kept = session.insist(lambda: fetch_anew(session.supervisor().read, LOG, path, most))
            if kept is not None:
                session.context.emit(
                    Noted(f"what had arrived and is not in the host's log any more is kept: {kept.name}")
                )
    session.context.emit(Warned("the log here is not the one that the host's exit record names", hint="both are kept"))


def spoilt(run: Run, entries: Iterable[FileEntry]) -> list[FileEntry]:
    """Those of `entries`, which were pulled once, that are missing here or were changed since."""
    return [entry for entry in entries if not files.is_here(entry, run.folder)]


def check_here(run: Run, entries: Iterable[FileEntry]) -> None:
    """`entries`, which were pulled once, are here and right; `run` no longer has a machine to fetch them from.

    Raises:
        ConnectionFailed: one of them is spoilt.
    """
    if lacking := spoilt(run, entries):
        which = ", ".join(entry.name for entry in lacking[:3])
        raise gone(run, f"{which}: missing or changed since the pull")


def fetch_again(run: Run, session: Session, only: Sequence[str] = ()) -> None:
    """Bring the run's results back as they were when they were pulled, whatever their host has made of them since.

    Args:
        only: groups of results; empty: all of them.

    Raises:
        ArtifactRefused: the host has another file under a name; the others are here.
        ConnectionFailed: the link broke again and again.
    """
    with session.step("pull") as closing:
        emit, entries = session.context.emit, session.context.result(run).artifacts
        done = session.insist(lambda: pull.pull(session.supervisor(), entries, run.folder, only=only, emit=emit))
        closing.append(done.summary(run.folder))


def gone(run: Run, why: str) -> ConnectionFailed:
    """The error of a run whose results are not all here, for the reason `why`, and that no longer has a machine."""
    return ConnectionFailed(
        f"{why}, and {no_more(run)}",
        hint=f"restore the files in {run.folder} from a copy, or train again",
    )


def no_more(run: Run) -> str:
    """Why nothing can be fetched any more, in words."""
    ended = run.life is InstanceLife.TERMINATED
    return f"{run.name} no longer has a machine" if ended else "its host no longer keeps it"


def bring_log_times(folder: Path, session: Session) -> None:
    """Copy the host's times beside the log, where that can be had: nothing depends on them."""
    with suppress(CloudtrainError, OSError):
        fetch(session.supervisor().read, log_times.NAME, folder / log_times.NAME, log_times.MOST_BYTES)
