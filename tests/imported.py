"""What the forks of `tests/commands.py` have imported when they begin: what commands import, and nothing run."""

from __future__ import annotations

import gc
import importlib
import pkgutil
from types import ModuleType

import cloudtrain

_ELSEWHERE = ("cloudtrain.emulator", "cloudtrain.__main__", "cloudtrain.onhost")


def _all(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.startswith(_ELSEWHERE):
            importlib.import_module(found.name)


_all(cloudtrain)
importlib.import_module("boto3.session")
# What is here stays for good: a fork that looked through it for garbage would copy all of it.
gc.collect()
gc.freeze()
