"""From a running instance to an open connection: port, greeting, login, and the instance's state while waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudtrain.core.errors import GONE, RECLAIMED, CloudtrainError, ConnectionFailed, HostKeyMismatch
from cloudtrain.core.events import Emit, Event, Noted, StepDone, StepProgress, StepStarted
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import Journal
from cloudtrain.provider.ec2 import network, tags, trust
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import ENDED, address_of, down_since, one, reason_of, reclaimed, state_of
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import FOREIGN
from cloudtrain.transport.base import Transport
from cloudtrain.transport.ssh_keys import PublicKey, fingerprint

# An attempt to connect is cut into pieces of this length; between two of them EC2 is asked how the instance is.
LOOK_EVERY_S = 10.0
# A machine that has been reached before needs no boot: this long is waited for it to answer again.
AGAIN_S = 30.0
# While the port does not answer, this computer's own address is looked up this often, and not before this long.
ASK_EVERY_S = 20.0
# So much of a silent machine's console is shown.
CONSOLE_LINES = 6


@dataclass(frozen=True, slots=True)
class Credentials:
    """How one instance is logged in to."""

    user: str
    key: Path


class Door:
    """Connects to one instance, for the first time or again.

    Args:
        connect: as `transport.ssh_boot.connect_booting`.
        ask_address: finds this computer's public address.
    """

    def __init__(
        self,
        clients: Clients,
        journal: Journal,
        emit: Emit,
        pace: Pace,
        *,
        connect: Callable[..., Transport],
        ask_address: Callable[[], str],
    ) -> None:
        self._clients = clients
        self._journal = journal
        self._emit = emit
        self._pace = pace
        self._connect = connect
        self._ask_address = ask_address
        self._ask_at = pace.clock() + ASK_EVERY_S / 2

    def as_it_is(self, instance: Instance) -> Instance:
        """`instance` with the address that it has now.

        Raises:
            ConnectionFailed: it is parked (code `parked`), or has ended.
        """
        return self._moved(instance, self._still_there(instance, None))

    def open(self, instance: Instance, login: Credentials) -> Transport:
        """See `Machine.open`. The first login of an instance of ours replaces its host key (`trust.rotate`)."""
        first = not self._journal.read(Ec2Notes).reached
        within = self._pace.boot if first else min(AGAIN_S, self._pace.boot)
        began = time.monotonic()
        if first:
            self._emit(StepStarted("ssh", f"{instance.address}, host key pinned", within))
        transport, instance = self._reach(instance, login, within)
        if instance.owned and not self._journal.read(Ec2Notes).host_key_rotated:
            try:
                transport = trust.rotate(
                    transport,
                    lambda host_key: self._once(instance, login, host_key, LOOK_EVERY_S),
                    self._journal,
                    self._emit,
                    sleep=self._pace.sleep,
                )
            except BaseException:
                transport.close()
                raise
        if first:
            notes = self._journal.read(Ec2Notes)
            # The start-up data holds the first host key, and no machine will be started with it any more.
            attempt = replace(notes.attempt, user_data=None) if notes.attempt else None
            self._journal.write(Ec2Notes(reached=instance.id, attempt=attempt))
            pinned = self._journal.read(Ec2Notes).host_key or instance.host_key or ""
            fresh = instance.owned and (notes.woken is None or notes.woken.id != instance.id)
            what = "checked against the key of the launch, then replaced" if fresh else "checked"
            self._emit(StepDone("ssh", f"host key {what}: {fingerprint(pinned)}", time.monotonic() - began))
        return transport

    def _once(
        self, instance: Instance, login: Credentials, host_key: PublicKey, limit_s: float, emit: Emit | None = None
    ) -> Transport:
        def login_as(user: str, auth_limit_s: float) -> Transport:
            return self._connect(
                instance.address or "",
                instance.port,
                user,
                login.key,
                host_key,
                limit_s=limit_s,
                emit=emit or self._emit,
                auth_limit_s=auth_limit_s,
            )

        notes = self._journal.read(Ec2Notes)
        user, made = notes.user or login.user, notes.login_made
        if made in (None, user) or notes.reached:
            return login_as(user, self._pace.auth)
        # Which of the two the start-up data could let in, the machine tells.
        try:
            return login_as(user, 0.0)
        except ConnectionFailed as error:
            if error.code != "auth_refused":
                raise
        transport = login_as(made, self._pace.auth)
        self._journal.write(Ec2Notes(user=made))
        self._emit(Noted(f"{instance.id} has let in no {user}: logged in as {made}, whom its start-up data made"))
        return transport

    def _reach(self, instance: Instance, login: Credentials, within: float) -> tuple[Transport, Instance]:
        began = self._pace.clock()
        deadline = began + within

        def tell(event: Event) -> None:
            # It is waited for in slices, and an attempt may outlast its own; what is reported is the whole.
            if isinstance(event, StepProgress) and event.total == slice_s:
                event = replace(event, done=min(self._pace.clock() - began, within), total=within)
            self._emit(event)

        while True:
            slice_s = max(1.0, min(LOOK_EVERY_S, deadline - self._pace.clock()))
            current = instance
            try:
                found = trust.connect_pinned(
                    lambda key, to=current, s=slice_s: self._once(to, login, key, s, tell),  # type: ignore[misc]
                    self._journal,
                    self._emit,
                )
                return found, current
            except HostKeyMismatch as error:
                # Once our machine has parked, its old address may be another customer's.
                moved = self._moved(instance, self._still_there(instance, error) if instance.owned else {})
                same = (moved.address, moved.port) == (instance.address, instance.port)
                if same or self._pace.clock() >= deadline:
                    raise _stranger(error, instance) from error
                instance = moved
                continue
            except ConnectionFailed as error:
                described = self._still_there(instance, error)
                if error.code not in ("unreachable", "unknown_host", "no_banner") or self._pace.clock() >= deadline:
                    raise self._silent(error, instance, within, described) from error
                self._let_in_again(instance)
            instance = self._moved(instance, described)

    def _moved(self, instance: Instance, described: Mapping[str, Any]) -> Instance:
        address = address_of(described, private=self._private())
        port = tags.as_map(described.get("Tags")).get(tags.EMULATOR_PORT, "") if self._clients.loopback else ""
        return replace(
            instance, address=str(address or instance.address), port=int(port) if port.isdigit() else instance.port
        )

    def _private(self) -> bool:
        return self._journal.read(Ec2Notes).private

    def _still_there(self, instance: Instance, cause: Exception | None) -> Mapping[str, Any]:
        """EC2's description of the instance.

        Raises:
            ConnectionFailed: it has ended or parked, so waiting for it is over.
        """
        try:
            found = one(self._clients, instance.id)
        except CloudtrainError:
            # An expired session must not end a wait that SSH alone can finish.
            return {}
        if found is None:
            return self._forgotten(instance, cause)
        state, why, kept = state_of(found), reason_of(found), "what was streamed and pulled so far is kept"
        if reclaimed(found):
            told, unbilled = f"{instance.id} was taken back by EC2: {why}", "it is not billed any more"
            error = ConnectionFailed(told, hint=kept, consequence=unbilled, code=RECLAIMED)
        elif instance.owned and state in ("stopping", "stopped"):
            error = ConnectionFailed(
                f"{instance.id} is parked: {why}",
                hint=f"cloudtrain pull {instance.details.run} starts it and fetches the results",
                consequence="its GPU is not billed any more, its disk keeps the results",
                code="parked",
            )
        elif state in (*ENDED, "stopping", "stopped"):
            told, unbilled = f"{instance.id} is {state}: {why}", "its GPU is not billed any more"
            error = ConnectionFailed(told, hint=kept, consequence=unbilled, code=GONE)
        else:
            return found
        error.since = down_since(found, self._clients)
        raise error from cause

    def _forgotten(self, instance: Instance, cause: Exception | None) -> Mapping[str, Any]:
        """EC2 does not know the instance: not yet, or, about an hour after its end, not any more."""
        record = self._journal.read(Ec2Notes).instance
        if record is None or record.id != instance.id or self._pace.now() - record.at < self._pace.visible:
            return {}
        raise ConnectionFailed(
            f"{instance.id} has ended: {reason_of(None)}",
            hint="what was streamed and pulled so far is kept",
            consequence="it is not billed any more",
            code=GONE,
        ) from cause

    def _console(self, instance: Instance) -> str:
        """The last lines on the machine's console; empty where AWS tells none: what is wrong is wrong without it."""
        try:
            said = self._clients.ec2.get_console_output(InstanceId=instance.id, Latest=True).get("Output") or ""
        except FOREIGN:
            return ""
        lines = [line.strip()[:200] for line in said.splitlines() if line.strip()]
        return (
            "\n".join(["the last on its console:", *(f"  {line}" for line in lines[-CONSOLE_LINES:])]) if lines else ""
        )

    def _silent(
        self, error: ConnectionFailed, instance: Instance, within: float, described: Mapping[str, Any]
    ) -> ConnectionFailed:
        state = state_of(described) or "unknown to this computer"
        message, hint, private = error.message, error.hint, self._private()
        if error.code == "auth_refused":
            message = f"{instance.id} answers but refuses the run's key"
            own_image = self._journal.read(Ec2Notes).login_made
            hint = "its image may have another login: --login USER" if own_image else hint
        elif error.code in ("unreachable", "unknown_host", "no_banner"):
            where = f"at its private address {instance.address}, port" if private else "on port"
            message = f"{instance.id} ({state}) did not answer {where} {instance.port} within {within:.0f} s"
        if error.code == "unreachable":
            hint = _NO_WAY.format(address=instance.address) if private else _BLOCKED
        return ConnectionFailed(
            message,
            hint=hint,
            consequence=error.consequence,
            code=error.code,
            detail="\n".join(filter(None, [error.detail or error.message, self._console(instance)])),
        )

    def _let_in_again(self, instance: Instance) -> None:
        """If this computer's address has changed since the launch, let the new one in, and the old one no longer."""
        if self._pace.clock() < self._ask_at:
            return
        self._ask_at = self._pace.clock() + ASK_EVERY_S
        notes = self._journal.read(Ec2Notes)
        group, given = notes.group, notes.ssh_cidr
        if not group or given or self._clients.loopback:
            return
        try:
            towards = instance.address if notes.private else None
            cidr = network.caller_cidr(self._clients, None, self._ask_address, towards)
            if cidr != group.cidr:
                network.allow_only(self._clients, group.id, cidr)
                self._journal.write(Ec2Notes(group=replace(group, cidr=cidr)))
                self._emit(Noted("this computer's address has changed; port 22 is open for the new one"))
        except CloudtrainError as error:
            self._emit(Noted(f"could not check whether this computer's address has changed: {error.message}"))


def _stranger(error: HostKeyMismatch, instance: Instance) -> HostKeyMismatch:
    return HostKeyMismatch(
        f"{instance.address} does not show the host key of {instance.id}",
        detail=error.detail,
        # `stop` has to ask the machine first: where its key stays another one, only EC2 can end it.
        hint=f"do not connect to it by other means; cloudtrain clean --all --yes {instance.id} ends it with what is on "
        f"it (cloudtrain stop {instance.details.run} once it shows its own key again)",
        consequence=error.consequence or "nothing was sent",
    )


_BLOCKED = (
    "a firewall or VPN here may block port 22, or SSH leaves from an address other than the one let in:"
    " --ssh-cidr ADDRESS/32 names it; see also: cloudtrain doctor"
)
_NO_WAY = (
    "is your VPN up, and does it lead to {address}, there and back? Many VPNs change your address on the way:"
    " --ssh-cidr RANGE names what the machine sees"
)
