"""AWS's models of its services, read once a process instead of by each part of moto that asks: EC2's take 0.3 s."""

from __future__ import annotations

import importlib
from typing import Any

import moto.core.utils
from moto.core.base_backend import AccountSpecificBackend
from moto.core.loaders import Loader, create_loader

_loader = create_loader()


def share() -> None:
    """Have moto read through one loader. To be called before its models of EC2 are imported; idempotent.

    moto reads them at its import (in three sessions), for its first account, and at the first call of each thread.
    """
    if moto.core.utils.create_loader is _shared:
        return
    moto.core.utils.create_loader = _shared
    session: Any = AccountSpecificBackend.get_session()
    session._session.register_component("data_loader", _loader)
    kind = type(session)
    asked = kind.get_available_regions
    kind.get_available_regions = lambda other, *named, **how: asked(session, *named, **how)
    try:
        importlib.import_module("moto.ec2.models.availability_zones_and_regions")
    finally:
        kind.get_available_regions = asked
    # Threads that ask for it at the same time would each read it.
    moto.core.utils.get_service_model("ec2")


def _shared() -> Loader:
    return _loader
