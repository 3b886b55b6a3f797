"""What the end of a run fetches: every finished file of its job, and a log that is the host's to the byte. Later what
is spoilt here once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import CloudtrainError, ConnectionFailed
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.notes import FileEntry
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.told import LOG, ExitRecord
from cloudtrain.lifecycle import checkpoints, spot
from cloudtrain.lifecycle.session import Session
from cloudtrain.run_folder import files, log_times
from cloudtrain.store import Run
from cloudtrain.transfer import pull
from cloudtrain.transfer.download import fetch, fetch_anew

# A job may write a file anew while it is fetched; then its manifest is asked for again, so often.
LIVE_PULLS = 3


def fetch_results(run: Run, session: Session) -> list[FileEntry]:
    """Pull every finished file of the job that its spec wants; a link that breaks meanwhile is opened again.

    Raises:
        ArtifactRefused: a file is not what the host's manifest says; the others are here.
        ConnectionFailed: the link broke again and again, or this disk is full; what arrived is kept.
    """

    def attempt() -> pull.PullReport:
        supervisor = session.supervisor()
        entries = supervisor.manifest()
        session.journal.write(checkpoints.coming(run, entries))
        return pull.pull(supervisor, entries, run.folder, outputs=run.plan.spec.job.outputs, emit=session.context.emit)

    with session.step("pull") as closing:
        try:
            report = session.insist(attempt)
        except ConnectionFailed as error:
            if type(error) is ConnectionFailed and error.code not in (*spot.ENDED, "disk_full", "folder"):
                error.hint = f"cloudtrain pull {run.name} goes on where this one stopped"
                error.consequence = "what arrived is kept, the rest stays on the machine"
            raise
        closing.append(report.summary(run.folder))
    bring_log_times(run.folder, session)
    return list(report.files)


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
        named = ", ".join(entry.name for entry in lacking[:3])
        raise gone(run, f"{named}: missing or changed since the pull")


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
