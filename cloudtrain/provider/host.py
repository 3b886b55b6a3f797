"""A machine that is already there and stays: `--host user@address[:port]`, or a name of the user's SSH configuration.

It is used, and never stopped or ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cloudtrain.core.errors import ConfirmationNeeded, ConnectionFailed, HostKeyMismatch, UsageError
from cloudtrain.core.events import Emit, Noted
from cloudtrain.core.instance import Details, Instance, Login, Released
from cloudtrain.core.notes import Journal, Notes
from cloudtrain.core.plan import Candidate, Offer, Plan
from cloudtrain.core.spec import HostSpec, RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.base import Machine, Provider
from cloudtrain.transport import ssh_config
from cloudtrain.transport.base import Transport
from cloudtrain.transport.ssh import connect, scan_host_key
from cloudtrain.transport.ssh_keys import AGENT, Keys, check_fingerprint, fingerprint
from cloudtrain.transport.ssh_login import can_open
from cloudtrain.transport.ssh_trust import PinnedHosts

if TYPE_CHECKING:
    from cloudtrain.transport.ssh_config import Road

CONNECT_S = 20.0
"""Seconds for each step of connecting and logging in, where the SSH configuration names no others."""


@dataclass(frozen=True, kw_only=True)
class HostNotes(Notes):
    """What the journal of a run on such a machine holds beside the notes of every run; the keys begin with `host_`."""

    PREFIX: ClassVar[str] = "host_"

    instance: Instance | None = None


class HostProvider(Provider):
    """Machines of the user's own.

    Its key is agreed to once, by the user or by `--host-key`, and pinned in `hosts.json`; from then on it must match.

    Args:
        ask: puts a yes-or-no question to the user; None where there is no terminal to ask on.
    """

    target: ClassVar[Target] = Target.HOST

    def __init__(self, ask: Callable[[str], bool] | None) -> None:
        self._ask = ask

    def survey(self, spec: RunSpec) -> Offer:
        """See `Provider.survey`. There is a key to log in with; the machine is not contacted."""
        host = _host_of(spec)
        where = f"{_id(host)} ({host.origin})" if host.origin else _id(host)
        return Offer(where=where, candidates=(Candidate(type="existing machine", note="stays as it is"),))

    def acquire(self, plan: Plan, journal: Journal, emit: Emit) -> Instance:
        """See `Provider.acquire`. At the first contact the host's key is shown and must be agreed to.

        Raises:
            ConfirmationNeeded: there is nobody to ask; `--host-key` answers without one.
            HostKeyMismatch: the key is not the one that was pinned or given; nothing was sent.
            UsageError: the user did not agree.
            ConnectionFailed: no SSH server answers there.
        """
        instance = self.trusted(plan.spec, emit)
        journal.write(HostNotes(instance=instance))
        return instance

    def trusted(self, spec: RunSpec, emit: Emit) -> Instance:
        """The machine that `spec` names, its key agreed to. Raises what `acquire` does."""
        host = _host_of(spec)
        road = _road_of(host)
        key = self._trusted_key(host, road, emit)
        return Instance(
            id=_id(host),
            provider=Target.HOST,
            owned=False,
            workdir=".cloudtrain",
            address=host.address,
            port=host.port,
            user=host.user,
            host_key=key,
            type="existing machine",
            life=InstanceLife.NONE,
            details=Details(identity=host.identity, name=host.name, alias=road.alias),
        )

    def find(self, run: str, journal: Journal) -> Instance | None:
        return journal.read(HostNotes).instance

    def machine(self, instance: Instance, journal: Journal, emit: Emit) -> Machine:
        return HostMachine(instance)

    def _trusted_key(self, host: HostSpec, road: Road, emit: Emit) -> str:
        pins, place = PinnedHosts(), _pin(road)
        pinned = pins.get(*place)
        if pinned is not None:
            if host.fingerprint not in (None, fingerprint(pinned)):
                raise pins.mismatch(*place, pinned, f"{host.fingerprint} (given by --host-key)")
            return pinned
        try:
            key = scan_host_key(road.address, road.port, road.limit_s or CONNECT_S, road.through)
        except ConnectionFailed as error:
            if error.code == "unknown_host" and host.name is None:
                error.hint = f"{error.hint}; there is no OpenSSH client here, so ~/.ssh/config is not read"
            raise
        self._agree(host, fingerprint(key), key.partition(" ")[0])
        pins.pin(*place, key)
        emit(Noted(f"host key {fingerprint(key)} of {place[0]} is trusted from now on"))
        return key

    def _agree(self, host: HostSpec, shown: str, kind: str) -> None:
        if host.fingerprint is not None:
            if host.fingerprint != shown:
                raise HostKeyMismatch(
                    f"the host key of {host.address} is not the one given by --host-key",
                    detail=f"given:     {host.fingerprint}\npresented: {shown}",
                    consequence="nothing was sent",
                    hint="compare it on the machine: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
                )
            return
        question = (
            f"{_id(host)} is new here. It shows the host key\n  {shown}  ({kind})\n"
            "On the machine itself, ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub shows the same. Trust it?"
        )
        try:
            if self._ask is None:
                raise ConfirmationNeeded("there is no terminal to ask on")
            agreed = self._ask(question)
        except ConfirmationNeeded as error:
            raise ConfirmationNeeded(
                f"cannot ask without a terminal whether to trust {host.address}",
                hint=f"compare its key and add --host-key {shown}",
                consequence="nothing was sent",
            ) from error
        if not agreed:
            raise UsageError(
                f"the host key of {host.address} was not trusted",
                hint=f"once you have compared it: --host-key {shown}",
                consequence="nothing was sent",
                code="host_not_trusted",
            )


class HostMachine(Machine):
    """A machine of the user's own."""

    def open(self) -> Transport:
        """See `Machine.open`. What is pinned now counts, also for a run that began under an earlier key."""
        road, pins = _road_to(self.instance), PinnedHosts()
        key = _key_of(self.instance, road)
        try:
            return connect(
                *(road.address, road.port, road.user, road.keys, key),
                timeout=road.limit_s or CONNECT_S,
                through=road.through,
            )
        except HostKeyMismatch as error:
            error.hint = pins.mismatch(*_pin(road), key, "").hint
            raise

    def login(self) -> Login | None:
        road = _road_to(self.instance)
        return Login(road.keys.files, _key_of(self.instance, road), road.keys.agent, road.keys.only, road.through)

    def release(self) -> Released:
        """See `Machine.release`. The machine is left as it is."""
        summary = f"{self.instance.id} stays as it is; it is not cloudtrain's to end"
        return Released(life=InstanceLife.NONE, summary=summary)


