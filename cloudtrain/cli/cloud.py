"""`cloudtrain doctor` and `instances`: the account and the machines in it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from cloudtrain.cli import leftovers
from cloudtrain.cli.options import Json, Profile, Region
from cloudtrain.config import settings
from cloudtrain.console.lines import print_lines, tell, write_result
from cloudtrain.console.pages import account, failure
from cloudtrain.console.reporters.base import columns_of
from cloudtrain.core.errors import ExitCode, Refused
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.doctor import checks
from cloudtrain.provider.ec2.offer import catalogue


def doctor(
    instance: Annotated[str | None, typer.Option(help="Type to check for, or several (A,B).")] = None,
    spot: Annotated[bool | None, typer.Option("--spot", help="Check for a spot launch.")] = None,
    region: Region = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """Check everything a launch needs, at no cost: nothing is created. Each failure comes with its fix."""
    flags = {"instance": instance, "spot": spot, "region": region, "profile": profile}
    spec = Ec2Spec(**settings.load(flags).fields("ec2"))
    leftovers.settle_debts()
    seen = []
    for check in checks(spec):
        seen.append(check)
        if not json:
            print_lines(*account.check_lines(check, columns_of(sys.stdout)))
    failed = any(check.status == "fail" for check in seen)
    code = ExitCode.REFUSED if failed else ExitCode.DONE
    if json:
        names = ", ".join(check.name for check in seen if check.status == "fail")
        error = Refused(f"not ready for a launch: {names}", code="doctor_failed") if failed else None
        told = failure.record(error) if error else None
        write_result("", int(code), checks=[asdict(check) for check in seen], error=told)
    else:
        print_lines(account.verdict(seen))
    raise typer.Exit(int(code))


def instances(
    gpu: Annotated[str | None, typer.Option(help="Only types with this GPU: T4, L4, A10G ...")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the shipped price table: no network.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask AWS for today's prices and keep them.")] = False,
    region: Region = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """List GPU types with price, spot price, your quota and zones."""
    get = settings.load({"region": region, "profile": profile}).get
    if offline:
        found = catalogue.shipped(gpu=gpu)
    else:
        leftovers.settle_debts()
        found = catalogue.survey(Clients(get("profile"), get("region")), gpu=gpu, refresh=refresh)
    if json:
        write_result(**found.to_dict())
        return
    print_lines(*account.catalogue_lines(found, columns_of(sys.stdout)))
    for warning in found.warnings:
        tell(f"warn  {warning}")
