"""`cloudtrain ls`, `show` and `pull`: runs that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import Json, Plain, Profile, Region, RunName, look
from cloudtrain.console.lines import print_lines, tell, write_result
from cloudtrain.console.pages import failure, listing
from cloudtrain.console.text import shown_path
from cloudtrain.core.errors import CloudtrainError, ExitCode
from cloudtrain.core.events import Noted
from cloudtrain.core.text import counted
from cloudtrain.run_folder import receipt
from cloudtrain.store import Store


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
    all_: Annotated[bool, typer.Option("--all", help="Every run; else what lives and the latest 20.")] = False,
    json: Json = False,
) -> None:
    """List the runs of this computer, latest first: what lives, and the latest 20. Asks nobody, but with --remote."""
    if remote:
        from cloudtrain.cli import leftovers

        leftovers.remote(region=region, profile=profile, json=json)
        return
    kept = listing.Filter.of(model=model, status=status, where=where, since=since)
    damaged: list[CloudtrainError] = []
    store = Store()
    if json or quiet or all_ or last is not None:
        # Programs get them all, whatever a screen has room for.
        runs, hidden = [run for run in store.runs(damaged.append) if kept.takes(run)][:last], 0
    elif kept == listing.Filter():
        runs = store.runs(damaged.append, latest=listing.LATEST)
        hidden = len(store.names()) - len(runs) - len(damaged)
    else:
        runs, hidden = listing.latest([run for run in store.runs(damaged.append) if kept.takes(run)])
    if json:
        error = {"error": failure.record(damaged[0])} if damaged else {}
        write_result(
            "", int(damaged[0].exit_code) if damaged else 0, runs=[listing.record(run) for run in runs], **error
        )
    elif quiet:
        print_lines(*(run.name for run in runs))
    elif runs:
        print_lines(*listing.table(runs))
        if hidden:
            more = counted(hidden, "older run")
            tell(f"{more} not shown; all of them: cloudtrain ls --all")
    elif kept != listing.Filter():
        tell("no run is like that; all of them: cloudtrain ls")
    else:
        tell("no run yet; the first one: cloudtrain run --model 3 --local")
    if damaged and json:
        raise typer.Exit(int(damaged[0].exit_code))
    if damaged:
        raise damaged[0]


def show(run: RunName = None, json: Json = False) -> None:
    """Show one run: settings, epochs, goals, files, cost."""
    store = Store()
    row = store.find(run)
    if json:
        write_result(row.name, **listing.record(row), receipt=receipt.build(row, store))
        return
    print_lines(*listing.page(row, store))


def complete_group(incomplete: str) -> list[tuple[str, str]]:
    """Groups of results that begin with what is typed, and what each is."""
    from cloudtrain.run_folder import result_groups

    return [(name, what) for name, what in result_groups.NAMES.items() if name.startswith(incomplete)]


def pull(
    run: RunName = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="Only weights, metrics, predictions, checkpoints, summary, environment, log or other; may be "
            "repeated. The run goes on as it is, and no machine is ended.",
            autocompletion=complete_group,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy what was verified into this folder, too; no different file there is overwritten."),
    ] = None,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Fetch a run's results, verified; what is here already is checked and not fetched again."""
    from cloudtrain.cleanup import debts
    from cloudtrain.cli import following, standing
    from cloudtrain.lifecycle import pull as partial
    from cloudtrain.run_folder import copy_out, result_groups

    names = result_groups.check(only or ())
    store = Store()
    row = store.find(run)
    with following.console(look(json, plain), row.name) as reporter:
        context = following.context(store, reporter)
        debts.settle_beside(row.plan.spec, store, reporter.emit, skip=row.name)
        with standing.told(row.name, store):
            if names:
                part = partial.pull(row, context, names)
            else:
                again = partial.pull_again if row.state.final else partial.pull_now
                part = partial.whole(again(row, context))
        reporter.own_exit = ExitCode.DONE
        if out is not None:
            done = copy_out.copy(part.result.folder, part.entries, out)
            reporter.emit(Noted(f"{done} of {len(part.entries)} files copied to {shown_path(out)}, checksums verified"))
        if names:
            here = f"{counted(len(part.entries), 'file')} of {', '.join(names)}"
            reporter.emit(Noted(f"{here} here, verified: {shown_path(part.result.folder)}; nothing else was changed"))
            reporter.leave(part.result, int(ExitCode.DONE))
            return
        following.ended(part.result, store, reporter)
