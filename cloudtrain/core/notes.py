"""What a run's journal holds: notes that are on the disk before the effect that they announce (docs/structure.md).

Each key stands here once; what a provider alone notes stands with it (`provider/ec2/notes.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from cloudtrain.core.decode import Count, Given, Moment, brief, made
from cloudtrain.core.environment import Environment
from cloudtrain.core.host import HostFacts
from cloudtrain.core.text import counted


class Notes(Given):
    """Base of dataclasses whose fields are keys of a journal. One that is read holds what is there; one that is made
    holds what is to be written: the fields that it was given, None to clear one, and no others."""

    PREFIX: ClassVar[str] = ""

    @classmethod
    def of(cls, journal: Mapping[str, Any]) -> Self:
        """Those of `journal`; null is no note, and keys of others are passed over.

        Raises:
            Odd: one is not what it should be.
        """
        mine = {key: value for key, value in journal.items() if value is not None and key.startswith(cls.PREFIX)}
        return made(cls, {key.removeprefix(cls.PREFIX): value for key, value in mine.items()})

    def entries(self) -> dict[str, Any]:
        """JSON-ready form, by the keys in the journal."""
        return {f"{self.PREFIX}{name}": value for name, value in self.to_dict().items()}


N = TypeVar("N", bound=Notes)


class Journal(Protocol):
    """A run's own durable notes, for effects that must be recorded before they are caused."""

    def read(self, kind: type[N]) -> N:
        """All notes of this kind so far."""

    def write(self, notes: Notes) -> None:
        """Merge in what `notes` were given; on the disk when this returns."""


# In the place of a sha256: the host has not read the file.
UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A finished file of the job: name among its results, bytes, sha256 in lower-case hex; or a link.

    Attributes:
        link: of a link, the name of the file or folder that it leads to; size and sha256 are those of this name.
        stored: its name below the run's folder here, where that is another.
    """

    name: str
    size: Count
    sha256: str
    link: str | None = None
    stored: str | None = None

    @property
    def here(self) -> str:
        """Its name below the run's folder."""
        return self.stored or self.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without what it has not."""
        return brief(self)

    def to(self, link: str) -> FileEntry:
        """The same name as a link that leads to `link`."""
        name = link.encode("utf-8", "surrogatepass")
        return replace(self, size=len(name), sha256=hashlib.sha256(name).hexdigest(), link=link)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A file that holds all that training needs to go on.

    Attributes:
        name: below the run's folder here, and below `out/` on its host.
        epoch: whole epochs that are in it, by what the job had told when it was looked for: it may hold more by then.
        step: steps of the next epoch; 0 at an epoch's end.
    """

    name: str
    size: Count
    sha256: str
    epoch: Count | None = None
    step: Count | None = None

    def where(self) -> str:
        """Human-readable: "after epoch 2", "in epoch 3, after 40 steps"."""
        if self.epoch is None:
            return "no epoch told"
        if self.step:
            return f"in epoch {self.epoch + 1}, after {counted(self.step, 'step')}"
        return f"after epoch {self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """Verified results of `run`, in its `folder` here (absolute), with which the same command goes on."""

    run: str
    folder: str
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class CodeCopy:
    """The archive's size in bytes and its sha256."""

    size: Count
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRecord:
    """The commit that code was of, and the hash of what was not as committed, if anything was not."""

    commit: str
    dirty: bool = False
    diff_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCode:
    """The code that was sent last, to the machine `target_id`; `archive`: the copy that is kept with the run."""

    digest: str | None = None
    archive: CodeCopy | None = None
    git: GitRecord | None = None
    target_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A machine that the run was on before this one; `log` and `events` (bytes, sha256) as they are in the files here.

    Attributes:
        n: its number, from 1; ended: unix seconds; usd: what it cost.
        exit: `code`, `signal` and `stop` of the host's exit record.
    """

    n: int
    instance_id: str | None = None
    instance_type: str | None = None
    zone: str | None = None
    ended: Moment | None = None
    ended_how: str | None = None
    exit: Mapping[str, Any] | None = None
    usd: float = 0.0
    log: Mapping[str, Any] | None = None
    events: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsRequest:
    """A call that AWS has answered: AWS's id of it, and its code where it refused."""

    call: str | None = None
    id: str | None = None
    at: Moment | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The end (unix seconds) that was promised for the machine `id`, which stays up although its run has ended."""

    id: str = ""
    until: Moment = 0.0


@dataclass(frozen=True, kw_only=True)
class RunNotes(Notes):
    """Notes of every run.

    Attributes:
        id, on_host: what it is known by, and the name of its folder in `runs/` on its host; the latter is there where
            the program on the host knows the run by its id.
        rerun_of, resumed_from: name and id of the run that it repeats or goes on from.
        attempt: number of the machine that it is on, from 1; one more before INTERRUPTED -> PROVISIONING.
        attempts: the machines that are over.
        avoid_zones: where machines of it were taken back; other places are asked first.
        run_ends_at: unix seconds at which it ends whatever happens: no later machine moves it.
        ends_at: the same, moved by `extend`, of a run whose machine does not end itself.
        stop_wanted, no_pull: somebody has asked for its end: it gets no other machine; and for an end without a pull.
        keep_s: seconds that `stop` wants its machine to stay up, in the place of the plan's; 0: it is to end at once.
        held: written before anything is moved, so that a command which comes back promises no more.
        parks: id of the machine that parks where it would have ended itself.
        handed_to: name of the run whose its machine is now: this one has none any more.
        owed, leftovers: its machine's end is not confirmed; what it still has in the account, human-readable.
        host, python: what the host's probe told, and the interpreter for the job.
        environment: what its program runs in.
        code: what was sent.
        gpu_idle_agreed: a person has agreed to go on without the GPU.
        pulled, trickled: its verified results; what has come down of them before all of it has.
        left: results that the last pull could not take; `take_all`: all are wanted, whatever `results_limit` says.
        passed_over: how many files of the job's the last pull left there because nobody wants them.
        checkpoint, checkpoint_coming: the last that arrived, and one that is under way and may arrive the moment before
            a kill -9.
        put_back: what the run began with, where it goes on from another by its results.
        gone_there: its folder on the host is gone, or about to go.
        aws_requests: the last calls that started or ended machines (`provider/ec2/clients.py`).
    """

    id: str | None = None
    on_host: str | None = None
    rerun_of: Mapping[str, Any] | None = None
    resumed_from: Mapping[str, Any] | None = None
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    avoid_zones: tuple[str, ...] = ()
    run_ends_at: Moment | None = None
    ends_at: Moment | None = None
    stop_wanted: bool = False
    no_pull: bool = False
    keep_s: float | None = None
    held: Promise | None = None
    parks: str | None = None
    handed_to: str | None = None
    owed: bool = False
    leftovers: tuple[str, ...] = ()
    # What a host told is left out where it is odd: it must not keep anybody from the run.
    host: Annotated[HostFacts, partial(made, HostFacts, leave_out=True)] | None = None
    python: str | None = None
    environment: Environment | None = None
    code: SentCode | None = None
    gpu_idle_agreed: bool = False
    pulled: tuple[FileEntry, ...] | None = None
    trickled: tuple[FileEntry, ...] = ()
    left: tuple[FileEntry, ...] = ()
    take_all: bool = False
    passed_over: Count = 0
    checkpoint: Checkpoint | None = None
    checkpoint_coming: Checkpoint | None = None
    put_back: PutBack | None = None
    gone_there: bool = False
    aws_requests: tuple[AwsRequest, ...] = ()
