"""The provider boundary: where a host comes from, how it is reached, and how it is given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from cloudtrain.core.events import Emit
from cloudtrain.core.plan import Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.transport.base import Transport

if TYPE_CHECKING:
    from cloudtrain.transfer.supervisor import HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A host that a run uses.

    Attributes:
        id: "i-0123...", "user@address:port", or "local".
        owned: cloudtrain launched it and must end it.
        workdir: folder on the host below which everything lies; relative to the login directory, or absolute.
        python: interpreter on the host for the supervisor (Python >= 3.8).
        host_key: the one pinned public key, OpenSSH format; None where there is no SSH.
        price_per_hour: USD, None where nothing is billed.
        details: JSON-ready facts of the provider.
    """

    id: str
    provider: Target
    owned: bool
    workdir: str
    python: str = "python3"
    address: str | None = None
    port: int = 22
    user: str | None = None
    host_key: str | None = None
    type: str = ""
    zone: str | None = None
    price_per_hour: float | None = None
    life: InstanceLife = InstanceLife.NONE
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for the registry."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Instance:
        """The inverse of `to_dict`."""
        return cls(**{**data, "provider": Target(data["provider"]), "life": InstanceLife(data["life"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """How an instance was given back.

    Attributes:
        life: TERMINATED once EC2 itself says so, NONE for machines that are not ours.
        summary: for people: "i-0a1b terminated, nothing is billed any more".
        leftovers: what this run still has in the account, each for people with its price; empty: nothing.
    """

    life: InstanceLife
    summary: str
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in by another SSH client: private key file, and the pinned host key as OpenSSH writes it."""

    identity: Path
    host_key: str


class Journal(Protocol):
    """A run's own durable notes, for effects that must be recorded before they are caused."""

    def read(self) -> dict[str, Any]:
        """All notes so far."""

    def write(self, notes: Mapping[str, Any]) -> None:
        """Merge `notes` in; on the disk when this returns."""


class Provider(ABC):
    """One source of hosts. Implementations take their clients and clock as arguments, so that tests can."""

    target: ClassVar[Target]

    @abstractmethod
    def survey(self, spec: RunSpec) -> Offer:
        """What could be had for `spec`, by look-ups alone: nothing is created or changed.

        Raises:
            UsageError, SignInError, Refused: the run cannot start; nothing was created.
        """

    @abstractmethod
    def acquire(self, plan: Plan, journal: Journal, emit: Emit) -> Instance:
        """The run's instance, launched if it does not exist yet. Safe to call again after a crash at any point.

        Raises:
            Refused, SignInError: nothing is running.
            ConnectionFailed: an instance may be running; the journal knows it.
        """

    @abstractmethod
    def open(self, instance: Instance, journal: Journal, emit: Emit) -> Transport:
        """Connect, waiting for a machine that is still booting.

        Raises:
            ConnectionFailed, HostKeyMismatch: no connection; nothing was sent. Code `parked`: `wake` starts it.
        """

    def prepare(self, instance: Instance, transport: Transport, facts: HostFacts, job: Path, emit: Emit) -> str:
        """Make the host able to run the job in the folder `job`, and return the interpreter that will.

        The default takes the host as it is.

        Raises:
            ConnectionFailed: what is missing could not be installed.
        """
        return facts.python

    def keep(self, instance: Instance, journal: Journal, emit: Emit) -> bool:
        """Training has begun: from now on `instance` parks (stops, keeps its disk) where it would have ended itself.

        Returns:
            Whether it does; False for one that cannot park, or that nothing ends.

        Raises:
            CloudtrainError: it ends itself still, and its disk with it.
        """
        return False

    def hold(self, instance: Instance, transport: Transport, until: float, journal: Journal, emit: Emit) -> bool:
        """The results of `instance` are pulled: have it end itself for good, disk included, at `until` (unix seconds).

        Returns:
            Whether it does; False for one that nothing ends.

        Raises:
            CloudtrainError: it ends itself, but not by then.
        """
        return False

    def extend(self, instance: Instance, transport: Transport, expires_at: float, journal: Journal, emit: Emit) -> bool:
        """Have `instance` end itself at `expires_at` (unix seconds) and not before; False: it does not end itself.

        Raises:
            CloudtrainError: it ends itself at the time that it had.
        """
        return False

    def wake(self, instance: Instance, journal: Journal, emit: Emit) -> Instance:
        """Start a parked instance, with a lease that is long enough to fetch what its disk holds.

        Raises:
            ConnectionFailed: it has ended, or did not start.
        """
        return instance

    def login(self, instance: Instance, journal: Journal) -> Login | None:
        """How another SSH client logs in to `instance`; None where there is no SSH."""
        return None

    @abstractmethod
    def find(self, run: str, journal: Journal) -> Instance | None:
        """The live instance of a run, or None if there is none (any more)."""

    @abstractmethod
    def list(self) -> list[Instance]:
        """All live instances that carry cloudtrain's mark, with or without a row in the registry."""

    @abstractmethod
    def release(self, instance: Instance, journal: Journal, emit: Emit) -> Released:
        """Give the instance back, and confirm it by its state. Safe to call again.

        Raises:
            ConnectionFailed, SignInError: it may still be running; the journal keeps the debt.
        """
