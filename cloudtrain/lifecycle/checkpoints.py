"""The checkpoint of a run that lies here, verified: what training goes on from, on this host or on another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import UNREAD, Checkpoint, FileEntry, RunNotes
from cloudtrain.core.told import EVENTS, read_events
from cloudtrain.lifecycle.session import Session
from cloudtrain.run_folder.artifacts import refusal
from cloudtrain.source import tree
from cloudtrain.store import Run

VARIABLE = "CLOUDTRAIN_RESUME"
PUSH_LIMIT_S = 300.0


def in_manifest(event: Mapping[str, Any] | None, entries: Iterable[FileEntry]) -> Checkpoint | None:
    """The checkpoint that the job's last `checkpoint` event names, as a manifest has it; None where it has none."""
    known = {entry.name: entry for entry in entries}
    entry = known.get(event.get("name") or "") if event is not None else None
    if entry is not None and entry.link is not None:
        entry = known.get(entry.link)
    # A size below 0 is none that a host told (`transfer/answers.py`).
    if event is None or entry is None or entry.size < 0 or entry.sha256 == UNREAD or refusal(entry.name) is not None:
        return None
    return Checkpoint(
        name=entry.name,
        size=entry.size,
        sha256=entry.sha256,
        epoch=event.get("epoch"),
        step=event.get("step") or 0,
    )


def latest(run: Run, notes: RunNotes) -> Checkpoint | None:
    """The newest checkpoint of `run` whose file is here and is what its host said; None: there is none.

    Args:
        notes: the run's journal.
    """
    found = [one for one in (notes.checkpoint_coming, notes.checkpoint) if one]
    if not found:
        # A run of an earlier version kept no notes of it.
        known = in_manifest(_last_told(run), notes.pulled or ())
        found = [known] if known is not None else []
    return next((one for one in found if is_whole(one, run.folder)), None)


def coming(run: Run, entries: Iterable[FileEntry]) -> RunNotes:
    """Notes for the journal before the files of a manifest are fetched."""
    expected = in_manifest(_last_told(run), entries)
    return RunNotes(checkpoint_coming=expected) if expected is not None else RunNotes()


def arrived(run: Run, files: Iterable[FileEntry]) -> RunNotes:
    """Notes for the journal once `files` are here."""
    here = in_manifest(_last_told(run), files)
    return RunNotes(checkpoint=here, checkpoint_coming=None) if here is not None else RunNotes()


def onward(run: Run, notes: RunNotes) -> str | None:
    """The hint for a run that has ended before its time, if a checkpoint of it, or a result of a command, is here."""
    if run.plan.spec.job.command:
        begins = "puts its results back and runs the same command again"
        return f"cloudtrain run --resume {run.name} {begins}" if notes.pulled or notes.trickled else None
    checkpoint = latest(run, notes)
    if checkpoint is None:
        return None
    return f"cloudtrain run --resume {run.name} trains on from its checkpoint ({checkpoint.where()})"


def is_whole(checkpoint: Checkpoint, folder: Path) -> bool:
    """Whether `folder` holds the very file."""
    return disk.holds(folder / checkpoint.name, checkpoint.size, checkpoint.sha256)


def copy(checkpoint: Checkpoint, source: Path, dest: Path) -> None:
    """Put the checkpoint in the folder `source` into the folder `dest`, under its name, whole or not at all.

    Raises:
        UsageError: it cannot be read or written, or is not the file that it was (code `no_checkpoint`).
    """
    path = dest / checkpoint.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if disk.copy_verified(source / checkpoint.name, path, checkpoint.sha256):
            return
        why = "it has changed since it was verified"
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    raise UsageError(
        f"the checkpoint {source / checkpoint.name} cannot be taken: {why}",
        hint="restore it from a copy, or start a new run",
        consequence="nothing was started",
        code="no_checkpoint",
    )


def begin(run: Run, session: Session) -> dict[str, Any]:
    """Bring the run's checkpoint to its host, verified there by size and sha256; what the supervisor is told of it.

    Raises:
        ConnectionFailed: the link broke, or the host did not take it.
    """
    checkpoint = latest(run, session.journal.read(RunNotes))
    if checkpoint is None:
        return {}
    entry = tree.FileEntry(checkpoint.size, checkpoint.sha256, 0o644)
    files = {checkpoint.name: entry}
    one = tree.Tree(
        root=run.folder,
        files=files,
        digest=tree.digest_of(files),
        bytes=checkpoint.size,
        source=run.folder / checkpoint.name,
    )
    # A name of its own for each run, from whichever computer it comes: nothing else is ever pushed there.
    key = tree.tree_key(run.folder / f"resume-{session.journal.read(RunNotes).id or ''}")
    with session.step("checkpoint", checkpoint.where(), limit_s=PUSH_LIMIT_S) as closing:
        pushed = session.push(one, key)
        closing.append(f"{checkpoint.name}, {checkpoint.where()}: {pushed.summary()}")
    # From the job's working directory, which is WORKDIR/runs/NAME/code.
    return {"env": {VARIABLE: f"../../../trees/{key}/files/{checkpoint.name}"}}


def _last_told(run: Run) -> Mapping[str, Any] | None:
    last = None
    for event in read_events(run.folder / EVENTS):
        last = event if event.get("kind") == "checkpoint" else last
    return last
