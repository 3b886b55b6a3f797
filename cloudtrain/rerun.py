"""The same run once more, from its own record: settings, seed, target and the very code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudtrain import code_copy, disk, results, tree
from cloudtrain.errors import UsageError
from cloudtrain.spec import RunSpec
from cloudtrain.store import Run, Store


@dataclass(frozen=True, slots=True)
class Repetition:
    """What to start.

    Attributes:
        origin: for the new run's receipt (`rerun_of`): name and id of the run that is repeated.
        code_from: for people: where the code is taken from.
    """

    spec: RunSpec
    origin: Mapping[str, Any]
    code_from: str


def repetition(run: Run, store: Store, name: str) -> Repetition:
    """A run called `name` that repeats `run`.

    Raises:
        UsageError: the code that it ran is not to be had any more (code `no_code`).
    """
    notes = store.read_journal(run.name)
    source, told = _source(run, notes.get("code") or {})
    spec = run.plan.spec
    ec2 = spec.ec2
    if ec2 is not None:
        # Where it ran then, whatever Region this shell has now.
        ec2 = replace(ec2, region=ec2.region or run.plan.offer.details.get("region"))
    spec = replace(spec, name=name, job=replace(spec.job, source=str(source)), ec2=ec2)
    return Repetition(spec, {"name": run.name, "id": notes.get("id")}, told)


def _source(run: Run, code: Mapping[str, Any]) -> tuple[Path, str]:
    """The folder with the code that `run` ran, and where that is, for people."""
    source = Path(run.plan.spec.job.source)
    digest = code.get("digest")
    if not digest:
        return source, f"{run.name} never sent its code: {source} is taken as it is now"
    try:
        now = tree.scan(source, cache=disk.cache_dir(), runs_dir=run.folder.parent).digest
    except UsageError:  # it is gone, or cannot be sent any more
        now = None
    if now == digest:
        return source, f"the code in {source} is what {run.name} ran"
    archive, kept = run.folder / code_copy.NAME, code.get("archive")
    if not kept:
        raise _no_code(f"the code in {source} is not what {run.name} ran, and no copy was kept with it", code)
    try:
        if results.sha256(archive) != kept["sha256"]:
            there = "was changed" if archive.exists() else "is gone"
            raise _no_code(f"the code in {source} is not what {run.name} ran, and its copy {archive} {there}", code)
        place = code_copy.unpack(archive, digest, source.name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _no_code(f"the copy of the code in {run.folder} cannot be unpacked: {reason}", code) from error
    changed = "has changed since" if now else "is not there any more"
    return place, f"the code in {source} {changed}: the copy that {run.name} kept is used ({place})"


def _no_code(message: str, code: Mapping[str, Any]) -> UsageError:
    git = code.get("git") or {}
    committed = f"git checkout {git['commit'][:12]} brings it back" if git and not git.get("dirty") else None
    return UsageError(
        message,
        hint=committed or "restore it, or start a new run",
        consequence="nothing was started",
        code="no_code",
    )
