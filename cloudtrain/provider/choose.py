"""Which provider serves a run. Each is imported only when it is the one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.spec import Ec2Spec, RunSpec, Target
from cloudtrain.emulator import service
from cloudtrain.provider.base import Provider
from cloudtrain.provider.ec2.pace import Pace

# A machine that was reached before answers within so many seconds, or not now.
LOOK_S = 6.0
_REGION = "us-east-1"


def provider_of(spec: RunSpec, ask: Callable[[str], bool], pace: Pace | None = None) -> Provider:
    """The provider of `spec.target`.

    Args:
        ask: puts a question of trust to the user (an unknown host's key).
        pace: how long EC2 is waited for; None: as long as it may take.
    """
    match spec.target:
        case Target.LOCAL:
            from cloudtrain.provider.local import LocalProvider

            return LocalProvider()
        case Target.HOST:
            from cloudtrain.provider.host import HostProvider

            return HostProvider(ask)
        case Target.EC2:
            ec2 = spec.ec2 or Ec2Spec()
            if ec2.boot_limit_s is not None:
                pace = (pace or Pace()).booting_within(ec2.boot_limit_s)
            return _ec2(spec.name, ec2, pace)


def looking() -> Callable[[RunSpec], Provider | None]:
    """Gives the providers for a look at many runs, one for each account and Region. They ask nothing of the user and
    wait for nothing; None: a rehearsal whose emulated Region does not live, and is not started for a look."""
    pace, known = Pace(boot=LOOK_S, auth=LOOK_S), dict[tuple[object, ...], Provider]()

    def provider(spec: RunSpec) -> Provider | None:
        ec2 = spec.ec2 or Ec2Spec()
        folder = rehearsal_folder(spec.name, ec2) if ec2.rehearsal else None
        key = (spec.target, folder, ec2.profile, ec2.region)
        if folder is not None and key not in known:
            told = service.living(folder)
            if told is None:
                return None
            known[key] = _emulated(ec2, str(told["endpoint_url"]), service.access_key(told), pace)
        if key not in known:
            known[key] = provider_of(spec, lambda question: False, pace)
        return known[key]

    return provider


def rehearsal_folder(run: str, spec: Ec2Spec) -> Path:
    """Where the emulated Region of a rehearsal lives: runs share one, a run with faults gets one of its own."""
    return disk.state_dir() / "rehearsal" / (run if spec.faults else "region")


def _ec2(run: str, spec: Ec2Spec, pace: Pace | None) -> Provider:
    """The account's Region; of a rehearsal the one on this computer, away from every account."""
    if not spec.rehearsal:
        return _provider(pace, profile=spec.profile, region=spec.region)
    data = os.environ.get("CLOUDTRAIN_DATA") or disk.cache_dir() / "data" / "mnist"
    name = spec.region or _REGION
    folder = rehearsal_folder(run, spec)
    endpoint = service.ensure(folder, faults=spec.faults, region=name, data=Path(data).absolute())
    keys = (endpoint.environment["AWS_ACCESS_KEY_ID"], endpoint.environment["AWS_SECRET_ACCESS_KEY"])
    return _emulated(spec, endpoint.url, keys, pace)


def _emulated(spec: Ec2Spec, url: str, keys: tuple[str, str], pace: Pace | None) -> Provider:
    """A Region on this computer that lives."""
    return _provider(pace, region=spec.region or _REGION, endpoint_url=url, access_key=keys)


def _provider(pace: Pace | None, **where: Any) -> Provider:
    from cloudtrain.provider.ec2.clients import Clients
    from cloudtrain.provider.ec2.provider import Ec2Provider

    return Ec2Provider(Clients(**where), pace=pace)
