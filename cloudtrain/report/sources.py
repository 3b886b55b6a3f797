"""The facts of a run that is named, or whose folder or `run.json` is given."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.core.errors import UnknownRun
from cloudtrain.report.facts import Facts, gather
from cloudtrain.run_folder import receipt, verify
from cloudtrain.run_folder.redact import Redaction
from cloudtrain.store import Run, Store


def of_run(run: Run, store: Store) -> Facts:
    """The facts of a run of this computer, as it stands now."""
    told = ": ".join(filter(None, (run.error.message, run.error.detail))) if run.error else ""
    # As in the receipt: a report is made to be handed in.
    public, declared = Redaction(run, store.read_journal(run.name)), run.plan.spec.job.figures
    return gather(receipt.build(run, store), run.folder, public(told), declared)


def of_path(path: Path) -> Facts:
    """The facts of the run whose folder or `run.json` is at `path`, from any computer.

    Raises:
        UsageError: there is no receipt, or it cannot be understood.
    """
    return gather(verify.load(path), path if path.is_dir() else path.parent)


def meant(run: str | None, store: Store) -> Run | Path:
    """The run that a user means: a name, the beginning of one, None: the latest; or the path of a folder or `run.json`.

    A run's name wins over a folder that is called the same.

    Raises:
        UnknownRun: there is no such run or file.
    """
    if run is not None and (Path(run).name != run or run.endswith(".json")):
        return Path(run)
    try:
        return store.find(run)
    except UnknownRun:
        if run is not None and Path(run).exists():
            return Path(run)
        raise


def find(run: str | None, store: Store) -> Facts:
    """The facts of the run that a user means, see `meant`.

    Raises:
        UsageError: there is no such run or receipt.
    """
    found = meant(run, store)
    return of_path(found) if isinstance(found, Path) else of_run(found, store)
