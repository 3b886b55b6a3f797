"""What the forks of `tests/commands.py` have when they begin: all that commands import, and what they read that is the
same for each of them: AWS's models of its services, the templates of a report, its own options. No command has run.

For the job it is torch, whose import is half of the 4 s that the smallest training takes, and what torch imports when
the first optimiser is made, nearly all the rest. It has not run either, so there is no thread that a fork would lose.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import pkgutil
from types import ModuleType

import botocore.loaders
import botocore.session
import typer.main

import cloudtrain
from cloudtrain.cli import app as cli
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.report import page

_ELSEWHERE = ("cloudtrain.emulator", "cloudtrain.__main__", "cloudtrain.onhost")


def _all(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.startswith(_ELSEWHERE):
            importlib.import_module(found.name)


def _models() -> None:
    """Read what a client of each service needs; sessions of the forks find it in the loader that they share."""
    shared, own = botocore.loaders.create_loader(), botocore.session.create_loader
    botocore.session.create_loader = lambda path=None: own(path) if path else shared
    # Of an emulated Region: no file and no variable of the developer's is read for it, and nothing is asked of it.
    clients = Clients(None, "us-east-1", "http://127.0.0.1:9", ("AKIAREHEARSAL0000000", "rehearsal"))
    for service in ("ec2", "ssm", "sts", "quotas", "pricing", "freetier", "connect"):
        getattr(clients, service)


_all(cloudtrain)
for _name in ("numpy", "safetensors.torch", "torch", "torch._dynamo", "tqdm"):
    importlib.import_module(_name)
# What typer imports at the first option that it reads.
with contextlib.suppress(ImportError):
    importlib.import_module("typer._adapters")
_models()
for _template in page._environment().list_templates():
    page._environment().get_template(_template)
# The command line as typer makes it of the signatures, once instead of at each call.
typer.main.get_command = functools.cache(typer.main.get_command)
typer.main.get_command(cli.app)
# What is here stays for good: a fork that looked through it for garbage would copy all of it.
gc.collect()
gc.freeze()
