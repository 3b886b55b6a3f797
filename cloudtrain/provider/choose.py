"""Which provider serves a run. Each is imported only when it is the one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.spec import Ec2Spec, RunSpec, Target
from cloudtrain.emulator import service
from cloudtrain.provider.base import Provider
from cloudtrain.provider.ec2.pace import Pace


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


def rehearsal_folder(run: str, spec: Ec2Spec) -> Path:
    """Where the emulated Region of a rehearsal lives: runs share one, a run with faults gets one of its own."""
    return disk.state_dir() / "rehearsal" / (run if spec.faults else "region")


def _ec2(run: str, spec: Ec2Spec, pace: Pace | None) -> Provider:
    """The account's Region; of a rehearsal the one on this computer, away from every account."""
    from cloudtrain.provider.ec2.clients import Clients
    from cloudtrain.provider.ec2.provider import Ec2Provider

    if not spec.rehearsal:
        return Ec2Provider(Clients(spec.profile, spec.region), pace=pace)
    data = os.environ.get("CLOUDTRAIN_DATA") or disk.cache_dir() / "data" / "mnist"
    name = spec.region or "us-east-1"
    folder = rehearsal_folder(run, spec)
    endpoint = service.ensure(folder, faults=spec.faults, region=name, data=Path(data).absolute())
    keys = (endpoint.environment["AWS_ACCESS_KEY_ID"], endpoint.environment["AWS_SECRET_ACCESS_KEY"])
    return Ec2Provider(Clients(region=name, endpoint_url=endpoint.url, access_key=keys), pace=pace)
