"""What `--host` names: a user, an address and a port, as typed and as the SSH configuration says."""

from __future__ import annotations

import re
from pathlib import Path

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import HostSpec
from cloudtrain.transport import ssh_config
from cloudtrain.transport.ssh_keys import check_fingerprint

_PLACE = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<name>[^\s@:/\\\[\]-][^\s@:/\\\[\]]*))(?::(?P<port>[0-9]{1,9}))?"
)
_USER = re.compile(r"[^\s:/\\-][^\s:/\\]*")


def parse_host(text: str, *, identity: str | None = None, fingerprint: str | None = None) -> HostSpec:
    """`user@address[:port]` as a spec; an IPv6 address stands in brackets. What is not said, and where the name leads,
    is what the user's own SSH configuration says (`ssh -G`).

    Args:
        identity: file of the private key to log in with (`--identity`).
        fingerprint: what the host key must be (`--host-key`), `SHA256:...`.

    Raises:
        UsageError: it is not of this form, or nothing says who logs in.
    """
    user, at, place = text.strip().rpartition("@")
    if at and not _USER.fullmatch(user):
        raise _unusable(text, "it names no user", f"--host ubuntu@{place or 'address'}")
    if place.count(":") > 1 and not place.startswith("["):
        raise _unusable(text, "an IPv6 address stands in brackets", f"--host {user or 'ubuntu'}@[{place}]")
    found = _PLACE.fullmatch(place)
    if not found:
        raise _unusable(text, "the address cannot be read", "--host user@address, or user@address:port")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        raise _unusable(text, f"there is no port {port}", "ports go from 1 to 65535")
    if fingerprint is not None:
        fingerprint = check_fingerprint(fingerprint)
    if identity is not None:
        identity = str(Path(identity).expanduser().absolute())
    name = found["v6"] or found["name"]
    road = ssh_config.road(name, port, user or None)
    if not user and (road is None or not road.told):
        says = "names none" if road else "is not read, since there is no OpenSSH client here"
        raise _unusable(text, f"it names no user, and the SSH configuration {says}", f"--host ubuntu@{place}")
    if road is None:
        return HostSpec(user=user, address=name, port=port or 22, identity=identity, fingerprint=fingerprint)
    if not (_PLACE.fullmatch(road.address) or _PLACE.fullmatch(f"[{road.address}]")) or not _USER.fullmatch(road.user):
        raise _unusable(text, "the SSH configuration gives it no address or user that can be used", f"ssh -G {name}")
    return HostSpec(
        user=road.user,
        address=road.address,
        port=road.port,
        identity=identity,
        fingerprint=fingerprint,
        name=name,
        origin=f"{name} of the SSH configuration: {road.told}" if road.told else "",
    )


def _unusable(text: str, why: str, hint: str) -> UsageError:
    return UsageError(
        f"cannot use --host {text[:80]!r}: {why}", hint=hint, consequence="nothing was started", code="bad_host"
    )
