"""What of ours is left in the account, joined with what the registry of this computer knows, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from cloudtrain.billing import cost, expiry
from cloudtrain.core import disk
from cloudtrain.core.errors import Busy, CloudtrainError, RunError, UsageError
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.emulator import service
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.provider.ec2.clients import READ_TIMEOUT_S, Clients
from cloudtrain.provider.ec2.end import cleaning
from cloudtrain.provider.ec2.end.cleaning import Ended, Known, Leftover
from cloudtrain.provider.ec2.notes import ENDED_NOTES, Ec2Notes
from cloudtrain.provider.ec2.offer import account
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.run_folder import receipt
from cloudtrain.run_folder.outcome import ending
from cloudtrain.store import Run, Store

# DescribeRegions answers in every Region that is enabled by default; this one always is.
HOME_REGION = "us-east-1"
PARALLEL = 12


@dataclass(frozen=True, slots=True)
class View:
    """What was found.

    Attributes:
        regions: those that answered.
        refused: those that did not, with the reason.
    """

    leftovers: tuple[Leftover, ...]
    regions: tuple[str, ...]
    refused: tuple[tuple[str, CloudtrainError], ...] = ()

    @property
    def unseen(self) -> bool:
        """Whether something may be billed in a Region that did not answer. One whose use is denied counts as empty:
        with these rights nothing can have been launched there."""
        return any(error.code != "denied" for _, error in self.refused)

    def only(self, ids: Iterable[str]) -> View:
        """The same, narrowed to `ids`, and to the groups that go with the instances among them.

        Raises:
            UsageError: one of them was not found.
        """
        wanted = set(ids)
        found = tuple(one for one in self.leftovers if one.item.id in wanted)
        missing = wanted - {one.item.id for one in found}
        if missing:
            raise UsageError(
                f"nothing of cloudtrain's is called {', '.join(sorted(missing))} in {', '.join(self.regions)}",
                hint="cloudtrain clean --all-regions lists what there is",
                consequence="nothing was changed",
                code="no_leftover",
            )
        tokens = {one.item.token for one in found if one.item.kind == "instance"}
        tokens -= {one.item.token for one in self.leftovers if one.item.kind == "instance" and one not in found}
        wanted |= {one.item.id for one in self.leftovers if one.item.kind != "instance" and one.item.token in tokens}
        return View(tuple(one for one in self.leftovers if one.item.id in wanted), self.regions, self.refused)


def known_runs(store: Store) -> list[Known]:
    """What the registry knows of every run that has been launched."""
    found = []
    for run in store.runs():
        if run.plan.spec.target is not Target.EC2:
            continue
        tokens = {*store.read_notes(run.name, Ec2Notes).seeds, run.instance.details.token if run.instance else ""}
        if not (tokens := tokens - {""}):
            continue
        notes = store.read_journal(run.name)
        been = {state for state, _ in store.moves(run.name)}
        found.append(
            Known(
                run=run.name,
                tokens=frozenset(tokens),
                # A command killed right after the start has left no trace of it here.
                trained=RunState.RUNNING in been or run.state is RunState.SYNCING,
                pulled=bool(notes.pulled) or expiry.kept_until(run) is not None,
                ended=run.state.final,
                busy=_busy(run),
                kept_until=expiry.kept_until(run),
            )
        )
    return found


def places(
    *,
    profile: str | None = None,
    asked: str | None = None,
    region: str | None = None,
    everywhere: bool = False,
    store: Store | None = None,
) -> list[Clients]:
    """Clients of each Region to look into: the one asked for alone; else the one set, and those of the registry's
    open runs.

    Args:
        region: what the settings say; None: what AWS's own settings say.
        everywhere: all Regions that the account has enabled.

    Raises:
        SignInError, ConnectionFailed, UsageError: it cannot be told which.
    """
    if everywhere:
        first = Clients(profile, asked or HOME_REGION)
        return [first.at(name) for name in cleaning.regions(first)]
    names = [] if asked or store is None else _open_regions(store)
    try:
        first = Clients(profile, asked or region)
    except UsageError:
        if not names:
            raise
        first = Clients(profile, names[0])
    return [first, *(first.at(name) for name in names if name != first.region)]


def rehearsal_places() -> list[Clients]:
    """Clients of each emulated Region that lives on this computer."""
    found = []
    for file in sorted((disk.state_dir() / "rehearsal").glob("*/region.json")):
        told = service.living(file.parent)
        if told is not None:
            name, url = str(told.get("name") or HOME_REGION), str(told["endpoint_url"])
            found.append(Clients(region=name, endpoint_url=url, access_key=service.access_key(told)))
    return found


def look(where: Sequence[Clients], known: Sequence[Known], now: float, emit: Emit, *, anyone: bool = False) -> View:
    """What there is in each of `where`, all asked at once.

    Args:
        anyone: what is another person's is judged like one's own; else it is shown, and never safe to end.

    Raises:
        CloudtrainError: none of them answered.
    """
    names = [clients.region for clients in where]
    told = names[0] if len(names) == 1 else f"{len(names)} Regions"
    began = time.monotonic()
    emit(StepStarted("look", told, READ_TIMEOUT_S))

    def ask(clients: Clients) -> list[Leftover] | CloudtrainError:
        try:
            return cleaning.find(clients, known, now, mine=mine, anyone=anyone)
        except CloudtrainError as error:
            return error

    mine = _marks(where[0])
    for clients in where:
        # Made here: the SDK's sessions are not safe to make clients in side by side.
        _ = clients.ec2
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(zip(names, pool.map(ask, where), strict=True))
    refused = tuple((name, answer) for name, answer in answers if isinstance(answer, CloudtrainError))
    found = [one for _, answer in answers if not isinstance(answer, CloudtrainError) for one in answer]
    if len(refused) == len(answers) and refused:
        raise refused[0][1]
    emit(StepDone("look", f"{told}: {len(found)} found", time.monotonic() - began))
    asked = tuple(name for name, answer in answers if not isinstance(answer, CloudtrainError))
    return View(tuple(found), asked, refused)


def _marks(clients: Clients) -> frozenset[str]:
    """Marks of whoever asks; none where AWS does not say who that is: then nothing is taken for one's own unseen."""
    try:
        return account.identify(clients).owners
    except CloudtrainError:
        return frozenset()


