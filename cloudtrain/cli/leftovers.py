"""`cloudtrain clean`, `adopt` and `ls --remote`: what exists in the account, known to the registry here or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.billing import running
from cloudtrain.cleanup import adoption, debts, leftovers
from cloudtrain.cleanup.leftovers import View
from cloudtrain.cli import following, host_leftovers, signals
from cloudtrain.cli.options import Json, Owner, Plain, Profile, Region, WhoseThings, Yes, look
from cloudtrain.config import settings
from cloudtrain.console.answer import Answer
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.pages import leftovers as shown
from cloudtrain.console.pages.filters import Chosen
from cloudtrain.console.pages.listing import record
from cloudtrain.core.errors import (
    CloudtrainError,
    ConnectionFailed,
    Interrupted,
    StoreDamaged,
    UsageError,
)
from cloudtrain.core.events import Emit, Noted, Warned
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.cleaning import Ended, Leftover
from cloudtrain.source.shipped import job_folder
from cloudtrain.store import Store


def clean(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Only these: i-..., vol-..., sg-...", show_default=False),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="USER@ADDRESS", help="What runs left on your own machine, not in AWS.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(metavar="FILE", help="Private key for HOST, if no run here knows it.")
    ] = None,
    host_key: Annotated[
        str | None, typer.Option("--host-key", metavar="SHA256:...", help="Host key it must show.")
    ] = None,
    region: Region = None,
    all_regions: Annotated[bool, typer.Option("--all-regions", help="Look in every Region of the account.")] = False,
    profile: Profile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what trains, is parked, or is not known to be safe to end.")
    ] = False,
    owner: Owner = WhoseThings.MINE,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what --yes would end; end nothing, ask nothing.")
    ] = False,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="Look in the Region of the rehearsals here, not in AWS.")
    ] = False,
    json: Json = False,
) -> Answer | None:
    """List what cloudtrain has left in the account, and end it with --yes. Found by its tags: no local state is needed.

    On its own it changes nothing. --yes ends what is safe to end: leases that are over, runs that never trained or are
    pulled, unused groups and disks. --all --yes ends everything and names each result that is lost with it. What
    others have launched is listed with its owner, and touched only with --owner any.

    With --host: folders of runs on that machine. --yes removes those whose results are here and verified; others go
    by their names or with --all, but none of an active run.
    """
    if host is not None:
        if region or all_regions or profile or rehearsal or dry_run or owner is WhoseThings.ANY:
            raise UsageError("--host is your own machine: options for AWS and rehearsals do not apply", code="usage")
        return host_leftovers.clean(
            host, ids or [], identity=identity, host_key=host_key, everything=everything, yes=yes, json=json
        )
    # Results go to stdout, the way there to stderr: in JSON mode, too, stdout is one object.
    console = reporter(Look(json=json, plain=True), lines=False)
    store = _registry(console.emit)
    where = _places(store, console.emit, region=region, everywhere=all_regions, profile=profile, rehearsal=rehearsal)
    if not where:
        nothing = "no rehearsal is active on this computer: nothing to clean"
        return Answer(lambda: {"regions": [], "refused": [], "leftovers": []}, lambda _: [nothing])
    anyone = owner is WhoseThings.ANY
    view = _look(where, store, console.emit, ids, anyone=anyone)
    command = _typed(ids, region=region, everywhere=all_regions, profile=profile, rehearsal=rehearsal, anyone=anyone)
    chosen = _choice(view, everything=everything, anyone=anyone)
    console.show(*shown.listing(view, time.time(), command=None if yes and not dry_run else command, anyone=anyone))
    if dry_run:
        return _preview(view, chosen)
    if chosen and not yes and console.may_ask():
        if not console.ask(_question(chosen, shown.losses(chosen)), default=False):
            return None
        # A person may have thought for a while: what has changed since is judged anew.
        agreed = {one.item.id for one in chosen}
        view = _look(where, store, console.emit, ids, anyone=anyone)
        chosen = [one for one in _choice(view, everything=everything, anyone=anyone) if one.item.id in agreed]
    elif not yes:
        return Answer(lambda: shown.view_record(view), error=_unseen(view), said=True)
    known: list[Ended] = []
    try:
        ended = leftovers.end(chosen, where, store, console.emit, everything=everything, told=known.append)
    except (KeyboardInterrupt, signals.Leave) as left:
        raise _broken_off(chosen, known) from left
    billed = {"running": any(one.may_cost for one in ended)}
    return Answer(
        lambda: {**shown.view_record(view, ended, acted=True), "billing": {**running.now(), **billed}},
        lambda _: shown.fates(ended, view) if view.leftovers else [],
        error=_unseen(view) or _unended(ended),
        said=True,
    )


def _preview(view: View, chosen: Sequence[Leftover]) -> Answer:
    """What an end would end; nothing is ended."""
    ids = ", ".join(one.item.id for one in chosen)
    lost = "".join(f"; lost with it: {what}" for what in shown.losses(chosen))
    told = f"would end {len(chosen)}: {ids}{lost}" if chosen else "would end nothing"
    return Answer(lambda: shown.view_record(view), lambda _: [f"{told}; nothing was changed"], error=_unseen(view))


def _broken_off(chosen: Sequence[Leftover], known: Sequence[Ended]) -> CloudtrainError:
    """A signal has struck while things were being ended."""
    gone = [one.leftover.item.id for one in known if one.gone]
    rest = [one.item.id for one in chosen if one.item.id not in gone]
    told = f"interrupted; ended: {', '.join(gone) or 'nothing'}"
    if not rest:
        return Interrupted(told, consequence="all of it is ended")
    return ConnectionFailed(f"{told}; not confirmed: {', '.join(rest)}", code="not_ended")


def _choice(view: View, *, everything: bool, anyone: bool) -> list[Leftover]:
    """What `clean` may end of what it has found."""
    return [one for one in view.leftovers if (everything or one.safe) and (anyone or not one.others)]


def adopt(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its id: i-...")],
    identity: Annotated[
        str | None, typer.Option(metavar="FILE", help="Private key that it accepts, if a copy of the run's key exists.")
    ] = None,
    user: Annotated[str, typer.Option(help="Login name of its image.")] = "ubuntu",
    region: Region = None,
    profile: Profile = None,
    owner: Owner = WhoseThings.MINE,
    json: Json = False,
    plain: Plain = False,
) -> Answer:
    """Take back an instance of yours when this computer has lost its state; logs, pull and stop then work as before.

    Its host key is checked against its console output. The way in is a copy of the run's key, or EC2 Instance Connect.
    """
    got = settings.load({"region": region, "profile": profile})
    store = Store()
    with following.console(look(json, plain), "", lines=False) as reporter:
        debts.settle(store, reporter.emit)
        run = adoption.adopt(
            instance,
            Clients(got.get("profile"), got.get("region")),
            store,
            reporter.emit,
            identity=Path(identity).expanduser().absolute() if identity else None,
            user=user,
            anyone=owner is WhoseThings.ANY,
            profile=got.get("profile"),
            job=JobSpec(source=str(job_folder())),
            runs_dir=got.runs_dir,
        )
        parked = run.life is InstanceLife.PARKED
        what = f"pull {run.name} starts it, fetches its results and ends it" if parked else f"logs {run.name}"
        reporter.remark(Noted(f"{run.name} is yours again: cloudtrain {what}"))
    return Answer(lambda: {"adopted": record(run), "billing": running.now(run.name)}, run=run.name)


def remote(
    choose: Callable[[Store], Chosen],
    lines: Callable[[Chosen, int | None], list[str]],
    asides: Callable[[Chosen], list[str]],
    *,
    region: str | None,
    profile: str | None,
    quiet: bool,
) -> Answer:
    """`ls --remote`: those runs of this computer that `choose` takes, with their `lines` and `asides`, and what AWS
    has, known here or not: of that nothing is left out."""
    emit = reporter(Look(plain=True)).emit
    store = _registry(emit)
    where = _places(store, emit, region=region, everywhere=False, profile=profile, rehearsal=False)
    view = _look(where, store, emit, None)
    chosen = choose(store) if store is not None else Chosen([], 0, [])
    there = ["", f"in {', '.join(view.regions)}:", *shown.remote(view, time.time())]
    if quiet:
        there = [one.item.id for one in view.leftovers if one.item.kind == "instance" and one.known is None]
    return Answer(
        lambda: {**shown.view_record(view), "runs": [record(run) for run in chosen.runs]},
        lambda width: [*lines(chosen, width), *there],
        error=_unseen(view),
        asides=asides(chosen),
        said=True,
    )


def settle_debts() -> None:
    """Before a command that talks to AWS about no run of its own: end what earlier runs still owe."""
    emit = reporter(Look(plain=True)).emit
    store = _registry(emit)
    if store is not None:
        debts.settle(store, emit)


def _registry(emit: Emit) -> Store | None:
    """The registry, if it can be read: losing it must not hide a machine."""
    try:
        store = Store()
        store.runs()  # one row that is torn must hide no machine either
    except StoreDamaged as error:
        emit(Warned(f"{error.message}; going on without it", hint=error.hint))
        return None
    return store


def _places(
    store: Store | None, emit: Emit, *, region: str | None, everywhere: bool, profile: str | None, rehearsal: bool
) -> list[Clients]:
    if rehearsal:
        return leftovers.rehearsal_places()
    if store is not None:
        debts.settle(store, emit)
    get = settings.load({"region": region, "profile": profile}).get
    return leftovers.places(
        profile=get("profile"), asked=region, region=get("region"), everywhere=everywhere, store=store
    )


def _look(
    where: list[Clients], store: Store | None, emit: Emit, ids: list[str] | None, *, anyone: bool = False
) -> View:
    known = leftovers.known_runs(store) if store is not None else []
    view = leftovers.look(where, known, time.time(), emit, anyone=anyone)
    return view.only(ids) if ids else view


def _unseen(view: View) -> CloudtrainError | None:
    """The error of a command that could not see all it was asked to look at."""
    regions = ", ".join(region for region, _ in view.refused)
    error = ConnectionFailed(f"not all could be seen: {regions} did not answer", code="not_seen")
    return error if view.unseen else None


def _unended(ended: Sequence[Ended]) -> CloudtrainError | None:
    """The error of a command after which something may still be billed."""
    left = [one.leftover.item.id for one in ended if one.may_cost]
    return ConnectionFailed(f"may still be billed: {', '.join(left)}", code="not_ended") if left else None


def _question(chosen: Sequence[Leftover], lost: Sequence[str]) -> str:
    which = "it" if len(chosen) == 1 else f"these {len(chosen)}"
    return f"End {which} and lose {', '.join(lost)}?" if lost else f"End {which}?"


def _typed(
    ids: list[str] | None, *, region: str | None, everywhere: bool, profile: str | None, rehearsal: bool, anyone: bool
) -> str:
    """The command as it was typed, to be typed again with more."""
    words = ["cloudtrain clean", *(ids or [])]
    words += ["--rehearsal"] if rehearsal else []
    words += ["--all-regions"] if everywhere else []
    words += ["--owner any"] if anyone else []
    words += [f"--region {region}"] if region else []
    words += [f"--profile {profile}"] if profile else []
    return " ".join(words)
