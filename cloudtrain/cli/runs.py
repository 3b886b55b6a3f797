"""`cloudtrain ls`, `show`, `pull` and `stop`: runs that exist."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cloudtrain.cli.options import Json, Plain, Profile, Region, RunName, Yes, look


def ls(
    quiet: Annotated[bool, typer.Option("-q", help="Names only.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Ask AWS, too: machines that live or are parked, known here or not.")
    ] = False,
    region: Region = None,
    profile: Profile = None,
    model: Annotated[int | None, typer.Option("--model", "-m", help="Only runs of this model.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only runs that stand so: living, parked, done, failed, stopped, interrupted ...")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Only runs on: local, host, ec2 or rehearsal.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs that began within this time: 2h, 3d.")] = None,
    last: Annotated[int | None, typer.Option("-n", min=1, help="Only the latest N.")] = None,
    json: Json = False,
) -> None:
    """List the runs of this computer, latest first. Asks nobody, no network, but with --remote."""
    from cloudtrain.console import listing
    from cloudtrain.store import Store

    if remote:
        from cloudtrain.cli import leftovers

        leftovers.remote(region=region, profile=profile, json=json)
        return
    kept = listing.Filter.of(model=model, status=status, where=where, since=since)
    runs = [run for run in Store().runs() if kept.takes(run)][:last]
    if json:
        from cloudtrain.console.jsonl import write_result

        write_result(runs=[listing.record(run) for run in runs])
    elif quiet:
        for run in runs:
            sys.stdout.write(f"{run.name}\n")
    elif runs:
        for line in listing.table(runs):
            sys.stdout.write(f"{line}\n")
    elif kept != listing.Filter():
        sys.stderr.write("no run is like that; all of them: cloudtrain ls\n")
    else:
        sys.stderr.write("no run yet; the first one: cloudtrain run --model 3 --local\n")


def show(run: RunName = None, json: Json = False) -> None:
    """Show one run: settings, epochs, goals, files, cost."""
    from cloudtrain.console import listing
    from cloudtrain.store import Store

    store = Store()
    row = store.find(run)
    if json:
        from cloudtrain.console.jsonl import write_result

        write_result(row.name, **listing.record(row), receipt=listing.receipt_of(row, store))
        return
    for line in listing.page(row, store):
        sys.stdout.write(f"{line}\n")


def pull(run: RunName = None, json: Json = False, plain: Plain = False) -> None:
    """Fetch a run's results, verified; what is here already is checked and not fetched again."""
    from cloudtrain import actions
    from cloudtrain.cli import following, standing
    from cloudtrain.console.listing import rehearsed
    from cloudtrain.errors import ExitCode
    from cloudtrain.spec import Target
    from cloudtrain.store import Store

    store = Store()
    row = store.find(run)
    with following.console(look(json, plain), row.name) as reporter:
        context = following.context(store, reporter)
        if row.plan.spec.target is Target.EC2 and not rehearsed(row.plan.spec):
            from cloudtrain import debts

            debts.settle(store, reporter.emit, skip=row.name)
        with standing.told(row.name, store):
            result = actions.pull_again(row, context) if row.state.final else actions.pull_now(row, context)
        reporter.own_exit = ExitCode.DONE
        following.ended(result, store, reporter)


def stop(run: RunName = None, yes: Yes = False, json: Json = False, plain: Plain = False) -> None:
    """End a run: it saves, its results are pulled, its machine is given back."""
    from cloudtrain import actions
    from cloudtrain.cli import following, standing
    from cloudtrain.console.listing import rehearsed
    from cloudtrain.errors import ExitCode
    from cloudtrain.events import Noted
    from cloudtrain.spec import Target
    from cloudtrain.store import Store

    store = Store()
    row = store.find(run)
    with following.console(look(json, plain), row.name) as reporter:
        context = following.context(store, reporter)
        if row.state.final:
            reporter.emit(Noted(f"{row.name} has ended already ({row.state.value})"))
        elif not yes and not reporter.ask(f"Stop {row.name} and pull its results?", default=True):
            reporter.emit(Noted("nothing was changed"))
            return
        if row.plan.spec.target is Target.EC2:
            from cloudtrain import debts

            if not rehearsed(row.plan.spec):
                debts.settle(store, reporter.emit, skip=row.name)
            debts.admit(row, store)
        with standing.told(row.name, store):
            result = actions.stop(row, context)
        reporter.own_exit = ExitCode.DONE
        following.ended(result, store, reporter)
