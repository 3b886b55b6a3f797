"""This computer as the host of a run: nothing is launched, nothing is billed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import ClassVar

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Emit
from cloudtrain.core.instance import Instance, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Candidate, Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.base import Machine, Provider
from cloudtrain.transport.base import Transport
from cloudtrain.transport.local import LocalTransport

WHERE = "this computer"
# MNIST with its index, the code and the results of one run take about 70 MB.
_LEAST_FREE = 128 * 1024 * 1024
_LITTLE_FREE = 1024 * 1024 * 1024


class LocalProvider(Provider):
    """Runs on this computer, by the interpreter that runs cloudtrain."""

    target: ClassVar[Target] = Target.LOCAL

    def survey(self, spec: RunSpec) -> Offer:
        """This computer, if it can train.

        Raises:
            UsageError: there is no torch (code `no_torch`), or no room for runs (codes `folder`, `disk_full`).
        """
        torch = _torch_version()
        if torch is None and not spec.job.command:
            raise UsageError(
                "this computer cannot train: its Python has no torch",
                hint='pip install "cloudtrain[local]"',
                consequence="nothing was started",
                code="no_torch",
            )
        free = _check_room(_folder())
        warnings = (f"only {free / 2**30:.1f} GiB are free in {_folder()}",) if free < _LITTLE_FREE else ()
        candidate = Candidate(type=WHERE, vcpus=os.cpu_count(), note=f"torch {torch}" if torch else "")
        return Offer(where=WHERE, candidates=(candidate,), warnings=warnings)

    def acquire(self, plan: Plan, journal: Journal, emit: Emit) -> Instance:
        """The folder for local runs, made and tried.

        Raises:
            UsageError: it cannot be written (code `folder`), or its disk is full (code `disk_full`).
        """
        folder = _folder()
        _check_room(folder)
        try:
            disk.private_dir(folder)
            trial = folder / f".trial-{os.getpid()}"
            disk.write_durably(trial, b"\0" * 65536)
            trial.unlink()
        except OSError as error:
            raise _unusable(folder, error) from error
        return _instance(folder)

    def find(self, run: str, journal: Journal) -> Instance | None:
        """This computer, always."""
        return _instance(_folder())

    def machine(self, instance: Instance, journal: Journal, emit: Emit) -> Machine:
        return LocalMachine(instance)


class LocalMachine(Machine):
    """This computer."""

    def open(self) -> Transport:
        """Programs start in the folder for local runs.

        Raises:
            UsageError: the folder is gone and cannot be made.
        """
        folder = Path(self.instance.workdir)
        try:
            disk.private_dir(folder)
        except OSError as error:
            raise _unusable(folder, error) from error
        return LocalTransport(folder)

    def release(self) -> Released:
        """Nothing to give back."""
        return Released(life=InstanceLife.NONE, summary="this computer: nothing was billed")


def _folder() -> Path:
    return disk.state_dir() / "local"


def _instance(folder: Path) -> Instance:
    return Instance(
        id="local",
        provider=Target.LOCAL,
        owned=False,
        workdir=str(folder),
        python=sys.executable,
        type=WHERE,
        life=InstanceLife.NONE,
    )


def _torch_version() -> str | None:
    """Looked up, not imported: importing torch takes seconds."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_room(folder: Path) -> int:
    """Free bytes where `folder` is, or would be made.

    Raises:
        UsageError: it cannot be written, or less than a run needs is free.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise _unusable(folder, None)
    free = shutil.disk_usage(existing).free
    if free < _LEAST_FREE:
        raise UsageError(
            f"the disk of {existing} is full: {free / 2**20:.0f} MiB free, a run needs {_LEAST_FREE / 2**20:.0f} MiB",
            hint="free some space, or set CLOUDTRAIN_HOME to a folder on another disk",
            consequence="nothing was started",
            code="disk_full",
        )
    return free


def _unusable(folder: Path, error: OSError | None) -> UsageError:
    reason = f": {error.strerror.lower()}" if error is not None and error.strerror else ""
    return UsageError(
        f"{folder} cannot be written{reason}",
        hint="make it writable, or set CLOUDTRAIN_HOME to a folder that is",
        consequence="nothing was started",
        code="folder",
    )
