"""The lease of an instance of ours: what becomes of it at its end, how that moves, and how a parked machine is woken.

A lease ends by a poweroff of the instance by itself (`machine_lease.py`). What that means is the instance's shutdown
behaviour: `terminate` from the launch on, `stop` (the machine is parked) once its disk holds something to lose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.core.instance import Ended, Instance
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import at_most
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import an_hour
from cloudtrain.provider.ec2 import machine_lease, tags, user_data
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.release import terminate
from cloudtrain.provider.ec2.instances import (
    ENDED,
    address_of,
    down_since,
    one,
    reason_of,
    state_of,
    to_instance,
    watched,
)
from cloudtrain.provider.ec2.notes import Ec2Notes, Woken
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import translated
from cloudtrain.transport.base import Transport

# A woken machine has this long to give its results away, in seconds; then it parks again.
WAKE_S = 30 * 60.0


def park_at_end(instance: Instance, clients: Clients, journal: Journal) -> bool:
    """From now on `instance` stops where it would have terminated itself; False: it is one that cannot.

    Raises:
        CloudtrainError: it terminates itself still.
    """
    if not instance.owned or instance.details.spot:
        # EC2 never stops a one-time spot instance, and a machine of the user's is none of our business.
        return False
    if journal.read(Ec2Notes).parks == instance.id:
        return True
    consequence = "if it ends itself, its disk is deleted"
    _at_poweroff(instance, clients, "stop", "stop instead of terminating itself", consequence)
    journal.write(Ec2Notes(parks=instance.id))
    return True


def end_at(instance: Instance, transport: Transport, until: float, clients: Clients, journal: Journal) -> None:
    """Have an instance whose results are safe terminate itself at `until` (unix seconds), whoever watches.

    Its disk has nothing to lose any more, so it stops parking first: one that ends early then is gone, not billed on.

    Raises:
        ConnectionFailed: its end could not be moved.
        CloudtrainError: AWS refused.
    """
    journal.write(Ec2Notes(held=instance.id))
    if not instance.details.spot:
        _at_poweroff(instance, clients, "terminate", "terminate itself", "its results are here")
        journal.write(Ec2Notes(parks=None))
    move(instance, transport, until, clients)


def _at_poweroff(instance: Instance, clients: Clients, behaviour: str, told: str, consequence: str) -> None:
    with translated(f"have {instance.id} {told}", profile=clients.profile, consequence=consequence):
        clients.ec2.modify_instance_attribute(
            InstanceId=instance.id, InstanceInitiatedShutdownBehavior={"Value": behaviour}
        )


def enforce(instance: Instance, clients: Clients, emit: Emit, pace: Pace, *, parks: bool) -> Ended:
    """End an instance from outside: stopped if it `parks`, else terminated. See `Machine.end`.

    Raises:
        CloudtrainError: EC2 does not say that it has ended.
    """
    found = one(clients, instance.id)
    state = state_of(found) if found else "terminated"
    if state in ENDED:
        return Ended(InstanceLife.TERMINATED, down_since(found, clients) if found else None)
    if state == "stopped":
        return Ended(InstanceLife.PARKED, down_since(found or {}, clients))
    if not parks:
        last = terminate(clients, instance.id, emit, pace, enough=ENDED)
        return Ended(InstanceLife.TERMINATED, down_since(last, clients) if last else None, told=True)
    forced = {False: 0.0, True: pace.end / 2}
    for found, state, gone in watched(clients, instance.id, emit, pace, step="release", within_s=pace.end):
        if found is None or state in ENDED:
            return Ended(InstanceLife.TERMINATED, down_since(found, clients) if found else None, told=True)
        if state == "stopped":
            return Ended(InstanceLife.PARKED, down_since(found, clients), told=True)
        # Asked first, and later not asked any more: what runs on it may hold up a shutdown.
        for force in [force for force, after in forced.items() if gone >= after]:
            del forced[force]
            with translated(f"stop {instance.id}", profile=clients.profile, consequence="it may still be billed"):
                clients.ec2.stop_instances(InstanceIds=[instance.id], Force=force)
    raise ConnectionFailed(
        f"{instance.id} is still {state} after {pace.end:.0f} s",
        hint=f"cloudtrain stop {instance.details.run}".strip(),
        consequence="it may still be billed",
        code="not_stopped",
    )


def wake(instance: Instance, clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> Instance:
    """Start a parked instance with a short new lease: it has another address then, and the same host key.

    Safe to call again after a crash at any point.

    Raises:
        ConnectionFailed: it has ended, or did not start.
        CloudtrainError: AWS refused; it stays parked and its disk keeps the results.
    """
    began = time.monotonic()
    told = f"{instance.id} is parked; {told_of_wake(None if clients.loopback else instance.price_per_hour)}"
    emit(StepStarted("instance", told, pace.pending))
    asked, within_s = False, pace.end + pace.pending
    for found, state, _ in watched(clients, instance.id, emit, pace, step="instance", within_s=within_s):
        if found is None or state in ENDED:
            raise ConnectionFailed(
                f"{instance.id} has ended: {reason_of(found)}",
                hint="what was streamed and pulled so far is kept",
                consequence="nothing of it is billed any more",
                code="instance_gone",
            )
        if state == "running" and address_of(found, private=journal.read(Ec2Notes).private):
            woken = _as_woken(instance, found, clients, journal, pace)
            emit(StepDone("instance", f"{instance.id} runs again at {woken.address}", time.monotonic() - began))
            return woken
        if state == "stopped" and not asked:
            _start(instance, clients, journal, emit, pace)
            asked = True
    raise ConnectionFailed(
        f"{instance.id} did not start within {within_s:.0f} s",
        hint=f"cloudtrain pull {instance.details.run} tries again",
        consequence="its disk keeps the results",
        code="not_started",
    )


def told_of_wake(price_per_hour: float | None) -> str:
    """What a woken machine does and can cost, in words; USD, rounded up to the cent."""
    price, most = an_hour(price_per_hour, " at "), at_most(price_per_hour, WAKE_S)
    beyond = f"; at most ${most:.2f} beyond the plan" if most else ""
    return f"starting it{price} for {WAKE_S / 60:.0f} min at most, to fetch what its disk holds{beyond}"


def _start(instance: Instance, clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> None:
    """Stopped -> pending. The new lease comes first: by the old one the machine would power itself off at once."""
    expires_at = pace.now() + WAKE_S
    # It boots anew, so the first login is waited for as after a launch.
    journal.write(Ec2Notes(woken=Woken(id=instance.id, expires_at=expires_at), reached=None))
    with translated(
        f"start {instance.id}", profile=clients.profile, consequence="it stays parked; its disk keeps the results"
    ):
        clients.ec2.modify_instance_attribute(
            InstanceId=instance.id, UserData={"Value": user_data.lease_only(expires_at, WAKE_S).encode()}
        )
        mark(instance.id, expires_at, clients)
        clients.ec2.start_instances(InstanceIds=[instance.id])


def move(instance: Instance, transport: Transport, expires_at: float, clients: Clients) -> None:
    """Have the instance end itself at `expires_at` (unix seconds).

    Raises:
        ConnectionFailed: its end could not be moved.
        CloudtrainError: its tag could not be moved; nothing was changed.
    """
    # The tag first: a machine that ends before its tag says so harms nobody, one that seems expired may be cleaned up.
    with translated(f"mark {instance.id}", profile=clients.profile, consequence="it ends at the time that it had"):
        mark(instance.id, expires_at, clients)
    script = machine_lease.move(expires_at, expires_at - time.time())
    done = transport.run(["sudo", "-n", "sh", "-c", script], timeout=60)
    if done.exit_code != 0:
        told = done.stderr.decode(errors="replace").strip()[-200:]
        raise ConnectionFailed(
            f"the end of {instance.id} could not be moved: {told or f'exit code {done.exit_code}'}",
            hint="pull what there is before the old limit: cloudtrain pull " + instance.details.run,
            consequence="it ends at the time that it had",
            code="lease",
        )


def mark(instance_id: str, expires_at: float, clients: Clients) -> None:
    """Say the lease's new end in the instance's tag, by which every computer judges it."""
    clients.ec2.create_tags(
        Resources=[instance_id], Tags=[{"Key": tags.EXPIRES_AT, "Value": tags.utc_text(expires_at)}]
    )


def _as_woken(instance: Instance, found: Mapping[str, Any], clients: Clients, journal: Journal, pace: Pace) -> Instance:
    notes = journal.read(Ec2Notes)
    notes = replace(notes, user=notes.user or instance.user, host_key=notes.host_key or instance.host_key)
    return to_instance(found, clients, notes, run=instance.details.run, price=instance.price_per_hour)