def _id(host: HostSpec) -> str:
    address = f"[{host.address}]" if ":" in host.address else host.address
    return f"{host.user}@{address}:{host.port}"


def _host_of(spec: RunSpec) -> HostSpec:
    """The checked host of a spec, with a key that can be used."""
    host = spec.host
    if host is None:
        raise UsageError("no host was named", hint="--host user@address", code="bad_host")
    if host.identity is not None:
        host = replace(host, identity=str(Path(host.identity).expanduser().absolute()))
    if not can_open(_road_of(host).keys):
        raise UsageError(
            f"nothing says which private key opens {_id(host)}: no agent holds one, and no file of OpenSSH's is one",
            hint="--identity FILE, for example --identity ~/.ssh/id_ed25519",
            consequence="nothing was started",
            code="no_identity",
        )
    checked = check_fingerprint(host.fingerprint) if host.fingerprint is not None else None
    return replace(host, fingerprint=checked)


def _road_of(host: HostSpec) -> Road:
    """The way to a host as the user's SSH configuration has it now; where it leads stays as it was. An identity that is
    named is the only key, be it that the agent holds it."""
    found = ssh_config.road(host.name, host.port, host.user) if host.name is not None else None
    keys = found.keys if found else Keys((), AGENT, only=False)
    if host.identity is not None:
        keys = Keys((Path(host.identity),), keys.agent)
    plain = ssh_config.Road(address=host.address, port=host.port, user=host.user, keys=keys)
    return replace(found, address=host.address, keys=keys) if found else plain


def _road_to(instance: Instance) -> Road:
    details = instance.details
    assert instance.address is not None and instance.user is not None
    host = HostSpec(
        user=instance.user,
        address=instance.address,
        port=instance.port,
        identity=details.identity,
        name=details.name,
    )
    return replace(_road_of(host), alias=details.alias)


def _pin(road: Road) -> tuple[str, int]:
    """Under which name a host's key is trusted; as for OpenSSH, one of its own has no port."""
    return (road.alias, 22) if road.alias else (road.address, road.port)


def _key_of(instance: Instance, road: Road) -> str:
    assert instance.host_key is not None
    return PinnedHosts().get(*_pin(road)) or instance.host_key
