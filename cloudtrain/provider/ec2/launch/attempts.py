"""A run that goes on, on another machine: what its next launch takes over, and the end of the machine before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cloudtrain.core.errors import CloudtrainError, Refused
from cloudtrain.core.events import Emit, Noted
from cloudtrain.core.notes import Journal, RunNotes
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.release import terminate
from cloudtrain.provider.ec2.instances import ENDED, described, one, reason_of, state_of
from cloudtrain.provider.ec2.notes import Ec2Notes, Slot
from cloudtrain.provider.ec2.pace import Pace

# A lease with less than this left is not worth a launch, in seconds: boot and set-up take longer.
SHORTEST_LEASE_S = 60.0


def superseded(journal: Journal) -> bool:
    """Whether another attempt is wanted than the one that the journal records."""
    notes, wanted = journal.read(Ec2Notes), journal.read(RunNotes).attempt
    return bool(notes.seeds) and (notes.attempt.n if notes.attempt else 1) != wanted


def ordered(slots: Sequence[Slot], avoided: Collection[str]) -> list[Slot]:
    """`slots` in their order, those in a zone that is avoided last."""
    return sorted(slots, key=lambda slot: slot.zone in avoided)


def lease_end(journal: Journal, asked: float, now: float) -> float:
    """Unix seconds at which a machine that is launched now ends itself: `asked`, and never after the run's first lease.

    Raises:
        Refused: that lease is over, or nearly.
    """
    promised = journal.read(Ec2Notes).ends_by
    if journal.read(RunNotes).attempt == 1 or promised is None:
        return asked
    end = min(asked, promised)
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
    notes = journal.read(Ec2Notes)
    ids = [*notes.former, *(note.id for note in (notes.instance, notes.release_pending) if note)]
    # A launch whose answer was lost is found by its tags alone.
    if notes.seeds:
        ids += [str(found["InstanceId"]) for found in described(clients, tags.where(token=notes.seeds))]
    ids = list(dict.fromkeys(ids))
    journal.write(Ec2Notes(former=tuple(ids)))
    launched_at = notes.instance.at if notes.instance else None
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
    former = journal.read(Ec2Notes).former
    if not former:
        return
    try:
        seen = {each: one(clients, each) for each in former}
    except CloudtrainError:
        return
    left = tuple(each for each, found in seen.items() if found and state_of(found) != "terminated")
    journal.write(Ec2Notes(former=left))
