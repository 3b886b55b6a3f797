"""The provider boundary: where a host comes from, how it is reached, and how it is given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from cloudtrain.core.events import Emit
from cloudtrain.core.host import HostFacts
from cloudtrain.core.instance import Ended, Instance, Login, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.transport.base import Transport


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

    def lives(self, known: Iterable[tuple[Instance, Journal]]) -> Mapping[str, Ended]:
        """What whoever runs these instances, each with the journal of its run, says of them now, by their ids; those
        that it does not know, or that nobody but their user runs, are left out.

        Raises:
            CloudtrainError: it was not told.
        """
        return {}

    def end(self, instance: Instance, journal: Journal, emit: Emit, *, parks: bool) -> Ended:
        """End an instance of ours that has outlived its lease, whatever runs on it, and confirm it by its state.

        Args:
            parks: its disk is kept.

        Raises:
            CloudtrainError: it may still be running.
        """
        return Ended(instance.life)

    @abstractmethod
    def release(self, instance: Instance, journal: Journal, emit: Emit) -> Released:
        """Give the instance back, and confirm it by its state. Safe to call again.

        Raises:
            ConnectionFailed, SignInError: it may still be running; the journal keeps the debt.
        """
