"""Giving an instance back: ended, confirmed by its state, and nothing of the run left in the account.

The debt is on the disk (`ec2_release_pending`) before the instance is told to end, until EC2 itself says that it has.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudtrain.core import crash
from cloudtrain.core.errors import CloudtrainError, ConnectionFailed, SignInError
from cloudtrain.core.events import Emit, Noted, StepDone, StepProgress, StepStarted, Warned
from cloudtrain.core.instance import Instance, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import an_hour, counted
from cloudtrain.provider.ec2 import network, tags, trust
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import (
    ENDED,
    Item,
    described,
    down_since,
    inventory,
    one,
    reason_of,
    state_of,
    watched,
)
from cloudtrain.provider.ec2.notes import ENDED_NOTES, Debt, Ec2Notes
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.tags import utc_text
from cloudtrain.provider.ec2.translate import FOREIGN, Failure, code_of, failure_of, translate

_SENDS_FOR_S = 90.0


def terminate(
    clients: Clients,
    instance_id: str,
    emit: Emit,
    pace: Pace,
    *,
    launched_at: float | None = None,
    enough: Collection[str] = ("terminated",),
) -> Mapping[str, Any] | None:
    """End an instance and wait until EC2 says that it has ended.

    Args:
        enough: the states that count as an end.
        launched_at: unix seconds; a young instance that EC2 does not know yet is not taken for one that is gone.

    Returns:
        EC2's last description of it; None: EC2 no longer knows it.

    Raises:
        SignInError, ConnectionFailed, CloudtrainError: it may still be running.
    """
    young_until = (launched_at or 0.0) + pace.visible
    error: Exception | None = None
    for _ in pace.backoffs(_SENDS_FOR_S):
        try:
            clients.ec2.terminate_instances(InstanceIds=[instance_id])
            crash.point("K8")
            error = None
            break
        except FOREIGN as raised:
            error = raised
        failure = failure_of(error)
        if failure is Failure.ABSENT:
            if pace.now() > young_until:
                return None
        elif failure not in (Failure.THROTTLED, Failure.UNKNOWN_EFFECT):
            break
        emit(StepProgress("release", f"{instance_id}: no usable answer ({code_of(error)}), asking again"))
    if error is not None:
        raise translate(error, f"terminate {instance_id}", profile=clients.profile, consequence=None) from error
    state = "unknown"
    for found, state, _ in watched(clients, instance_id, emit, pace, step="release", within_s=pace.end):
        if state in enough or (found is None and pace.now() > young_until):
            return found
    raise ConnectionFailed(f"{instance_id} is still {state} after {pace.end:.0f} s", code="not_terminated")


def release_own(instance: Instance, clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> Released:
    """End an instance of ours with all that belongs to it; see `Machine.release`."""
    began = time.monotonic()
    emit(StepStarted("release", instance.id, pace.end))
    notes = journal.read(Ec2Notes)
    debt = Debt(id=instance.id, region=clients.region, price=instance.price_per_hour, since=pace.now())
    journal.write(Ec2Notes(release_pending=debt))
    launched_at = notes.instance.at if notes.instance else None
    before = _look(clients, instance.id)
    try:
        after = terminate(clients, instance.id, emit, pace, launched_at=launched_at)
    except CloudtrainError as error:
        raise _debt(error, instance, clients) from error
    at = down_since(after or before, clients)
    _end_others(instance, clients, notes, emit, pace)
    if before is not None and state_of(before) in ENDED and notes.release_pending is None:
        summary = f"{instance.id} had already ended: {reason_of(before)}"
    elif before is None and after is None:
        summary = f"{instance.id} had already ended; EC2 no longer knows it"
    else:
        summary = f"{instance.id} terminated, nothing is billed any more"
    emit(StepDone("release", summary, time.monotonic() - began))
    left = _sweep(instance, clients, journal, pace, emit)
    journal.write(ENDED_NOTES | Ec2Notes(former=()))
    unlisted = ("not known: it could not be listed",)
    leftovers = unlisted if left is None else tell_inventory(left, clients.region, emit)
    return Released(life=InstanceLife.TERMINATED, summary=summary, at=at, leftovers=leftovers)


def tell_inventory(left: Sequence[Item], region: str, emit: Emit) -> tuple[str, ...]:
    """Say how much of a run is left in the account, and return what is left, in words, each with its price."""
    counts = [(kind, sum(item.kind == kind for item in left)) for kind in ("instance", "volume", "security group")]
    told = ", ".join(counted(count, kind) for kind, count in counts)
    emit(Noted(f"inventory: {told} of this run in {region}"))
    listed = tuple(item.describe() for item in left)
    for line in listed:
        emit(Warned(f"left: {line}", hint="cloudtrain clean ends what is left in the account"))
    return listed


def _look(clients: Clients, instance_id: str) -> Mapping[str, Any] | None:
    """How the instance stood before; a failed look must not keep it from being ended."""
    try:
        return one(clients, instance_id)
    except CloudtrainError:
        return {}


def _end_others(instance: Instance, clients: Clients, notes: Ec2Notes, emit: Emit, pace: Pace) -> None:
    """End what other launch attempts of the run have up: one that was cut short may have left the machine before."""
    if len(notes.seeds) < 2:
        return
    try:
        others = described(clients, tags.where(token=notes.seeds))
    except CloudtrainError as error:
        error.consequence = (
            f"{instance.id} has ended; an earlier machine of the run, if one is up, has a lease that ends it"
        )
        raise
    for other in (str(found["InstanceId"]) for found in others):
        try:
            if other != instance.id:
                terminate(clients, other, emit, pace)
        except CloudtrainError as error:
            raise _debt(error, replace(instance, id=other), clients) from error


def _sweep(instance: Instance, clients: Clients, journal: Journal, pace: Pace, emit: Emit) -> list[Item] | None:
    """Delete the run's security group and keys; what is still there. None: it could not be listed."""
    seeds = journal.read(Ec2Notes).seeds
    if instance.details.token and instance.details.token not in seeds:
        seeds = (*seeds, instance.details.token)
    try:
        left = left_of(clients, seeds)
        groups = [item.id for item in left if item.kind == "security group"]
        held = {group for group in groups if not _delete_group(clients, group, pace, emit)}
        # A volume outlives its instance by some seconds. A group that was waited for once is not waited for again.
        for _ in pace.polls(pace.group if left else 0.0):
            if all(item.id in held for item in left):
                break
            left = left_of(clients, seeds)
    except CloudtrainError as error:
        emit(Warned(f"could not see what is left in {clients.region}: {error.message}", hint="cloudtrain clean"))
        return None
    journal.write(Ec2Notes(group=None))
    if instance.details.run:
        trust.forget(instance.details.run)
    return left


