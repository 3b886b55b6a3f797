"""The provider boundary: where a host comes from, how it is reached, and how it is given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from cloudtrain.core.events import Emit
from cloudtrain.core.instance import Ended, Instance, Login, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.transport.base import Transport


@dataclass(frozen=True, eq=False)
class Machine(ABC):
    """One machine of a run, reached, given a later end and given back. The defaults are of one that is the user's own:
    it is taken as it is, and nothing of ours ends it.

    Attributes:
        instance: what is known of it. Of one that has another address or end by now, another `Machine` is made.
    """

    instance: Instance

    @abstractmethod
    def open(self) -> Transport:
        """Connect, waiting for a machine that is still booting.

        Raises:
            ConnectionFailed, HostKeyMismatch: no connection; nothing was sent. Code `parked`: `wake` starts it.
        """

    def park_at_end(self) -> bool:
        """Training has begun: from now on it parks (stops, keeps its disk) where it would have ended itself.

        Returns:
            Whether it does; False for one that cannot park, or that nothing ends.

        Raises:
            CloudtrainError: it ends itself still, and its disk with it.
        """
        return False

    def end_at(self, transport: Transport, until: float) -> bool:
        """The run's results are pulled: have it end itself for good, disk included, at `until` (unix seconds).

        Returns:
            Whether it does; False for one that nothing ends.

        Raises:
            CloudtrainError: it ends itself, but not by then.
        """
        return False

    def extend(self, transport: Transport, expires_at: float) -> bool:
        """Have it end itself at `expires_at` (unix seconds) and not before; False: it does not end itself.

        Raises:
            CloudtrainError: it ends itself at the time that it had.
        """
        return False

    def take_over(self, transport: Transport, until: float) -> None:
        """It was another run's until now: mark it and what belongs to it as this run's, and have it end itself for good
        at `until` (unix seconds) and not before. Safe to call again. Only a machine that was launched for a run is.

        Raises:
            CloudtrainError: it ends itself at the time that it had.
        """
        raise AssertionError(f"{self.instance.id} was launched for no run")

    def wake(self) -> Instance:
        """Start a parked instance, with a lease that is long enough to fetch what its disk holds.

        Raises:
            ConnectionFailed: it has ended, or did not start.
        """
        return self.instance

    def login(self) -> Login | None:
        """How another SSH client logs in to it; None where there is no SSH."""
        return None

    def end(self, *, parks: bool) -> Ended:
        """End a machine of ours that has outlived its lease, whatever runs on it, and confirm it by its state.

        Args:
            parks: its disk is kept.

        Raises:
            CloudtrainError: it may still be running.
        """
        return Ended(self.instance.life)

    @abstractmethod
    def release(self) -> Released:
        """Give it back, and confirm it by its state. Safe to call again.

        Raises:
            ConnectionFailed, SignInError: it may still be running; the journal keeps the debt.
        """


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
    def find(self, run: str, journal: Journal) -> Instance | None:
        """The live instance of a run, or None if there is none (any more)."""

    def lives(self, known: Iterable[tuple[Instance, Journal]]) -> Mapping[str, Ended]:
        """What whoever runs these instances, each with the journal of its run, says of them now, by their ids; those
        that it does not know, or that nobody but their user runs, are left out.

        Raises:
            CloudtrainError: it was not told.
        """
        return {}

    @abstractmethod
    def machine(self, instance: Instance, journal: Journal, emit: Emit) -> Machine:
        """The machine of a run: `instance` as it is known here, with the run's journal. Nothing is asked of it yet."""
