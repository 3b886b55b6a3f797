"""The user's own configuration of OpenSSH, as `ssh -G` tells it: where a name leads, who logs in, by which keys.

Who is trusted is not asked there: the host's key is compared with the one that the user agreed to (`ssh_trust.py`),
whatever the configuration says of that.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.core import programs
from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import screen_safe, shortened
from cloudtrain.transport.ssh_keys import AGENT, Keys

_LIMIT_S = 20.0
_MOST = 256 * 1024
_TOKEN = re.compile(r"%(.?)|\$\{(\w+)\}")
_PLAIN = re.compile(r"[\w.:%@+-]*")  # what cannot be anything else to a shell
_NUMBER = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """How a host is reached.

    Attributes:
        keys: those that the configuration names and that are there, OpenSSH's own usual ones, and the agent's.
        alias: HostKeyAlias, under which the host's key is known; None: under its address and port.
        through: command line of the program that carries the bytes; None: none is needed.
        way: what that is, human-readable ("by way of bastion"); "".
        limit_s: ConnectTimeout; None: it names none.
        told: what the configuration has decided, in words; "": nothing.
    """

    address: str
    port: int
    user: str
    keys: Keys
    alias: str | None = None
    through: str | None = None
    way: str = ""
    limit_s: float | None = None
    told: str = ""


def client() -> str | None:
    """Absolute path of OpenSSH's client, never one in the project that is worked on; None: there is none."""
    return programs.find("ssh", beside=Path.cwd())


def road(name: str, port: int | None = None, user: str | None = None) -> Road | None:
    """What `ssh NAME` would do, with `port` and `user` before what the configuration says; None where there is no ssh.

    Raises:
        UsageError: the configuration cannot be read, or not be followed (code `bad_host`).
    """
    program = client()
    if program is None:
        return None
    if not all(map(_PLAIN.fullmatch, (name, user or ""))):
        raise _unusable(name, "its configuration might hand a shell characters that it obeys")
    said = _settings([program, "-G", *(["-p", str(port)] if port else []), *(["-l", user] if user else []), name], name)

    def first(key: str) -> str | None:
        return next((value for value in said.get(key, []) if value.lower() != "none"), None)

    address, login = first("hostname") or name, first("user") or user or getpass.getuser()
    number = first("port") or "22"
    if not (_NUMBER.fullmatch(number) and 0 < int(number) < 65536):
        raise _unusable(name, f"{screen_safe(number)!r} is no port")
    alias, home = first("hostkeyalias"), str(Path.home())
    here = socket.gethostname()
    tokens = {"%": "%", "h": address, "n": name, "p": number, "r": login, "k": alias or name, "d": home}
    tokens |= {"u": getpass.getuser(), "l": here, "L": here.partition(".")[0], "i": str(getattr(os, "getuid", int)())}

    def path(text: str) -> Path:
        found = Path(_expanded(text, tokens, name))
        try:
            return found.expanduser()
        except RuntimeError:  # ~NAME of nobody who is known here
            return found

    files = tuple(file for file in map(path, said.get("identityfile", [])) if _there(file))
    agent = _agent(said.get("identityagent", [AGENT])[0], path)
    jump, command = first("proxyjump"), first("proxycommand")
    if jump:
        through, way = _jump(program, jump, address, number), f"by way of {screen_safe(jump)}"
    elif command:
        if not all(map(_PLAIN.fullmatch, (address, login, name))):
            raise _unusable(name, "its ProxyCommand would get characters that a shell obeys")
        through, way = _expanded(command, tokens, name), "by its ProxyCommand"
    else:
        through, way = None, ""
    limit = first("connecttimeout")
    told = [screen_safe(address)] if address.lower() != name.lower() else []
    told += [f"user {screen_safe(login)}"] if user is None and login != getpass.getuser() else []
    told += [f"port {number}"] if port is None and number != "22" else []
    return Road(
        address=address,
        port=int(number),
        user=login,
        keys=Keys(files, agent, only=first("identitiesonly") == "yes"),
        alias=alias,
        through=through,
        way=way,
        limit_s=float(limit) if limit and _NUMBER.fullmatch(limit) and int(limit) else None,
        told=", ".join([*told, *([way] if way else [])]),
    )


def _settings(command: list[str], name: str) -> dict[str, list[str]]:
    """What `ssh -G` says: foreign text, in which a line that is not understood says nothing."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(name, "ssh -G does not say what the SSH configuration has of it", str(error)) from error
    if done.returncode or len(done.stdout) > _MOST:
        lines = done.stderr[-2000:].decode("utf-8", "replace").splitlines()
        raise _unusable(name, "ssh cannot read its configuration", "\n".join(map(screen_safe, lines)))
    said: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key.lower(), []).append(value.strip())
    return said


def _expanded(text: str, tokens: dict[str, str], name: str) -> str:
    """`text` with the tokens and variables in it replaced, as OpenSSH does."""

    def value(match: re.Match[str]) -> str:
        token, variable = match.groups()
        if variable is not None:
            return os.environ.get(variable, "")
        if token not in tokens:
            raise _unusable(name, f"%{token} in {screen_safe(text)!r} of its configuration is not understood")
        return tokens[token]

    return _TOKEN.sub(value, text)


def _there(file: Path) -> bool:
    try:
        return file.is_file() or file.with_name(f"{file.name}.pub").is_file()
    except (OSError, ValueError):
        return False


def _agent(text: str, path: Callable[[str], Path]) -> str | None:
    if text.lower() == "none":
        return None
    if text.startswith("$") and not text.startswith("${"):
        return os.environ.get(text[1:])
    return AGENT if text == AGENT else str(path(text))


def _jump(program: str, jump: str, address: str, port: str) -> str:
    """The command line by which OpenSSH itself reaches a host behind others. It asks nothing: what it would ask is an
    error, whose text tells what."""
    *before, last = [hop if "://" in hop else f"ssh://{hop}" for hop in (part.strip() for part in jump.split(","))]
    by = ["-J", ",".join(before)] if before else []
    target = f"[{address}]:{port}"
    command = [program, "-o", "BatchMode=yes", *by, "-W", target, last]
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)


def _unusable(name: str, why: str, detail: str | None = None) -> UsageError:
    return UsageError(
        f"cannot use --host {shortened(repr(name))}: {shortened(why, 300)}",
        detail=detail or None,
        hint=f"ssh -G {shortened(name)} shows what OpenSSH makes of it",
        consequence="nothing was started",
        code="bad_host",
    )
