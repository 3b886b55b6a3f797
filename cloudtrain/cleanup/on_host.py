"""What a host of the user's own keeps of runs, joined with what the registry here knows of them by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cloudtrain.core.events import Emit
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import HostSpec, JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.lifecycle import host_folder
from cloudtrain.provider.host import HostMachine, HostProvider
from cloudtrain.provider.host_address import parse_host
from cloudtrain.store import Run, Store
from cloudtrain.transfer.answers import HostFolder, HostFolders
from cloudtrain.transfer.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Left:
    """A run's folder on a host.

    Attributes:
        run: its name here; None: no run here has its id.
        files: its results (name -> sha256), where all of them are here and verified; else None.
        why: whether it can go, in words.
    """

    folder: HostFolder
    run: str | None
    files: Mapping[str, str] | None
    why: str

    @property
    def safe(self) -> bool:
        """Whether nothing is lost with it."""
        return self.files is not None and not self.folder.lives


def spec(host: str, store: Store, *, identity: str | None, fingerprint: str | None) -> HostSpec:
    """`host` with the key that opens it: the one given, else that of the latest run there."""
    asked = parse_host(host, identity=identity, fingerprint=fingerprint)
    if asked.identity is not None:
        return asked
    hosts = [run.plan.spec.host for run in sorted(store.runs(), key=lambda run: -run.created_at)]
    same = [
        one for one in hosts if one and (one.user, one.address, one.port) == (asked.user, asked.address, asked.port)
    ]
    return parse_host(host, identity=same[0].identity if same else None, fingerprint=fingerprint)


@contextmanager
def supervisor(host: HostSpec, ask: Callable[[str], bool], emit: Emit) -> Iterator[Supervisor]:
    """A client of the program on `host`, for the verbs that are about no run.

    Raises:
        CloudtrainError: it cannot be reached, or its key is not trusted.
    """
    nothing = JobSpec(source="")
    run = RunSpec(name="clean", target=Target.HOST, train=TrainSpec(), job=nothing, runs_dir="", host=host)
    instance = HostProvider(ask).trusted(run, emit)
    with HostMachine(instance).open() as transport:
        yield Supervisor(transport, instance.python, "", instance.workdir)


def known(found: HostFolders, store: Store, before: Sequence[Left] = ()) -> list[Left]:
    """What was found, each with what is known here; of what was known `before` only those, as they stand now."""
    if before:
        now = {folder.name: folder for folder in found.runs}
        return [Left(now.get(one.folder.name, one.folder), one.run, one.files, one.why) for one in before]
    known = [(run, store.read_journal(run.name)) for run in store.runs()]
    runs = {notes.id: (run, notes) for run, notes in known if notes.id}
    left = []
    for folder in found.runs:
        run, notes = runs.get(folder.id or "", (None, RunNotes()))
        files = host_folder.verified(run, notes) if run is not None and run.state.final else None
        left.append(Left(folder, run.name if run else None, files, _why(folder, run, files)))
    return left


def _why(folder: HostFolder, run: Run | None, files: Mapping[str, str] | None) -> str:
    if folder.lives:
        return "it trains" if folder.state == "running" else "it may yet begin to train"
    if run is None:
        return "not known here: another computer's, or of an earlier release"
    return "its results are not all here" if files is None else "its results are here and verified"
