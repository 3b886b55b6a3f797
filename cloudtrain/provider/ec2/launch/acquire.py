"""From a plan to one running instance, from wherever an earlier command left it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from cloudtrain.core import crash
from cloudtrain.core.errors import CloudtrainError, NoCapacity, QuotaExceeded, Refused
from cloudtrain.core.events import Emit, Noted, StepDone, StepProgress, StepStarted, Warned
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import Journal, RunNotes
from cloudtrain.core.plan import DEFAULT_LIMIT_S, Plan
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2 import network, tags, trust, user_data
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.release import left_of, tell_inventory, terminate
from cloudtrain.provider.ec2.instances import (
    ENDED,
    address_of,
    blame_of,
    described,
    one,
    reason_of,
    state_of,
    to_instance,
    watched,
)
from cloudtrain.provider.ec2.launch import attempts
from cloudtrain.provider.ec2.launch.attempts import SHORTEST_LEASE_S
from cloudtrain.provider.ec2.launch.launch import Launch, request_for, slots_of
from cloudtrain.provider.ec2.notes import Ec2Notes, LaunchAttempt, Launched, Slot
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import translated
from cloudtrain.transport.ssh_keys import public_key

# A machine before that was taken back counts against the quota for a while. Its new place is asked for so long and so
# often, in seconds.
QUOTA_WAIT_S = 240.0
QUOTA_PAUSE_S = 20.0


class Acquisition:
    """One call of `Provider.acquire` for an instance of our own.

    Args:
        ask_address: finds this computer's public address (`network.ask_address`).
    """

    def __init__(
        self,
        plan: Plan,
        clients: Clients,
        journal: Journal,
        emit: Emit,
        pace: Pace,
        ask_address: Callable[[], str] = network.ask_address,
    ) -> None:
        assert plan.spec.ec2 is not None
        self._plan = plan
        self._spec: Ec2Spec = plan.spec.ec2
        self._clients = clients
        self._journal = journal
        self._emit = emit
        self._pace = pace
        self._ask_address = ask_address

    def instance(self) -> Instance:
        """The run's running instance; see `Provider.acquire`."""
        began = time.monotonic()
        free = ", a rehearsal: nothing is billed" if self._spec.rehearsal else ""
        self._emit(StepStarted("instance", f"in {self._clients.region}{free}", self._pace.pending))
        try:
            found = self._first_running()
        except CloudtrainError as error:
            self._tidy(error)
            raise
        self._emit(StepDone("instance", f"{found.id} {found.type}, {found.zone}", time.monotonic() - began))
        return found

    def _first_running(self) -> Instance:
        notes = self._journal.read(Ec2Notes)
        slots = attempts.ordered(slots_of(self._plan.offer.details), self._journal.read(RunNotes).avoid_zones)
        record = begun = None
        if attempts.superseded(self._journal):
            attempts.end_former(self._clients, self._journal, self._emit, self._pace)
        else:
            record = self._left_over()
            begun = self._journal.read(Ec2Notes).attempt
        attempt = begun or self._begin()
        launch = self._launch(attempt)
        if begun and record is None:
            record = self._pending(launch, attempt)
        group = None
        # Each turn either returns or gives one place up, so this ends.
        for _ in range(len(slots) + 1):
            if record is None:
                group = group or self._group(attempt)
                tried = {(t, z) for t, z, _ in self._journal.read(Ec2Notes).tried}
                left = [slot for slot in slots if (slot.type, slot.zone) not in tried]
                record = self._ask(launch, left, attempt, group)
            if record is None:
                raise self._none_free(slots)
            if running := self._wait_running(record, launch):
                attempts.forget_ended(self._clients, self._journal)
                notes = self._journal.read(Ec2Notes)
                offered = {one.type: one.gpu for one in self._plan.offer.candidates}
                gpu, price = offered.get(str(running.get("InstanceType")), ""), record.price
                return to_instance(running, self._clients, notes, run=attempt.run, price=price, gpu=gpu)
            record = None
        raise self._none_free(slots)

    def _ask(self, launch: Launch, slots: list[Slot], attempt: LaunchAttempt, group: str) -> Launched | None:
        """The first of `slots` that has an instance to give. The quota may count the machine before for a while."""
        patience = QUOTA_WAIT_S if attempt.n > 1 else 0.0
        began = self._pace.clock()
        while True:
            try:
                return launch.first_free(slots, lambda slot: self._request(slot, attempt, group))
            except QuotaExceeded as error:
                gone = self._pace.clock() - began
                if gone >= patience:
                    raise
                self._emit(StepProgress("instance", error.message, done=gone, total=patience, unit="s"))
                self._pace.sleep(QUOTA_PAUSE_S)

    def _left_over(self) -> Launched | None:
        """The instance on record, if it lives. One that has ended closes its attempt."""
        record = self._journal.read(Ec2Notes).instance
        if record is None:
            return None
        young = max(0.0, self._pace.visible - (self._pace.now() - record.at))
        found = None
        for _ in self._pace.polls(young):
            if found := one(self._clients, record.id):
                break
        if found is not None and state_of(found) not in ENDED:
            return record
        self._emit(Noted(f"{record.id} has ended: {reason_of(found)}"))
        self._close()
        return None

    def _pending(self, launch: Launch, attempt: LaunchAttempt) -> Launched | None:
        """What an attempt that was cut short has started, or starts by the very request that it recorded."""
        waiting = self._journal.read(Ec2Notes).request
        if waiting is None:
            return launch.reconcile(None)
        slot = waiting.slot
        if found := launch.reconcile(slot, settle=True):
            self._emit(Noted(f"found {found.id}, started by an earlier command"))
            return found
        if self._pace.now() > attempt.expires_at - SHORTEST_LEASE_S:
            self._journal.write(Ec2Notes(request=None))
            raise Refused(
                "the launch was cut short so long ago that its lease is over; nothing of it exists",
                hint="start a new run",
                consequence="nothing is billed",
                code="lease_over",
            )
        return launch.send(slot, waiting.request)

    def _begin(self) -> LaunchAttempt:
        """Record a new attempt: who it is, when it ends, what it trusts."""
        details, run = self._plan.offer.details, self._plan.spec.name
        own = self._spec.security_group is None
        notes, now = self._journal.read(Ec2Notes), self._pace.now()
        number = self._journal.read(RunNotes).attempt
        # All ClientTokens are made from the seed, so each attempt has its own.
        seed = secrets.token_hex(8) + (f"-{number}" if number > 1 else "")
        expires_at = attempts.lease_end(self._journal, now + (self._plan.limit_s or DEFAULT_LIMIT_S), now)
        owner = details.owner or self._owner()
        vpc = next((slot.vpc for slot in slots_of(details)), None)
        if own and vpc is None:
            vpc = network.default_vpc(self._clients)
        login = self._spec.user or details.user or "ubuntu"
        # Whom an image of Amazon's lets in is known; of others only its name tells, if that.
        made = self._spec.user or (None if details.image_owner == "amazon" else user_data.LOGIN)
        host_private, host_public = trust.new_host_key(run)
        client = public_key(trust.client_key(run))
        # A later attempt uses the run's group again, if the one before has left it.
        before = notes.attempt.group_name if notes.attempt else None
        group_name = before or f"cloudtrain-{run}-{seed[:8]}" if own else None
        attempt = LaunchAttempt(
            n=number,
            seed=seed,
            run=run,
            region=self._clients.region,
            expires_at=expires_at,
            owner=owner,
            vpc=vpc,
            group_name=group_name,
            user_data=user_data.render(
                host_private=host_private,
                host_public=host_public,
                client_public=client,
                login=made,
                expires_at=expires_at,
                lasts_s=expires_at - now,
            ),
        )
        self._journal.write(
            Ec2Notes(
                attempt=attempt,
                seeds=(*notes.seeds, seed),
                ends_by=expires_at if number == 1 else notes.ends_by or expires_at,
                region=self._clients.region,
                user=login,
                login_made=made,
                host_key=host_public,
                next_host_key=None,
                host_key_rotated=False,
                tried=(),
                request=None,
                instance=None,
                group=None,
                ssh_cidr=self._spec.ssh_cidr,
                private=self._spec.private_ip,
                reached=None,
                release_pending=None,
            )
        )
        crash.point("K1")
        return attempt

    def _owner(self) -> str:
        with translated("look up who you are", profile=self._clients.profile):
            return tags.owner_of(self._clients.sts.get_caller_identity()["UserId"])

    def _close(self) -> None:
        self._journal.write(Ec2Notes(attempt=None, request=None, instance=None, tried=()))

    def _launch(self, attempt: LaunchAttempt) -> Launch:
        return Launch(
            self._clients,
            self._journal,
            self._emit,
            self._pace,
            seed=attempt.seed,
            spot=self._spec.spot,
            give_up_at=attempt.expires_at - SHORTEST_LEASE_S / 2,
        )

    def _marks(self, attempt: LaunchAttempt) -> dict[str, str]:
        return tags.tags_of_run(attempt.run, attempt.seed, attempt.owner, attempt.expires_at, self._spec)

    def _group(self, attempt: LaunchAttempt) -> str:
        """The security group to launch into: the one that was named, or the run's own."""
        if self._spec.security_group:
            return self._spec.security_group
        assert attempt.group_name is not None and attempt.vpc is not None
        towards = next((slot.cidr for slot in slots_of(self._plan.offer.details) if self._spec.private_ip), None)
        cidr = network.caller_cidr(self._clients, self._spec.ssh_cidr, self._ask_address, towards)
        if cidr.endswith("/0"):
            self._emit(Warned("port 22 will be open to every address", hint="--ssh-cidr ADDRESS/32 allows only yours"))
        self._emit(StepProgress("instance", f"port 22 for {cidr} alone"))
        group = network.ensure_group(self._clients, attempt.group_name, attempt.vpc, cidr, self._marks(attempt))
        crash.point("K2")
        self._journal.write(Ec2Notes(group=group))
        return group.id

    def _request(self, slot: Slot, attempt: LaunchAttempt, group: str) -> dict[str, Any]:
        return request_for(
            slot,
            self._plan.offer.details,
            self._spec,
            seed=attempt.seed,
            group=group,
            user_data=attempt.user_data or "",
            marks=self._marks(attempt),
        )

    def _wait_running(self, record: Launched, launch: Launch) -> Mapping[str, Any] | None:
        """The instance once it runs and has an address; None: it died first, and its place is given up.

        Raises:
            Refused: it died for a reason that holds everywhere, or stayed pending and has been terminated.
        """
        seen, pending = False, self._pace.pending
        looks = watched(
            self._clients,
            record.id,
            self._emit,
            self._pace,
            step="instance",
            within_s=pending,
            unlisted="not listed yet",
        )
        for found, state, gone in looks:
            if found is None and (seen or gone > self._pace.visible):
                break
            seen = seen or bool(found)
            if not found:
                continue
            if state in ENDED:
                why = reason_of(found)
                self._emit(Noted(f"{record.id} ended before it ran: {why}"))
                self._journal.write(Ec2Notes(instance=None))
                if blame := blame_of(found):
                    raise _died(record.id, blame, why)
                launch.refuse(Slot(record.type, record.zone or ""), why)
                return None
            if state == "running" and address_of(found, private=self._spec.private_ip):
                return found
            if state == "running" and gone > self._pace.visible:
                terminate(self._clients, record.id, self._emit, self._pace)
                raise Refused(
                    f"{record.id} got no public address",
                    hint="choose a subnet whose instances get one: --subnet subnet-...; or --private-ip over your VPN",
                    consequence="it was terminated; nothing is billed any more",
                    code="no_public_ip",
                )
        terminate(self._clients, record.id, self._emit, self._pace)
        raise Refused(
            f"{record.id} did not start within {pending:.0f} s",
            hint="run again, or choose another type or Region",
            consequence="it was terminated; nothing is billed any more",
            code="stuck_pending",
        )

    def _none_free(self, slots: list[Slot]) -> NoCapacity:
        types = list(dict.fromkeys(slot.type for slot in slots))
        reasons = [f"{t} in {z}: {why}" for t, z, why in self._journal.read(Ec2Notes).tried]
        spot = " as spot" if self._spec.spot else ""
        other = "run without --spot, or " if self._spec.spot else ""
        example = ",".join([*types, "g6.xlarge" if "g6.xlarge" not in types else "g5.xlarge"][:4])
        return NoCapacity(
            f"no {' or '.join(types)} free{spot} in {self._clients.region} ({len(slots)} places tried)",
            hint=f"{other}--instance {example} tries more; or another Region: --region us-west-2",
            consequence="nothing is billed",
            detail="\n".join(reasons) or None,
        )

    def _tidy(self, error: CloudtrainError) -> None:
        """Nothing of ours runs: take the group away too. Where that is not certain, all is left to the next command."""
        notes = self._journal.read(Ec2Notes)
        attempt = notes.attempt
        if attempt is None or notes.request or error.code == "launch_unknown":
            return
        try:
            if described(self._clients, tags.where(token=attempt.seed)):
                return
            group = notes.group.id if notes.group else None
            if group is None and attempt.group_name:
                group = network.group_named(self._clients, attempt.group_name)
            if group:
                network.delete_group(self._clients, group, self._pace)
            tell_inventory(left_of(self._clients, notes.seeds), self._clients.region, self._emit)
        except CloudtrainError:
            # The first error is what the user should read; `clean` finds the group by its tags.
            return
        self._close()
        self._journal.write(Ec2Notes(group=None))
        trust.forget(attempt.run)


# By the beginning of EC2's code for why an instance ended before it ran, in small letters: it is spelt in several ways.
_KEY = "needs kms:CreateGrant, kms:Decrypt, kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext and kms:ReEncrypt*"
_CURES = {
    "client.internalerror": f"if its disk is encrypted: this user {_KEY} on the key (docs/ec2.md, cloudtrain doctor)",
    "client.invalidkmskey": "its disk is encrypted with a key that is off, deleted or another account's: cloudtrain"
    f" doctor names it; this user {_KEY} on it (docs/ec2.md)",
    "client.volumelimitexceeded": "the account's quota of disks is used up: cloudtrain clean shows what is left here",
    "client.invalidsnapshot": "the image's snapshot is gone or not shared with this account: choose another --ami",
    "client.user": "somebody in the account, or a rule of it, ended it: ask who, then run again",
}


def _died(instance_id: str, blame: str, why: str) -> Refused:
    """It died for a reason that lies with the account: no other place is asked."""
    hint = next(
        (cure for code, cure in _CURES.items() if blame.lower().startswith(code)), "correct that, then run again"
    )
    return Refused(
        f"{instance_id} ended before it ran: {why}",
        hint=hint,
        consequence="it has ended, nothing is billed any more",
        code="died_pending",
    )
