"""A part of a run's results (`pull --only`). It never counts as the pull: no state moves, no machine is given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloudtrain.billing import expiry
from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, Busy, UsageError
from cloudtrain.core.events import Noted
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import fetch_results, story
from cloudtrain.lifecycle.session import Context, Link
from cloudtrain.run_folder import result_groups
from cloudtrain.run_folder.artifacts import FileEntry
from cloudtrain.run_folder.outcome import Result, result
from cloudtrain.store import Run
from cloudtrain.transfer import pull as results
from cloudtrain.transfer.follow import GrowingFile

LOG_FILES = ("console.log", "events.jsonl")
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
    return Part(outcome, tuple(name for name in logs if (outcome.folder / name).exists()))


def pull(run: Run, context: Context, names: Sequence[str]) -> Part:
    """Bring the results of `run` that are in the groups called `names`, each verified.

    Raises:
        UsageError: the run has not begun to train, or its machine is parked: that is not started for a part.
        ConnectionFailed: the host cannot be reached, or is gone and had what is missing here.
        ArtifactRefused: a file is not what the host's manifest says; the others are here.
    """
    if expiry.away(run, context.clock()):
        raise UsageError(
            f"{run.name} has a machine that is parked, and it is not started for a part of the results",
            hint=f"cloudtrain pull {run.name} starts it, fetches everything and ends it",
            consequence="nothing was fetched; its disk keeps the results",
            code="parked",
        )
    if not (run.state.final or run.state.trains):
        raise UsageError(f"{run.name} has not begun to train", hint=f"cloudtrain logs {run.name}", code="nothing_yet")
    pulled = context.store.read_journal(run.name).get("pulled")
    if run.state.final and pulled is not None:
        entries = _verified(run, context, names)
    elif run.life is InstanceLife.TERMINATED:
        raise fetch_results.gone(run, "no result of it was pulled")
    else:
        entries = _fetched(run, context, names)
    logs: tuple[str, ...] = ()
    if result_groups.LOG in names:
        _bring_log(run, context)
        logs = tuple(name for name in LOG_FILES if (run.folder / name).exists())
    return Part(replace(result(run, context), artifacts=tuple(entries)), logs)


def _verified(run: Run, context: Context, names: Sequence[str]) -> list[FileEntry]:
    """Of a run that is over and pulled: what is spoilt here is fetched again as it was."""
    entries = result_groups.chosen(result(run, context).artifacts, names)
    if run.life is InstanceLife.TERMINATED:
        fetch_results.check_here(run, entries)
    elif spoilt := fetch_results.spoilt(run, entries):
        with story.claim(run.name), Link(run, context, wakes=False) as link:
            fetch_results.fetch_again(run, link, spoilt)
    return entries


def _fetched(run: Run, context: Context, names: Sequence[str]) -> list[FileEntry]:
    """Of a run that has not ended here: what its host has finished by now."""
    with Link(run, context, wakes=False) as link, link.step("pull") as closing:

        def attempt() -> results.PullReport[FileEntry]:
            supervisor = link.supervisor()
            wanted = result_groups.chosen(supervisor.manifest(), names)
            outputs = run.plan.spec.job.outputs
            return results.pull(supervisor.read, wanted, run.folder, outputs=outputs, emit=context.emit)

        for left in reversed(range(fetch_results.LIVE_PULLS)):
            try:
                report = link.insist(attempt)
                break
            except ArtifactRefused:
                if not left or run.state is not RunState.RUNNING:
                    raise
        closing.append(report.summary(run.folder))
        return list(report.files)


def _bring_log(run: Run, context: Context) -> None:
    """The log and the events up to now, where no other command brings them already."""
    if run.state is not RunState.RUNNING:
        return
    try:
        with story.claim(run.name), Link(run, context, wakes=False) as link:
            log, events = (GrowingFile(run.folder / name) for name in LOG_FILES)
            try:
                for _ in range(_PIECES):
                    told = link.insist(lambda: link.supervisor().poll(log.size, events.size))
                    new = log.append(log.size, told.log), events.append(events.size, told.events)
                    if not any(new):
                        break
            finally:
                log.close()
                events.close()
    except Busy:
        context.emit(Noted("the log is brought by the command that follows the run"))