def end(
    chosen: Sequence[Leftover],
    where: Sequence[Clients],
    store: Store | None,
    emit: Emit,
    *,
    everything: bool = False,
    pace: Pace | None = None,
    told: Callable[[Ended], None] = lambda one: None,
) -> list[Ended]:
    """End `chosen`, confirm each by its state, and note in the registry what became of its runs.

    Args:
        everything: also what another command is acting on; that command will find its machine gone.
        told: called with each as soon as its fate is known; what it has heard is in the registry also where a signal
            breaks this off.
    """
    ended: list[Ended] = []

    def hear(one: Ended) -> None:
        ended.append(one)
        told(one)

    with ExitStack() as stack:
        taken, busy = set(), set()
        for name in {one.known.run for one in chosen if one.known}:
            try:
                stack.enter_context(claim(name))
                taken.add(name)
            except Busy:
                busy.add(name)
        for one in chosen:
            if one.known and one.known.run in busy and not everything:
                hear(Ended(one, False, f"another command is acting on {one.known.run}"))
        skipped = {one.leftover.item.id for one in ended}
        try:
            for clients in where:
                here = [one for one in chosen if one.region == clients.region and one.item.id not in skipped]
                if here:
                    cleaning.end(here, clients, emit, pace or Pace(), told=hear)
        finally:
            if store is not None:
                for name in taken:
                    its = [one for one in ended if one.leftover.known and one.leftover.known.run == name]
                    _record(store, name, its)
    return ended


def _record(store: Store, name: str, ended: Sequence[Ended]) -> None:
    """The run's row tells that its machine is gone; one that had not ended has ended by this."""
    machines = [one for one in ended if one.leftover.item.kind == "instance"]
    if not machines or not all(one.gone for one in machines):
        return
    run = store.get(name)
    over = cost.down(run, InstanceLife.TERMINATED, None, time.time())
    run = store.note(run, life=InstanceLife.TERMINATED, instance=over)
    store.write_journal(name, ENDED_NOTES)
    store.write_journal(name, RunNotes(owed=False, leftovers=()))
    if not run.state.final:
        state: RunState = RunState.STOPPED
        error: RunError | None = RunError(code="cleaned", message=f"cloudtrain clean ended the machine of {name}")
        if store.read_journal(name).pulled:
            state, error = ending(run)
        with suppress(Busy):
            run = store.move(run, state, error=error)
    with suppress(OSError):
        receipt.write(run, store)


def _busy(run: Run) -> bool:
    try:
        with claim(run.name):
            return False
    except Busy:
        return True


def _open_regions(store: Store) -> list[str]:
    """Regions in which the registry knows a machine that may live; rehearsals have their own place."""
    found = []
    for run in store.runs():
        ec2 = run.plan.spec.ec2
        if ec2 is None or ec2.rehearsal or not run.life.may_exist:
            continue
        region = store.read_notes(run.name, Ec2Notes).region or (run.instance and run.instance.details.region)
        if region and region not in found:
            found.append(str(region))
    return found
