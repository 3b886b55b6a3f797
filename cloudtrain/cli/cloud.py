"""`cloudtrain doctor`, `instances` and `ssh`: the account and the machines in it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.cli.options import Json, Profile, Region, RunName, Yes
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.lines import print_lines, tell, write_result
from cloudtrain.console.reporters.base import Reporter, columns_of
from cloudtrain.core.errors import CloudtrainError, ExitCode, Refused, UsageError
from cloudtrain.core.events import Noted

if TYPE_CHECKING:
    from cloudtrain.lifecycle.session import Session
    from cloudtrain.store import Run


def doctor(
    instance: Annotated[str | None, typer.Option(help="Type to check for; several by comma.")] = None,
    spot: Annotated[bool | None, typer.Option("--spot", help="Check for a spot launch.")] = None,
    region: Region = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """Check all that a launch needs, at no cost: nothing is created. Each failure comes with its fix."""
    from cloudtrain.cli import leftovers
    from cloudtrain.cli.request import OF_EC2
    from cloudtrain.config import settings
    from cloudtrain.console.pages import account, failure
    from cloudtrain.core.spec import Ec2Spec
    from cloudtrain.provider.ec2.doctor import checks

    get = settings.load({"instance": instance, "spot": spot, "region": region, "profile": profile}).get
    known = {field: get(name) for name, field in OF_EC2.items()}
    spec = Ec2Spec(**{name: value for name, value in known.items() if value is not None})
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
    offline: Annotated[bool, typer.Option("--offline", help="The shipped price table alone: no network.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask AWS for today's prices and keep them.")] = False,
    region: Region = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """List GPU types with price, spot price, your quota and zones."""
    from cloudtrain.config import settings
    from cloudtrain.console.pages import account
    from cloudtrain.provider.ec2.offer import catalogue

    get = settings.load({"region": region, "profile": profile}).get
    if offline:
        found = catalogue.shipped(gpu=gpu)
    else:
        from cloudtrain.cli import leftovers
        from cloudtrain.provider.ec2.clients import Clients

        leftovers.settle_debts()
        found = catalogue.survey(Clients(get("profile"), get("region")), gpu=gpu, refresh=refresh)
    if json:
        write_result(**found.to_dict())
        return
    print_lines(*account.catalogue_lines(found, columns_of(sys.stdout)))
    for warning in found.warnings:
        tell(f"warn  {warning}")


def ssh(
    context: typer.Context,
    run: RunName = None,
    setup: Annotated[
        bool, typer.Option("--setup", help="Write an entry for ssh and for editors that use it, then leave.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Open a shell on a run's machine, or run what stands after --; one quoted word is a whole line for the shell
    there. The host key is the pinned one."""
    from cloudtrain.billing import expiry
    from cloudtrain.cli import following
    from cloudtrain.console.pages import listing
    from cloudtrain.lifecycle import openssh
    from cloudtrain.lifecycle.session import Session
    from cloudtrain.store import Store

    if json and not setup:
        raise UsageError("a shell has no JSON form", hint="leave out --json, or add --setup")
    store = Store()
    row = store.find(run)
    if expiry.away(row):
        raise UsageError(
            f"{row.name} is {listing.status(row)}: there is nothing to log in to",
            hint=f"cloudtrain pull {row.name} starts its machine, fetches the results and ends it",
            consequence="nothing was changed",
            code="parked",
        )
    told = reporter(Look(plain=True))
    story = following.context(store, told)
    with Session(row, story) as session:
        openssh.check_there(row, session)
        if setup:
            _set_up(row, session, told, yes=yes, json=json)
            return
        argv = openssh.command(row, session, tuple(context.args))
    raise typer.Exit(subprocess.run(argv, check=False).returncode)


def _set_up(row: Run, session: Session, told: Reporter, *, yes: bool, json: bool) -> None:
    """Entries of all runs with a machine that this computer knows, and the line that makes OpenSSH read them."""
    from cloudtrain.lifecycle import openssh
    from cloudtrain.lifecycle.session import Session as OtherSession

    entries = {row.name: openssh.way(row, session)}
    for other in session.context.store.runs(damaged=lambda _: None):
        # Of other runs only what is known here; a look at each machine is not worth the wait.
        if other.name != row.name and not other.state.final and other.instance is not None:
            with OtherSession(other, session.context, wakes=False) as its_session:
                try:
                    entries[other.name] = openssh.way(other, its_session)
                except CloudtrainError:
                    continue
    openssh.write(entries)
    if not openssh.included():
        asked = f'Add "{openssh.INCLUDE}" as the first line of {openssh.user_file()}?'
        # A program is not asked: without --yes the user's own file stays as it is.
        if yes or (not json and told.ask(asked, default=False, otherwise="add --yes")):
            openssh.include()
        elif not json:
            told.emit(Noted(f"{openssh.our_file()} is written, and your own file is as it was"))
            return
    name = openssh.host(row.name)
    if json:
        hosts = [openssh.host(known) for known in entries]
        write_result(row.name, host=name, hosts=hosts, config=str(openssh.our_file()), included=openssh.included())
        return
    told.emit(Noted(f"now: ssh {name}   VS Code: Remote-SSH, host {name}"))
