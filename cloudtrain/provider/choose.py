"""Which provider serves a run. Each is imported only when it is the one."""

from __future__ import annotations

from collections.abc import Callable

from cloudtrain.provider.base import Provider
from cloudtrain.spec import RunSpec, Target


def provider_of(spec: RunSpec, ask: Callable[[str], bool]) -> Provider:
    """The provider of `spec.target`. `ask` puts a question of trust to the user (an unknown host's key)."""
    match spec.target:
        case Target.LOCAL:
            from cloudtrain.provider.local import LocalProvider

            return LocalProvider()
    raise ValueError(f"no provider serves {spec.target}")
