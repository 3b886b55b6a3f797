"""The checkpoint of a run that lies here, verified: what training goes on from, on this host or on another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import counted
from cloudtrain.core.told import read_events
from cloudtrain.lifecycle.session import Session
from cloudtrain.run_folder.artifacts import FileEntry, refusal
from cloudtrain.source import tree
from cloudtrain.store import Run

VARIABLE = "CLOUDTRAIN_RESUME"
# Notes in a run's journal: the last one that arrived, and one that is under way and may arrive the moment before a
# kill -9.
NOTE, COMING = "checkpoint", "checkpoint_coming"
PUSH_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A file that holds all that training needs to go on.

    Attributes:
        name: below the run's folder here, and below `out/` on its host.
        epoch: whole epochs that are in it, by what the job had told when it was looked for: it may hold more by then.
        step: steps of the next epoch; 0 at an epoch's end.
    """

    name: str
    size: int
    sha256: str
    epoch: int | None = None
    step: int | None = None

    def where(self) -> str:
        """For people: "after epoch 2", "in epoch 3, after 40 steps"."""
        if self.epoch is None:
            return "no epoch told"
        if self.step:
            return f"in epoch {self.epoch + 1}, after {counted(self.step, 'step')}"
        return f"after epoch {self.epoch}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def in_manifest(event: Mapping[str, Any] | None, entries: Iterable[FileEntry]) -> Checkpoint | None:
    """The checkpoint that the job's last `checkpoint` event names, as a manifest has it; None where it has none."""
    known = {entry.name: entry for entry in entries}
    entry = known.get(str((event or {}).get("name")))
    if entry is not None and entry.link is not None:
        entry = known.get(entry.link)
    if event is None or entry is None or refusal(entry.name) is not None:
        return None
    return Checkpoint(
        name=entry.name,
        size=entry.size,
        sha256=entry.sha256,
        epoch=event.get("epoch"),
        step=event.get("step") or 0,
    )


def latest(run: Run, notes: Mapping[str, Any]) -> Checkpoint | None:
    """The newest checkpoint of `run` whose file is here and is what its host said; None: there is none.

    Args:
        notes: the run's journal.
    """
    found = [Checkpoint(**notes[key]) for key in (COMING, NOTE) if notes.get(key)]
    if not found:
        # A run of an earlier version kept no notes of it.
        known = in_manifest(_last_told(run), [FileEntry(**entry) for entry in notes.get("pulled") or []])
        found = [known] if known is not None else []
    return next((one for one in found if is_whole(one, run.folder)), None)


def coming(run: Run, entries: Iterable[FileEntry]) -> dict[str, Any]:
    """Notes for the journal before the files of a manifest are fetched."""
    expected = in_manifest(_last_told(run), entries)
    return {COMING: expected.to_dict()} if expected is not None else {}


def arrived(run: Run, files: Iterable[FileEntry]) -> dict[str, Any]:
    """Notes for the journal once `files` are here."""
    here = in_manifest(_last_told(run), files)
    return {NOTE: here.to_dict(), COMING: None} if here is not None else {}


def onward(run: Run, notes: Mapping[str, Any]) -> str | None:
    """The hint for a run that has ended before its time, if a checkpoint of it is here."""
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


def push(checkpoint: Checkpoint, run: Run, session: Session) -> str:
    """Bring the checkpoint to the run's host, verified there by size and sha256; its path for the job's environment.

    Raises:
        ConnectionFailed: the link broke, or the host did not take it.
    """
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
    key = tree.tree_key(run.folder / f"resume-{session.journal.read().get('id', '')}")
    with session.step("checkpoint", checkpoint.where(), limit_s=PUSH_LIMIT_S) as closing:
        pushed = session.push(one, key)
        closing.append(f"{checkpoint.name}, {checkpoint.where()}: {pushed.summary()}")
    # From the job's working directory, which is WORKDIR/runs/NAME/code.
    return f"../../../trees/{key}/files/{checkpoint.name}"


def _last_told(run: Run) -> Mapping[str, Any] | None:
    last = None
    for event in read_events(run.folder / "events.jsonl"):
        last = event if event.get("kind") == "checkpoint" else last
    return last
