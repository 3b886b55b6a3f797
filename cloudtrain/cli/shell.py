"""`cloudtrain ssh`: a shell on a run's machine."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from cloudtrain.billing import expiry
from cloudtrain.cli.options import Json, RunName, Yes
from cloudtrain.console.answer import Answer
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.pages import listing
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core.errors import CloudtrainError, UsageError
from cloudtrain.core.events import Noted
from cloudtrain.store import Store

if TYPE_CHECKING:
    from cloudtrain.lifecycle.session import Session
    from cloudtrain.store import Run


def ssh(
    context: typer.Context,
    run: RunName = None,
    setup: Annotated[
        bool, typer.Option("--setup", help="Write an entry for ssh and for editors that use it, then leave.")
    ] = False,
    forward: Annotated[
        list[str] | None,
        typer.Option(metavar="PORT", help="Reach this port of the machine from here, too, as TensorBoard's 6006."),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> Answer | int | None:
    """Open a shell on a run's machine, or run the command after --; one quoted word is a whole line for the shell
    there. The host key must be the pinned one."""
    if json and not setup:
        raise UsageError("a shell has no JSON form", hint="leave out --json, or add --setup")
    from cloudtrain.cli import following
    from cloudtrain.lifecycle import openssh, session

    options, reached = openssh.forwarding(forward or ())
    if setup and options:
        raise UsageError("--setup opens no shell that could forward a port", hint="leave one of the two out")
    store = Store()
    row = store.find(run or None)
    if expiry.away(row):
        raise UsageError(
            f"{row.name} is {listing.status(row)}: there is nothing to log in to",
            hint=f"cloudtrain pull {row.name} starts its machine, fetches the results and ends it",
            consequence="nothing was changed",
            code="parked",
        )
    told = reporter(Look(json=json, plain=True), lines=False)
    story = following.context(store, told)
    with session.Session(row, story) as there:
        openssh.check_there(row, there)
        if setup:
            return _set_up(row, there, told, yes=yes)
        argv = openssh.command(row, there, tuple(context.args), options)
    for each in reached:
        told.emit(Noted(f"{each}, until this command ends"))
    return subprocess.run(argv, check=False).returncode


def _set_up(row: Run, there: Session, told: Reporter, *, yes: bool) -> Answer | None:
    """Entries of all runs with a machine that this computer knows, and the line that makes OpenSSH read them."""
    from cloudtrain.lifecycle import openssh, session

    entries = {row.name: openssh.way(row, there)}
    for other in there.context.store.runs(damaged=lambda _: None):
        # Of other runs only what is known here; a look at each machine is not worth the wait.
        if other.name != row.name and not other.state.final and other.instance is not None:
            with session.Session(other, there.context, wakes=False) as its_session:
                try:
                    entries[other.name] = openssh.way(other, its_session)
                except CloudtrainError:
                    continue
    openssh.write(entries)
    if not openssh.included():
        stands = f"{openssh.our_file()} is written, and your own file is unchanged"
        asked = f'Add "{openssh.INCLUDE}" as the first line of {openssh.user_file()}?'
        # A program is not asked: without --yes the user's own file stays as it is.
        if yes or (told.asks and told.ask(asked, default=False, consequence=stands)):
            openssh.include()
        elif told.asks:
            told.emit(Noted(stands))
            return None
    name, hosts = openssh.host(row.name), [openssh.host(known) for known in entries]
    told.remark(Noted(f"now: ssh {name}   VS Code: Remote-SSH, host {name}"))
    values = {"host": name, "hosts": hosts, "config": str(openssh.our_file()), "included": openssh.included()}
    return Answer(lambda: values, run=row.name)