def _delete_group(clients: Clients, group: str, pace: Pace, emit: Emit) -> bool:
    """Whether the group is gone; a wait for it is a step of its own, so that nobody takes it for a machine's."""
    if network.delete_group(clients, group, pace, within_s=0.0):
        return True
    began = time.monotonic()
    emit(StepStarted("tidy", f"security group {group}: something still uses it", pace.group))
    gone = network.delete_group(clients, group, pace)
    outcome = "deleted" if gone else "is still in use; it costs nothing"
    emit(StepDone("tidy", f"security group {group} {outcome}", time.monotonic() - began))
    return gone


def left_of(clients: Clients, seeds: Sequence[str]) -> list[Item]:
    """What the attempts named by `seeds` still have in the Region."""
    return [item for item in inventory(clients, tokens=seeds) if item.state != "terminated"] if seeds else []


def _debt(error: CloudtrainError, instance: Instance, clients: Clients) -> CloudtrainError:
    """The loudest error there is: something may be billed that nobody watches."""
    price = an_hour(instance.price_per_hour, " at ")
    expiry = instance.details.expires_at
    lease = f"its own lease switches it off at {utc_text(expiry)}" if expiry else "its own lease switches it off"
    kind = SignInError if isinstance(error, SignInError) else ConnectionFailed
    region = "" if clients.loopback else f" --region {clients.region}"
    return kind(
        f"{instance.id} could not be terminated and may still be billed{price}: {error.message}",
        hint=f"aws ec2 terminate-instances --instance-ids {instance.id}{region}"
        + (f"; first: {error.hint}" if error.hint else ""),
        consequence=f"{lease} at the latest; cloudtrain stop {instance.details.run} tries again",
        code="release_pending",
        detail=error.detail,
    )
