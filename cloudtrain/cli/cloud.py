"""`cloudtrain doctor` and `instances`: the account and the machines in it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from cloudtrain.cli import leftovers
from cloudtrain.cli.options import Json, Profile, Region
from cloudtrain.config import settings
from cloudtrain.console.answer import Answer
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.pages import account
from cloudtrain.console.reporters.base import columns_of
from cloudtrain.core.errors import Refused
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.doctor import checks
from cloudtrain.provider.ec2.offer import catalogue


def doctor(
    instance: Annotated[str | None, typer.Option(metavar="TYPE[,TYPE]", help="Types to check for.")] = None,
    spot: Annotated[bool | None, typer.Option("--spot", help="Check for a spot launch.")] = None,
    region: Region = None,
    profile: Profile = None,
    json: Json = False,
) -> Answer:
    """Check everything a launch needs, at no cost: nothing is created. Each failure comes with its fix."""
    flags = {"instance": instance, "spot": spot, "region": region, "profile": profile}
    spec = Ec2Spec(**settings.load(flags).fields("ec2"))
    leftovers.settle_debts()
    seen, shows = [], reporter(Look(json=json, plain=True))
    for check in checks(spec):
        seen.append(check)
        shows.show(*account.check_lines(check, columns_of(sys.stdout)))
    failed = ", ".join(check.name for check in seen if check.status == "fail")
    error = Refused(f"not ready for a launch: {failed}", code="doctor_failed") if failed else None
    values = {"checks": [asdict(check) for check in seen]}
    return Answer(lambda: values, lambda _: [account.verdict(seen)], error=error, said=True)


def instances(
    gpu: Annotated[str | None, typer.Option(help="Only types with this GPU, such as T4 or A10G.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the shipped price table: no network.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask AWS for today's prices and keep them.")] = False,
    region: Region = None,
    profile: Profile = None,
    json: Json = False,
) -> Answer:
    """List GPU types with price, spot price, your quota and zones."""
    get = settings.load({"region": region, "profile": profile}).get
    if offline:
        found = catalogue.shipped(gpu=gpu)
    else:
        leftovers.settle_debts()
        found = catalogue.survey(Clients(get("profile"), get("region")), gpu=gpu, refresh=refresh)
    asides = [f"warn  {warning}" for warning in found.warnings]
    return Answer(found.to_dict, lambda width: account.catalogue_lines(found, width), asides=asides)
