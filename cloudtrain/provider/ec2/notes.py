"""What the journal of a run on EC2 holds beside the notes of every run; the keys there begin with `ec2_`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from cloudtrain.core.decode import Moment
from cloudtrain.core.notes import Notes


@dataclass(frozen=True, slots=True)
class Slot:
    """One place to ask. `price` is USD an hour; `subnet` None: the zone's default one; `cidr`: its addresses."""

    type: str
    zone: str
    subnet: str | None = None
    price: float | None = None
    vcpus: int | None = None
    vpc: str | None = None
    cidr: str | None = None

    def __str__(self) -> str:
        return f"{self.type} in {self.zone}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchAttempt:
    """One attempt to launch: all its ClientTokens are made from `seed`, which is also its tag `cloudtrain:token`.

    Attributes:
        n: its number, from 1.
        expires_at: unix seconds at which its machine ends itself.
        owner: tag of whoever launches.
        group_name: of the run's own security group; None: another one is used.
        user_data: start-up data, which holds the first host key; None once the machine has been reached.
    """

    seed: str
    run: str
    expires_at: Moment
    n: int = 1
    region: str | None = None
    owner: str = ""
    vpc: str | None = None
    group_name: str | None = None
    user_data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A request that is being sent, fate unknown: it is sent again as it was."""

    slot: Slot
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """An instance that exists: USD an hour, and unix seconds at which EC2 told of it."""

    id: str
    type: str = ""
    zone: str | None = None
    price: float | None = None
    at: Moment = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """A run's own security group and the one range that may use port 22."""

    id: str
    cidr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """An instance that has been told to end since (unix seconds), and its USD an hour."""

    id: str
    region: str | None = None
    price: float | None = None
    since: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """A parked instance that is being started, and its new end in unix seconds."""

    id: str
    expires_at: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class Ec2Notes(Notes):
    """Each on the disk before the effect that it announces.

    Attributes:
        seeds: of all attempts of this run.
        region, user, login_made, ssh_cidr, private: where it was launched, who logs in, whom the start-up data makes
            for that, who is let in, and whether by the private address.
        host_key, next_host_key, host_key_rotated: the pinned key, the one that is to take its place, whether it has.
        request, tried, instance: of the attempt: what is being sent, places with nothing to give ([type, zone, why]),
            and what came of it.
        ends_by: unix seconds: no machine of this run is leased for longer. Of the first lease; `extend` moves it.
        former: machines of earlier attempts of which EC2 has not said yet that they have ended.
        reached: id of the instance that was logged in to.
        release_pending: the debt, until EC2 itself says that it has ended.
        parks: id of the instance that was told to stop instead of ending itself.
        held: id of the one that stays up for a while after its results were pulled, then ends itself.
        woken: it was parked and is being started, to fetch what its disk holds.
        existing, started, identity, host_key_given: of a machine of the user's: its id, its id if a run of ours has
            started it, the user's key file, and the host's key or its fingerprint.
        adopted: the notes of its launch are lost.
    """

    PREFIX: ClassVar[str] = "ec2_"

    attempt: LaunchAttempt | None = None
    seeds: tuple[str, ...] = ()
    region: str | None = None
    user: str | None = None
    login_made: str | None = None
    ssh_cidr: str | None = None
    private: bool = False
    host_key: str | None = None
    next_host_key: str | None = None
    host_key_rotated: bool = False
    request: Pending | None = None
    tried: tuple[tuple[str, str, str], ...] = ()
    instance: Launched | None = None
    ends_by: Moment | None = None
    former: tuple[str, ...] = ()
    group: Group | None = None
    reached: str | None = None
    release_pending: Debt | None = None
    parks: str | None = None
    held: str | None = None
    woken: Woken | None = None
    existing: str | None = None
    started: str | None = None
    identity: str | None = None
    host_key_given: str | None = None
    adopted: bool = False


ENDED_NOTES = Ec2Notes(release_pending=None, instance=None, attempt=None, request=None)
"""Of a run whose machine has ended."""


def handed_over(notes: Ec2Notes, to: str, ends_by: float) -> tuple[Ec2Notes, Ec2Notes]:
    """What is left of `notes` for a run whose kept machine the run `to` takes over, and what `to` has of it: all that
    says which machine it is, who is trusted, and what else belongs to it. Its first end by `to` is `ends_by` (unix
    seconds)."""
    attempt = replace(notes.attempt, run=to, n=1, expires_at=ends_by) if notes.attempt else None
    nothing: dict[str, Any] = dict.fromkeys(each.name for each in fields(Ec2Notes))
    return Ec2Notes(**nothing), replace(
        notes, attempt=attempt, ends_by=ends_by, parks=None, held=None, woken=None, adopted=False
    )
