"""A run that goes on, on another machine: what its next launch attempt takes over, and the end of the machine before.

Notes in the run's journal:

    attempt         number of the attempt that is wanted; absent: the first
    avoid_zones     [zone]: to be asked after all others
    ec2_ends_by     unix seconds: no machine of this run is leased for longer. Of the first lease; `extend` moves it
    ec2_former      ids of machines of earlier attempts of which EC2 has not said yet that they have ended
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cloudtrain.core.errors import CloudtrainError, Refused
from cloudtrain.core.events import Emit, Noted
from cloudtrain.core.instance import Journal
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.release import terminate
from cloudtrain.provider.ec2.instances import ENDED, described, one, reason_of, state_of
from cloudtrain.provider.ec2.launch.launch import Slot
from cloudtrain.provider.ec2.pace import Pace

# A lease with less than this left is not worth a launch, in seconds: boot and set-up take longer.
SHORTEST_LEASE_S = 60.0


def wanted(notes: Mapping[str, Any]) -> int:
    """Number of the launch attempt that the journal's `notes` ask for."""
    return int(notes.get("attempt") or 1)


def number_of(attempt: Mapping[str, Any]) -> int:
    """Number of a recorded attempt (`ec2_attempt`)."""
    return int(attempt.get("n") or 1)


def superseded(notes: Mapping[str, Any]) -> bool:
    """Whether another attempt is wanted than the one that the journal's `notes` record."""
    return bool(notes.get("ec2_seeds")) and number_of(notes.get("ec2_attempt") or {}) != wanted(notes)


def ordered(slots: Sequence[Slot], avoided: Collection[str]) -> list[Slot]:
    """`slots` in their order, those in a zone that is avoided last."""
    return sorted(slots, key=lambda slot: slot.zone in avoided)


def lease_end(notes: Mapping[str, Any], asked: float, now: float) -> float:
    """Unix seconds at which a machine that is launched now ends itself: `asked`, and never after the run's first lease.

    Raises:
        Refused: that lease is over, or nearly.
    """
    promised = notes.get("ec2_ends_by")
    if wanted(notes) == 1 or promised is None:
        return asked
    end = min(asked, float(promised))
    if end < now + SHORTEST_LEASE_S:
        raise Refused(
            "the run's time is over: another machine would end before it could train",
            hint="start a new run, with a longer --max-time",
            consequence="nothing is billed any more",
            code="lease_over",
        )
    return end


def end_former(clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> None:
    """End what earlier attempts of the run have running, whoever told it to end before. It stays on record until EC2
    says that it has ended, which may be after this has returned: from `shutting-down` on nothing is billed.

    Raises:
        CloudtrainError: one of them may still be running.
    """
    notes = journal.read()
    seeds = list(notes.get("ec2_seeds") or [])
    known = [notes.get("ec2_instance"), notes.get("ec2_release_pending")]
    ids = [*(notes.get("ec2_former") or []), *(str(note["id"]) for note in known if note)]
    # A launch whose answer was lost is found by its tags alone.
    if seeds:
        ids += [str(found["InstanceId"]) for found in described(clients, tags.where(token=seeds))]
    ids = list(dict.fromkeys(ids))
    journal.write({"ec2_former": ids})
    launched_at = (notes.get("ec2_instance") or {}).get("at")
    for each in ids:
        try:
            last: Mapping[str, Any] | None = one(clients, each)
            if last is None or state_of(last) not in ENDED:
                last = terminate(clients, each, emit, pace, launched_at=launched_at, enough=ENDED)
        except CloudtrainError as error:
            error.consequence = f"{each} may still be billed, until its own lease ends it; no other one was launched"
            raise
        emit(Noted(f"{each} has ended: {reason_of(last)}"))
    forget_ended(clients, journal)


def forget_ended(clients: Clients, journal: Journal) -> None:
    """Take those machines of earlier attempts off the record that EC2 says have ended. Raises nothing: others stay."""
    former = list(journal.read().get("ec2_former") or [])
    if not former:
        return
    try:
        seen = {each: one(clients, each) for each in former}
    except CloudtrainError:
        return
    journal.write({"ec2_former": [each for each, found in seen.items() if found and state_of(found) != "terminated"]})
