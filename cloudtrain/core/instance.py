"""A host that a run uses: what is known of it, how it is given back, how it is logged in to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloudtrain.core.decode import Moment, brief
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is known of an instance beyond the way to it: of EC2's down to `before_usd`, of a user's machine the rest.

    Attributes:
        run: name of the run that it is for.
        token: mark of its launch attempt.
        gpu: what its type has, human-readable; "": none, or not known.
        expires_at: unix seconds at which it ends itself.
        kept_until: the same, of one that stays up although its run's results are here (`--keep`).
        began_at, ended_at: unix seconds at which EC2 has started it last, and since which it has been down.
        parked_s: seconds that it was parked before it was started again; None: it never was.
        before_usd: what the run has cost until `began_at`: earlier machines of it, and earlier times of this one; less
            than nothing: what the run before has paid of the time since then, where the machine was taken over.
        identity: private key file.
        name, alias: what the user's SSH configuration knows it by, and under which name its key is trusted.
    """

    run: str = ""
    region: str | None = None
    token: str = ""
    spot: bool = False
    gpu: str = ""
    expires_at: Moment | None = None
    kept_until: Moment | None = None
    ended_at: Moment | None = None
    parked_s: float | None = None
    began_at: Moment | None = None
    before_usd: float = 0.0
    identity: str | None = None
    name: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A host that a run uses.

    Attributes:
        id: "i-0123...", "user@address:port", or "local".
        owned: cloudtrain launched it and must end it.
        workdir: folder on the host below which everything lies; relative to the login directory, or absolute.
        python: interpreter on the host for the supervisor (Python >= 3.8).
        host_key: the one pinned public key, OpenSSH format; None where there is no SSH.
        price_per_hour: USD, None where nothing is billed.
    """

    id: str
    provider: Target
    owned: bool
    workdir: str
    python: str = "python3"
    address: str | None = None
    port: int = 22
    user: str | None = None
    host_key: str | None = None
    type: str = ""
    zone: str | None = None
    price_per_hour: float | None = None
    life: InstanceLife = InstanceLife.NONE
    details: Details = Details()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for the registry."""
        return {**asdict(self), "details": brief(self.details)}


@dataclass(frozen=True, slots=True)
class Ended:
    """What has become of an instance that has outlived its lease.

    Attributes:
        life: TERMINATED or PARKED; as it was for one that nothing ends.
        at: unix seconds since when, by EC2's word; None: it does not say.
        told: it had to be told.
    """

    life: InstanceLife
    at: float | None = None
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """How an instance was given back.

    Attributes:
        life: TERMINATED once EC2 itself says so, NONE for machines that are not ours.
        summary: human-readable: "i-0a1b terminated, nothing is billed any more".
        at: unix seconds at which it has ended, by EC2's word; None: it does not say.
        leftovers: what this run still has in the account, each human-readable, with its price; empty: nothing.
    """

    life: InstanceLife
    summary: str
    at: float | None = None
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in by another SSH client.

    Attributes:
        identities: private key files.
        host_key: the pinned one, as OpenSSH writes it.
        agent: socket of an agent that may hold further keys, or the variable that names it; None: none is asked.
        only: of the agent's keys only those of `identities`.
        through: command line of the program that carries the bytes; None: none is needed.
        user: who logs in, if another than the instance names.
    """

    identities: tuple[Path, ...]
    host_key: str
    agent: str | None = "SSH_AUTH_SOCK"
    only: bool = True
    through: str | None = None
    user: str | None = None
