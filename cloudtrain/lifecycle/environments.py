"""The environment that a run's program gets on its host: made there, noted, and its lock kept in the run's folder."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.environment import Environment
from cloudtrain.core.errors import UnknownRun
from cloudtrain.core.host import HostFacts
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.environment import build
from cloudtrain.environment import container as containers
from cloudtrain.environment.asked import look
from cloudtrain.lifecycle import spot
from cloudtrain.lifecycle.session import Session
from cloudtrain.run_folder.artifacts import LOCK
from cloudtrain.source.tree import Tree
from cloudtrain.store import Run, Store


def here(run: Run, session: Session) -> str | None:
    """The interpreter of a run on this computer: its user's, as it was planned, else that of this command; None: it
    is elsewhere."""
    if run.plan.spec.target is not Target.LOCAL:
        return None
    planned = run.plan.environment
    return planned.base if planned and planned.base else session.find().instance.python


def variables(environment: Environment | None) -> dict[str, str]:
    """What tells conda's programs of their environment."""
    if environment is None or not (environment.conda and environment.bin):
        return {}
    return {"CONDA_PREFIX": posixpath.dirname(environment.bin)}


def before(run: Run, store: Store) -> build.Before | None:
    """What the run had on its machine before this one, or the run had that it repeats or goes on from."""
    notes = store.read_journal(run.name)
    earlier = notes.rerun_of or notes.resumed_from or {}
    try:
        if notes.environment is None:
            of = store.get(str(earlier.get("name")))
            notes = store.read_journal(of.name)
            if notes.id != earlier.get("id"):
                return None
            run = of
        text = Path(run.folder, *LOCK.split("/")).read_text(encoding="utf-8")
    except (UnknownRun, OSError, UnicodeDecodeError):
        return None
    return build.Before(notes.environment, text) if notes.environment else None


def make(run: Run, session: Session, facts: HostFacts) -> None:
    """Have it, and note it; on another machine of the run, from the code that is sent there.

    Raises:
        UsageError, ConnectionFailed: see `build.prepare`.
    """
    job = replace(run.plan.spec.job, source=str(spot.source_of(run, session.journal.read(RunNotes))))
    local, emit, had = run.plan.spec.target is Target.LOCAL, session.context.emit, before(run, session.context.store)
    made, lock = session.insist(
        lambda: build.prepare(
            *(session.transport(), session.supervisor(), facts.python, job), here=local, emit=emit, before=had
        )
    )
    _note(run, session, facts, made, lock)


def build_image(run: Run, session: Session, files: Tree, key: str, digest: str) -> None:
    """Have the image of the Dockerfile, if the run has one, built of the files that were just sent.

    Raises:
        UsageError, ConnectionFailed: see `container.build`.
    """
    notes = session.journal.read(RunNotes)
    made, facts = notes.environment, notes.host
    if made is None or made.image is None or facts is None:
        return
    asked = look(replace(run.plan.spec.job, source=str(files.source)))
    if asked is not None and asked.dockerfile:
        sent, emit = {"tree": key, "digest": digest}, session.context.emit
        built, lock = session.insist(lambda: containers.build(session.supervisor(), made, asked, files, sent, emit))
        _note(run, session, facts, built, lock)


def container(notes: RunNotes) -> dict[str, Any] | None:
    """What docker is to run the program in; None: nothing."""
    made = notes.environment
    if made is None or made.image is None:
        return None
    return {"image": made.image, "gpus": bool(notes.host and notes.host.gpus)}


def _note(run: Run, session: Session, facts: HostFacts, made: Environment, lock: str) -> None:
    if lock:
        path = Path(run.folder, *LOCK.split("/"))
        path.parent.mkdir(exist_ok=True)
        disk.write_durably(path, lock.encode(), mode=0o644)
    session.journal.write(RunNotes(host=facts, python=made.python, environment=made))
