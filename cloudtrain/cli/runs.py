"""`cloudtrain ls`, `show` and `pull`: runs that exist."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import Json, Plain, Profile, Region, RunName, look
from cloudtrain.console import colour
from cloudtrain.console.answer import Answer
from cloudtrain.console.pages import filters, listing
from cloudtrain.console.text import shown_path
from cloudtrain.core.errors import ExitCode, UsageError
from cloudtrain.core.events import Noted
from cloudtrain.core.text import counted
from cloudtrain.store import Store


def ls(
    quiet: Annotated[bool, typer.Option("-q", help="Names only.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also ask AWS: machines that are up or parked, known here or not.")
    ] = False,
    region: Region = None,
    profile: Profile = None,
    model: Annotated[int | None, typer.Option("--model", "-m", help="Only runs of this model.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help=f"Only runs with this status: {', '.join(filters.Filter.STATUS)}."),
    ] = None,
    where: Annotated[str | None, typer.Option(metavar="|".join(filters.Filter.WHERE), help="Only runs there.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only runs started within this time: 2h, 3d.")
    ] = None,
    last: Annotated[int | None, typer.Option("-n", min=1, help="Only the latest N.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run; if left out, active ones and the latest 20.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the machines of active runs how they are; at most 8 s each.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep the table up to date, with the cost of all that runs, until Ctrl-C.")
    ] = False,
    json: Json = False,
    plain: Plain = False,
) -> Answer | None:
    """List this computer's runs, latest first: active ones, and the latest 20. Asks nobody; --refresh asks
    their machines, --remote asks AWS."""
    kept = filters.Filter.of(model=model, status=status, where=where, since=since)
    # Programs get them all, whatever a screen has room for.
    everything = json or quiet or all_

    def choose(store: Store) -> filters.Chosen:
        found = filters.choose(store, kept, last=last, everything=everything)
        return found if asked is None else replace(found, runs=asked.as_heard(found.runs))

    asked = None
    if watch or refresh:
        from cloudtrain.cli import watching

        if watch:
            _refuse_beside_watch({"--json": json, "-q": quiet, "--remote": remote})
            watching.watch(choose, plain=look(json, plain).plain)
            return None
        asked = watching.refresh(choose)
    silent = asked.silent if asked is not None else {}
    empty = (
        "no run is known on this computer" if remote else "no runs yet; to start one: cloudtrain run --model 3 --local"
    )
    empty = "no runs match; all of them: cloudtrain ls" if kept != filters.Filter() else empty

    def lines(chosen: filters.Chosen, width: int | None) -> list[str]:
        if quiet:
            return [run.name for run in chosen.runs]
        if not chosen.runs:
            return [empty] if remote else []
        coloured = colour.of_list(sys.stdout) and not look(json, plain).plain
        return listing.table(chosen.runs, width=width, colour=coloured, silent=silent)

    def asides(chosen: filters.Chosen) -> list[str]:
        hidden = f"{counted(chosen.hidden, 'older run')} not shown; all of them: cloudtrain ls --all"
        return [hidden] * bool(chosen.hidden) if chosen.runs or remote or quiet else [empty]

    if remote:
        from cloudtrain.cli import leftovers

        return leftovers.remote(choose, lines, asides, region=region, profile=profile, quiet=quiet)
    chosen = choose(Store())
    told = {"unanswered": [{"run": name, "message": why} for name, why in silent.items()]} if refresh else {}
    return Answer(
        lambda: {"runs": [listing.record(run) for run in chosen.runs], **told},
        lambda width: lines(chosen, width),
        error=next(iter(chosen.damaged), None),
        asides=asides(chosen),
    )


def _refuse_beside_watch(others: dict[str, bool]) -> None:
    other = next((flag for flag, given in others.items() if given), None)
    if other is not None:
        raise UsageError(
            f"--watch shows a table until Ctrl-C: it cannot be combined with {other}",
            hint=f"cloudtrain ls --refresh {other} asks the machines once",
            code="bad_setting",
        )


def show(run: RunName = None, json: Json = False) -> Answer:
    """Show one run: settings, epochs, goals, files, cost."""
    from cloudtrain.run_folder import receipt

    store = Store()
    row = store.find(run)
    return Answer(
        lambda: {**listing.record(row), "receipt": receipt.build(row, store)},
        lambda width: listing.page(row, store, width),
        run=row.name,
    )


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
            help="Only weights, metrics, predictions, checkpoints, summary, environment, log or other, or a pattern "
            "such as '*.pt'; may be repeated. The run goes on as it is, and no machine is ended.",
            autocompletion=complete_group,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is beyond the setting results_limit (5 GiB, if not set).")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Copy what was verified into this folder, too; different files there are not overwritten.",
        ),
    ] = None,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Fetch a run's results, verified; what is already here is checked, not fetched again."""
    from cloudtrain.cleanup import debts
    from cloudtrain.cli import following, standing
    from cloudtrain.lifecycle import pull as partial
    from cloudtrain.run_folder import copy_out, result_groups

    names = result_groups.check(only or ())
    if names and everything:
        raise UsageError(
            "--only is a part of the results, --all is all of them", hint="leave one out", code="bad_setting"
        )
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
                part = partial.whole(again(row, context, everything=everything))
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
