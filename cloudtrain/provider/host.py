"""A machine that is already there and stays: `--host user@address[:port]`. It is used, and never stopped or ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from cloudtrain.core.errors import ConfirmationNeeded, HostKeyMismatch, UsageError
from cloudtrain.core.events import Emit, Noted
from cloudtrain.core.instance import Instance, Journal, Login, Released
from cloudtrain.core.plan import Candidate, Offer, Plan
from cloudtrain.core.spec import HostSpec, RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.base import Provider
from cloudtrain.transport.base import Transport

CONNECT_S = 20.0
"""Seconds for connecting and logging in."""

_NOTE = "host_instance"
_PLACE = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<name>[^\s@:/\\\[\]-][^\s@:/\\\[\]]*))(?::(?P<port>\d+))?"
)
_USER = re.compile(r"[^\s:/\\-][^\s:/\\]*")


def parse_host(text: str, *, identity: str | None = None, fingerprint: str | None = None) -> HostSpec:
    """`user@address[:port]` as a spec; an IPv6 address stands in brackets.

    Args:
        identity: file of the private key to log in with (`--identity`).
        fingerprint: what the host key must be (`--host-key`), `SHA256:...`.

    Raises:
        UsageError: it is not of this form.
    """
    user, at, place = text.strip().rpartition("@")
    if not at or not _USER.fullmatch(user):
        raise _unusable(text, "it names no user", f"--host ubuntu@{place or 'address'}")
    if place.count(":") > 1 and not place.startswith("["):
        raise _unusable(text, "an IPv6 address stands in brackets", f"--host {user}@[{place}]")
    found = _PLACE.fullmatch(place)
    if not found:
        raise _unusable(text, "the address cannot be read", "--host user@address, or user@address:port")
    port = int(found["port"]) if found["port"] else 22
    if not 0 < port < 65536:
        raise _unusable(text, f"there is no port {port}", "ports go from 1 to 65535")
    if fingerprint is not None:
        from cloudtrain.transport.ssh_keys import check_fingerprint

        fingerprint = check_fingerprint(fingerprint)
    if identity is not None:
        identity = str(Path(identity).expanduser().absolute())
    address = found["v6"] or found["name"]
    return HostSpec(user=user, address=address, port=port, identity=identity, fingerprint=fingerprint)


def _unusable(text: str, why: str, hint: str) -> UsageError:
    return UsageError(
        f"cannot use --host {text!r}: {why}", hint=hint, consequence="nothing was started", code="bad_host"
    )


class HostProvider(Provider):
    """A machine of the user's own.

    Its key is agreed to once, by the user or by `--host-key`, and pinned in `hosts.json`; from then on it must match.

    Args:
        ask: puts a yes-or-no question to the user; None where there is no terminal to ask on.
    """

    target: ClassVar[Target] = Target.HOST

    def __init__(self, ask: Callable[[str], bool] | None) -> None:
        self._ask = ask

    def survey(self, spec: RunSpec) -> Offer:
        """See `Provider.survey`. The identity is read; the machine is not contacted."""
        host = _host_of(spec)
        return Offer(where=_id(host), candidates=(Candidate(type="existing machine", note="stays as it is"),))

    def acquire(self, plan: Plan, journal: Journal, emit: Emit) -> Instance:
        """See `Provider.acquire`. At the first contact the host's key is shown and must be agreed to.

        Raises:
            ConfirmationNeeded: there is nobody to ask; `--host-key` answers without one.
            HostKeyMismatch: the key is not the one that was pinned or given; nothing was sent.
            UsageError: the user did not agree.
            ConnectionFailed: no SSH server answers there.
        """
        instance = self.machine(plan.spec, emit)
        journal.write({_NOTE: instance.to_dict()})
        return instance

    def machine(self, spec: RunSpec, emit: Emit) -> Instance:
        """The machine that `spec` names, its key agreed to. Raises what `acquire` does."""
        host = _host_of(spec)
        key = self._trusted_key(host, emit)
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
            details={"identity": host.identity},
        )

    def open(self, instance: Instance, journal: Journal, emit: Emit) -> Transport:
        """See `Provider.open`."""
        return self.connect(instance)

    def connect(self, instance: Instance) -> Transport:
        """See `Provider.open`. What is pinned now counts, also for a run that began under an earlier key."""
        from cloudtrain.transport.ssh import connect
        from cloudtrain.transport.ssh_trust import PinnedHosts

        assert instance.address is not None and instance.user is not None and instance.host_key is not None
        pins = PinnedHosts()
        key = pins.get(instance.address, instance.port) or instance.host_key
        identity = Path(instance.details["identity"])
        try:
            return connect(instance.address, instance.port, instance.user, identity, key, timeout=CONNECT_S)
        except HostKeyMismatch as error:
            error.hint = pins.mismatch(instance.address, instance.port, key, "").hint
            raise

    def login(self, instance: Instance, journal: Journal) -> Login | None:
        from cloudtrain.transport.ssh_trust import PinnedHosts

        assert instance.address is not None and instance.host_key is not None
        key = PinnedHosts().get(instance.address, instance.port) or instance.host_key
        return Login(Path(instance.details["identity"]), key)

    def find(self, run: str, journal: Journal) -> Instance | None:
        noted = journal.read().get(_NOTE)
        return Instance.from_dict(noted) if noted else None

    def release(self, instance: Instance, journal: Journal, emit: Emit) -> Released:
        """See `Provider.release`. The machine is left as it is."""
        return Released(life=InstanceLife.NONE, summary=f"{instance.id} stays as it is; it is not cloudtrain's to end")

    def _trusted_key(self, host: HostSpec, emit: Emit) -> str:
        from cloudtrain.transport.ssh import scan_host_key
        from cloudtrain.transport.ssh_keys import fingerprint
        from cloudtrain.transport.ssh_trust import PinnedHosts

        pins = PinnedHosts()
        pinned = pins.get(host.address, host.port)
        if pinned is not None:
            if host.fingerprint not in (None, fingerprint(pinned)):
                raise pins.mismatch(host.address, host.port, pinned, f"{host.fingerprint} (given by --host-key)")
            return pinned
        key = scan_host_key(host.address, host.port, CONNECT_S)
        self._agree(host, fingerprint(key), key.partition(" ")[0])
        pins.pin(host.address, host.port, key)
        emit(Noted(f"host key {fingerprint(key)} of {host.address} is trusted from now on"))
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


def _id(host: HostSpec) -> str:
    address = f"[{host.address}]" if ":" in host.address else host.address
    return f"{host.user}@{address}:{host.port}"


def _host_of(spec: RunSpec) -> HostSpec:
    """The checked host of a spec, with an identity that can be used."""
    from cloudtrain.transport.ssh_keys import check_fingerprint, private_key

    host = spec.host
    if host is None:
        raise UsageError("no host was named", hint="--host user@address", code="bad_host")
    if host.identity is None:
        raise UsageError(
            f"say which private key opens {_id(host)}; cloudtrain looks for none by itself",
            hint="--identity FILE, for example --identity ~/.ssh/id_ed25519",
            consequence="nothing was started",
            code="no_identity",
        )
    identity = Path(host.identity).expanduser().absolute()
    private_key(identity)
    checked = check_fingerprint(host.fingerprint) if host.fingerprint is not None else None
    return replace(host, identity=str(identity), fingerprint=checked)
