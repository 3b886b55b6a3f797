"""Which provider serves a run. Each is imported only when it is the one."""

from __future__ import annotations

from collections.abc import Callable

from cloudtrain.provider.base import Provider
from cloudtrain.spec import Ec2Spec, RunSpec, Target


def provider_of(spec: RunSpec, ask: Callable[[str], bool]) -> Provider:
    """The provider of `spec.target`. `ask` puts a question of trust to the user (an unknown host's key)."""
    match spec.target:
        case Target.LOCAL:
            from cloudtrain.provider.local import LocalProvider

            return LocalProvider()
        case Target.HOST:
            from cloudtrain.provider.host import HostProvider

            return HostProvider(ask)
        case Target.EC2:
            return _ec2(spec.ec2 or Ec2Spec())


def _ec2(spec: Ec2Spec) -> Provider:
    from cloudtrain.provider.ec2.clients import Clients
    from cloudtrain.provider.ec2.provider import Ec2Provider

    return Ec2Provider(Clients(spec.profile, spec.region))
