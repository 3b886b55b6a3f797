"""What cloud-init on the emulated machines understands of a launch's user data."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class UserData:
    """The parts of user data that a machine acts on.

    Attributes:
        host_keys: OpenSSH private keys by kind ("ed25519").
        authorized_keys: public keys that may log in as the image's user.
        users: further users, each with the keys that may log in as them.
        bootcmd: commands of every boot, before sshd listens.
        runcmd: commands of the first boot, after sshd listens.
        script: a `#!` user-data script, run after `runcmd`.
        problem: why the data could not be used; cloud-init then boots without it.
    """

    host_keys: dict[str, str]
    authorized_keys: tuple[str, ...] = ()
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bootcmd: tuple[list[str], ...] = ()
    runcmd: tuple[list[str], ...] = ()
    script: str | None = None
    problem: str | None = None


def parse(data: bytes) -> UserData:
    """Read user data as cloud-init does: a `#cloud-config` document or a `#!` script, gzip or plain. Never raises."""
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode()
    except (OSError, EOFError, ValueError) as error:
        return UserData(host_keys={}, problem=f"user data cannot be decoded: {error}")
    if not text.strip():
        return UserData(host_keys={})
    if text.startswith("#!"):
        return UserData(host_keys={}, script=text)
    if text.split("\n", 1)[0].strip() != "#cloud-config":
        return UserData(host_keys={}, problem="unhandled user data: it starts neither with #cloud-config nor with #!")
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        return UserData(host_keys={}, problem=f"failed loading yaml blob: {error}")
    if not isinstance(document, dict):
        return UserData(host_keys={}, problem="the cloud-config is not a mapping")
    keys = document.get("ssh_keys") or {}
    return UserData(
        host_keys={n.removesuffix("_private"): str(v) for n, v in keys.items() if str(n).endswith("_private")},
        authorized_keys=_keys(document),
        users={str(one["name"]): _keys(one) for one in document.get("users") or () if isinstance(one, dict)},
        bootcmd=tuple(_commands(document.get("bootcmd"))),
        runcmd=tuple(_commands(document.get("runcmd"))),
    )


def _keys(of: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(key).strip() for key in of.get("ssh_authorized_keys") or ())


def _commands(value: Any) -> list[list[str]]:
    """cloud-init runs a list as an argv and a string by the shell."""
    return [[str(a) for a in c] if isinstance(c, list) else ["sh", "-c", str(c)] for c in value or ()]
