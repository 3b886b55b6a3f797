"""A run's instance: reached, made to park or to end at another time, woken, ended and given back.

A lease ends by a poweroff of the instance by itself (`machine_lease.py`). What that means is the instance's shutdown
behaviour: `terminate` from the launch on, `stop` (the machine is parked) once its disk holds something to lose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudtrain.core import crash
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.core.instance import Ended, Instance, Login, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import at_most
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import an_hour
from cloudtrain.provider.base import Machine
from cloudtrain.provider.ec2 import machine_lease, tags, trust, user_data
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.release import release_own, terminate
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
from cloudtrain.provider.ec2.reach import existing
from cloudtrain.provider.ec2.reach.boot import Credentials, Door
from cloudtrain.provider.ec2.translate import translated
from cloudtrain.transport.base import Transport
from cloudtrain.transport.ssh_boot import connect_booting

# A woken machine has this long to give its results away, in seconds; then it parks again.
WAKE_S = 30 * 60.0


@dataclass(frozen=True, eq=False)
class Ec2Machine(Machine):
    """One instance, with the journal of its run.

    Attributes:
        clients: of the Region that it is in.
        ask_address: finds this computer's public address.
        looked_at: ids of the instances that this command has reached or asked EC2 about.
    """

    clients: Clients
    journal: Journal
    emit: Emit
    pace: Pace
    ask_address: Callable[[], str]
    looked_at: set[str]

    def open(self) -> Transport:
        """See `Machine.open`. A host key that fits neither pin is fatal and never retried."""
        instance, key = self.instance, self._key()
        if not instance.owned:
            existing.host_key_of(instance, self.clients, self.journal, self.emit, self.pace)
        if not key.exists():
            raise UsageError(
                f"the key of {instance.details.run} is not on this computer: {key}",
                hint=f"another computer may hold it; cloudtrain stop {instance.details.run} ends the instance",
                consequence="nothing was sent",
                code="no_key",
            )
        door = Door(
            self.clients, self.journal, self.emit, self.pace, connect=connect_booting, ask_address=self.ask_address
        )
        notes = self.journal.read(Ec2Notes)
        may_be_away = instance.life is InstanceLife.PARKED or instance.id in (notes.parks, notes.held)
        if instance.owned and may_be_away and instance.id not in self.looked_at:
            # A command that comes back: the machine may have ended since, and its address be somebody else's.
            instance = door.as_it_is(instance)
        self.looked_at.add(instance.id)
        return door.open(instance, Credentials(instance.user or "ubuntu", key))

    def login(self) -> Login | None:
        notes = self.journal.read(Ec2Notes)
        pinned = notes.host_key or self.instance.host_key
        return Login((self._key(),), pinned, user=notes.user) if pinned else None

    def park_at_end(self) -> bool:
        """See `Machine.park_at_end`. The one call is recorded; a command that comes back does not make it again."""
        self.looked_at.add(self.instance.id)
        if not self.instance.owned or self.instance.details.spot:
            # EC2 never stops a one-time spot instance, and a machine of the user's is none of our business.
            return False
        if self.journal.read(Ec2Notes).parks != self.instance.id:
            consequence = "if it ends itself, its disk is deleted"
            with self._recorded():
                self._at_poweroff("stop", "stop instead of terminating itself", consequence)
            self.journal.write(Ec2Notes(parks=self.instance.id))
        return True

    def end_at(self, transport: Transport, until: float) -> bool:
        """See `Machine.end_at`. Its disk has nothing to lose any more, so it stops parking first: one that ends early
        then is gone, not billed on."""
        if not self.instance.owned:
            return False
        self.journal.write(Ec2Notes(held=self.instance.id))
        with self._recorded():
            if not self.instance.details.spot:
                self._at_poweroff("terminate", "terminate itself", "its results are here")
                self.journal.write(Ec2Notes(parks=None))
            self._move(transport, until)
        return True

    def extend(self, transport: Transport, expires_at: float) -> bool:
        if self.instance.owned:
            with self._recorded():
                self._move(transport, expires_at)
            self.journal.write(Ec2Notes(ends_by=expires_at))
        return self.instance.owned

    def take_over(self, transport: Transport, until: float) -> None:
        details, kept = self.instance.details, "it ends at the time that it had"
        with self._recorded() as clients:
            found, group = one(clients, self.instance.id) or {}, self.journal.read(Ec2Notes).group
            disks = [each["Ebs"]["VolumeId"] for each in found.get("BlockDeviceMappings", [])]
            marks = tags.tags_of_run(details.run, details.token, "", until)
            del marks[tags.OWNER]
            told: Any = tags.as_list(marks)
            with translated(f"mark {self.instance.id}", profile=clients.profile, consequence=kept):
                clients.ec2.create_tags(Resources=[self.instance.id, *disks, *([group.id] if group else [])], Tags=told)
            crash.point("K11")
            self._move(transport, until)

    def end(self, *, parks: bool) -> Ended:
        with self._recorded() as clients:
            found = one(clients, self.instance.id)
            state = state_of(found) if found else "terminated"
            if state in ENDED:
                return Ended(InstanceLife.TERMINATED, down_since(found, clients))
            if state == "stopped":
                return Ended(InstanceLife.PARKED, down_since(found, clients))
            if not parks:
                last = terminate(clients, self.instance.id, self.emit, self.pace, enough=ENDED)
                return Ended(InstanceLife.TERMINATED, down_since(last, clients), told=True)
            billed, forced = "it may still be billed", {False: 0.0, True: self.pace.end / 2}
            for found, state, gone in watched(
                clients, self.instance.id, self.emit, self.pace, step="release", within_s=self.pace.end
            ):
                if found is None or state in ENDED:
                    return Ended(InstanceLife.TERMINATED, down_since(found, clients), told=True)
                if state == "stopped":
                    return Ended(InstanceLife.PARKED, down_since(found, clients), told=True)
                # Asked first, and later not asked any more: what runs on it may hold up a shutdown.
                for force in [force for force, after in forced.items() if gone >= after]:
                    del forced[force]
                    with translated(f"stop {self.instance.id}", profile=clients.profile, consequence=billed):
                        clients.ec2.stop_instances(InstanceIds=[self.instance.id], Force=force)
            raise ConnectionFailed(
                f"{self.instance.id} is still {state} after {self.pace.end:.0f} s",
                hint=f"cloudtrain stop {self.instance.details.run}".strip(),
                consequence=billed,
                code="not_stopped",
            )

    def wake(self) -> Instance:
        """See `Machine.wake`. It has another address then, and the same host key. Safe to call again after a crash at
        any point."""
        with self._recorded() as clients:
            began = time.monotonic()
            price = None if clients.loopback else self.instance.price_per_hour
            told = f"{self.instance.id} is parked; {told_of_wake(price)}"
            self.emit(StepStarted("instance", told, self.pace.pending))
            asked, within_s = False, self.pace.end + self.pace.pending
            for found, state, _ in watched(
                clients, self.instance.id, self.emit, self.pace, step="instance", within_s=within_s
            ):
                if found is None or state in ENDED:
                    raise ConnectionFailed(
                        f"{self.instance.id} has ended: {reason_of(found)}",
                        hint="what was streamed and pulled so far is kept",
                        consequence="nothing of it is billed any more",
                        code="instance_gone",
                    )
                if state == "running" and address_of(found, private=self.journal.read(Ec2Notes).private):
                    woken = self._as_woken(found)
                    told = f"{woken.id} runs again at {woken.address}"
                    self.emit(StepDone("instance", told, time.monotonic() - began))
                    return woken
                if state == "stopped" and not asked:
                    self._start()
                    asked = True
            raise ConnectionFailed(
                f"{self.instance.id} did not start within {within_s:.0f} s",
                hint=f"cloudtrain pull {self.instance.details.run} tries again",
                consequence="its disk keeps the results",
                code="not_started",
            )

    def release(self) -> Released:
        """See `Machine.release`. A machine that is not ours is left as it was found."""
        release = release_own if self.instance.owned else existing.release_existing
        with self._recorded():
            return release(self.instance, self.clients, self.journal, self.emit, self.pace)

    def _start(self) -> None:
        """Stopped -> pending. The new lease comes first: by the old one the machine would power itself off at once."""
        expires_at = self.pace.now() + WAKE_S
        # It boots anew, so the first login is waited for as after a launch.
        self.journal.write(Ec2Notes(woken=Woken(id=self.instance.id, expires_at=expires_at), reached=None))
        parked = "it stays parked; its disk keeps the results"
        with translated(f"start {self.instance.id}", profile=self.clients.profile, consequence=parked):
            self.clients.ec2.modify_instance_attribute(
                InstanceId=self.instance.id, UserData={"Value": user_data.lease_only(expires_at, WAKE_S).encode()}
            )
            self._mark(expires_at)
            self.clients.ec2.start_instances(InstanceIds=[self.instance.id])

    def _as_woken(self, found: Mapping[str, Any]) -> Instance:
        known, notes = self.instance, self.journal.read(Ec2Notes)
        notes = replace(notes, user=notes.user or known.user, host_key=notes.host_key or known.host_key)
        return to_instance(found, self.clients, notes, run=known.details.run, price=known.price_per_hour)

    def _move(self, transport: Transport, expires_at: float) -> None:
        # The tag first: a machine that ends before its tag says so harms nobody, one that seems expired may be cleaned
        # up.
        kept = "it ends at the time that it had"
        with translated(f"mark {self.instance.id}", profile=self.clients.profile, consequence=kept):
            self._mark(expires_at)
        script = machine_lease.move(expires_at, expires_at - time.time())
        done = transport.run(["sudo", "-n", "sh", "-c", script], timeout=60)
        if done.exit_code != 0:
            told = done.stderr.decode(errors="replace").strip()[-200:]
            raise ConnectionFailed(
                f"the end of {self.instance.id} could not be moved: {told or f'exit code {done.exit_code}'}",
                hint="pull what there is before the old limit: cloudtrain pull " + self.instance.details.run,
                consequence=kept,
                code="lease",
            )

    def _mark(self, expires_at: float) -> None:
        """Say the lease's new end in the instance's tag, by which every computer judges it."""
        self.clients.ec2.create_tags(
            Resources=[self.instance.id], Tags=[{"Key": tags.EXPIRES_AT, "Value": tags.utc_text(expires_at)}]
        )

    def _at_poweroff(self, behaviour: str, told: str, consequence: str) -> None:
        with translated(f"have {self.instance.id} {told}", profile=self.clients.profile, consequence=consequence):
            self.clients.ec2.modify_instance_attribute(
                InstanceId=self.instance.id, InstanceInitiatedShutdownBehavior={"Value": behaviour}
            )

    def _key(self) -> Path:
        """The private key that opens it."""
        owned, run = self.instance.owned, self.instance.details.run
        return trust.keys_folder(run) / "client" if owned else existing.identity_of(self.journal)

    def _recorded(self) -> AbstractContextManager[Clients]:
        return self.clients.recorded(self.journal, self.pace.now)


def told_of_wake(price_per_hour: float | None) -> str:
    """What a woken machine does and can cost, in words; USD, rounded up to the cent."""
    price, most = an_hour(price_per_hour, " at "), at_most(price_per_hour, WAKE_S)
    beyond = f"; at most ${most:.2f} beyond the plan" if most else ""
    return f"starting it{price} for {WAKE_S / 60:.0f} min at most, to fetch what its disk holds{beyond}"
