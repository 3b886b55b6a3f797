"""A spot instance that is taken back: what of the run is kept, and how it goes on within the limits agreed to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudtrain.billing import cost, expiry
from cloudtrain.core import disk, secrets
from cloudtrain.core.errors import GONE, RECLAIMED, ConnectionFailed, HostKeyMismatch, RunError, UsageError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import Attempt, RunNotes
from cloudtrain.core.plan import DEFAULT_LIMIT_S, Plan
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import EVENTS, LOG, LOG_FILES, ExitRecord
from cloudtrain.lifecycle import checkpoints, put_back, repeat
from cloudtrain.lifecycle.session import Session
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.run_folder import log_times
from cloudtrain.run_folder.files import of_attempt
from cloudtrain.store import Run

# A machine that is announced to go is gone two minutes later; nobody tries to reach it for longer, in seconds.
NOTICE_S = 150.0
_AGAIN_S = 2.0
# Less time than this before its end is not worth another machine: boot and set-up take minutes on a real one.
LEAST_LEFT_S = 120.0
ENDED = frozenset({GONE, RECLAIMED})
# States of a run that has no machine to train on yet.
ON_THE_WAY = frozenset({RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING})


def goes(run: Run) -> bool:
    """Whether the machine is announced to go, or goes: only what is fetched now can be had."""
    return run.stop == "spot" or (run.stop == "shutdown" and _may_be_taken(run))


def was_taken(run: Run, error: ConnectionFailed) -> bool:
    """Whether `error`, by which the machine has ended, means that a spot instance was taken back."""
    return error.code == RECLAIMED or (error.code == GONE and run.stop == "spot")


def within_notice(run: Run, session: Session, act: Callable[[], Run]) -> Run:
    """`act`, tried again while the machine may still be there; at once and once only where nothing threatens it.

    Raises:
        ConnectionFailed: it has gone first (codes in `ENDED`), or cannot be reached any more.
    """
    clock = session.context.clock
    until = clock() + NOTICE_S
    while True:
        try:
            return act()
        except HostKeyMismatch:
            raise
        except ConnectionFailed as error:
            if not goes(run) or error.code in ENDED or clock() >= until:
                raise
            session.drop()
            session.context.emit(
                Noted(f"the machine is about to go, and not everything is here ({error.message}); trying again")
            )
            session.context.sleep(_AGAIN_S)


def relaunched(before: Run, now: Run, notes: RunNotes) -> bool:
    """Whether a run that trained as `before` has been taken to another machine since."""
    if not before.state.trains or notes.attempt == 1:
        return False
    same = before.instance is not None and now.instance is not None and before.instance.id == now.instance.id
    return now.state in ON_THE_WAY or (now.state is RunState.RUNNING and not same)


def told(run: Run, notes: RunNotes, why: str, code: str = RECLAIMED) -> RunError:
    """The `error` of a run that a spot instance was taken from."""
    what = "result" if run.plan.spec.job.command else "checkpoint"
    anew = f"no {what} of it had arrived; cloudtrain rerun {run.name} starts over"
    onward = checkpoints.onward(run, notes) or anew
    return RunError(code=code, message=f"{run.name} was interrupted: {why}", hint=onward)


def plan_for(run: Run, notes: RunNotes, now: float) -> Plan:
    """The plan for the machine that is launched next: no later one gets more time than is left of the run's."""
    ends = notes.run_ends_at
    if notes.attempt == 1 or ends is None:
        return run.plan
    return replace(run.plan, limit_s=max(1.0, ends - now))


def priced(instance: Instance, notes: RunNotes, now: float) -> Instance:
    """`instance` with what the run's earlier machines have cost, for `billing/cost.py`."""
    if notes.attempt == 1:
        return instance
    before, began = sum(attempt.usd for attempt in notes.attempts), instance.details.began_at
    return replace(instance, details=replace(instance.details, began_at=began or now, before_usd=before))


def source_of(run: Run, notes: RunNotes) -> Path:
    """The folder with the code to send: on a later machine the very code that the first one got.

    Raises:
        UsageError: that is no longer available (code `no_code`).
    """
    code = notes.code
    if notes.attempt == 1 or not code:
        return Path(run.plan.spec.job.source)
    return repeat.source_of(run, code)[0]


def go_on(run: Run, session: Session) -> Run | None:
    """INTERRUPTED -> PROVISIONING, if the run's limits allow another machine; None: it stays, and why is reported."""
    notes = session.journal.read(RunNotes)
    error = run.error
    if run.state is not RunState.INTERRUPTED or error is None or error.code != RECLAIMED or not _may_be_taken(run):
        return None
    ends, now, number = _ends(run, notes), session.context.clock(), notes.attempt
    restarts = run.plan.spec.limits.spot_restarts
    owes = bool(notes.owed or session.journal.read(Ec2Notes).release_pending)
    why = _why_not(run, notes, ends - now, owes=owes)
    if why is not None:
        session.context.emit(Warned(f"{run.name} does not go on by itself: {why}", hint=error.hint))
        return None
    over = _record(run, number)
    zone = run.instance.zone if run.instance else None
    avoid = [*notes.avoid_zones, *([zone] if zone else [])]
    session.journal.write(
        RunNotes(
            attempt=number + 1,
            attempts=(*notes.attempts, over),
            avoid_zones=tuple(dict.fromkeys(avoid)),
            run_ends_at=ends,
            trickled=notes.pulled or notes.trickled,
            pulled=None,
            leftovers=(),
        )
    )
    shelve(run.folder, number)
    onward = _onward(run, session.journal.read(RunNotes))
    session.context.emit(
        Noted(
            f"another spot instance is launched ({number} of at most {restarts} times) and {run.name} {onward}; "
            "its limit and the most that it can cost stay as they were"
        )
    )
    session.forget()
    before = run.instance
    if before is not None:
        # What it cost is settled: it does not grow while the next one is looked for.
        before = cost.ended(before, before.details.ended_at or run.ended_at, now)
    return session.move(
        run, RunState.PROVISIONING, life=InstanceLife.LAUNCHING, instance=before, ending=None, error=None
    )


def _onward(run: Run, notes: RunNotes) -> str:
    """What it does on the next machine, in words."""
    if run.plan.spec.job.command:
        back = put_back.of(run, notes)
        begins = put_back.where(back, run.plan.spec.job) if back else ""
        return f"begins with {begins}" if begins else "runs from the start: no result came"
    checkpoint = checkpoints.latest(run, notes)
    where = f"on from its checkpoint ({checkpoint.where()})" if checkpoint else "from the start: no checkpoint came"
    return f"trains {where}"


def shelve(folder: Path, number: int) -> None:
    """Put log and events of attempt `number` aside, as `console.N.log` and `events.N.jsonl`; safe to repeat.

    A new machine's files begin at their first byte again.
    """
    for name in (*LOG_FILES, log_times.NAME):
        path, aside = folder / name, folder / of_attempt(name, number)
        if path.exists() and not aside.exists():
            path.replace(aside)
        elif name in LOG_FILES and not aside.exists():
            aside.touch()


def _why_not(run: Run, notes: RunNotes, left_s: float, *, owes: bool) -> str | None:
    """Why there is no other machine for it, in words; None: there may be one."""
    limits, number = run.plan.spec.limits, notes.attempt
    if notes.stop_wanted:
        return "it was asked to stop"
    if not limits.starts_over and put_back.of(run, notes) is None:
        return "none of its results had come, so it would start over (--spot-restarts N allows that)"
    if number > limits.spot_restarts:
        count = limits.spot_restarts
        return f"--spot-restarts allows {'none' if not count else f'{count}, and all are used'}"
    if owes or run.life.may_exist:
        return "the end of its machine is not confirmed"
    least = max(LEAST_LEFT_S, 2 * expiry.margin_s(run.plan.limit_s or DEFAULT_LIMIT_S))
    if left_s < least:
        return f"{max(0.0, left_s) / 60:.0f} min are left of its time, too few for another machine"
    if lacking := secrets.missing(run.plan.spec.job.secrets):
        return f"this command does not know the secret {lacking[0]}"
    try:
        source_of(run, notes | RunNotes(attempt=number + 1))
    except UsageError as error:
        return error.message
    return None


def _record(run: Run, number: int) -> Attempt:
    """What is kept of an attempt that is over; `log` and `events` as they are in the files here."""
    instance, ending = run.instance, run.ending or ExitRecord()
    facts: dict[str, Any] = {}
    for kind, name in (("log", LOG), ("events", EVENTS)):
        path = run.folder / name
        facts[kind] = {"bytes": path.stat().st_size, "sha256": disk.sha256(path)} if disk.is_plain(path) else None
    whole = run.ending is not None and facts["log"] is not None and facts["log"]["sha256"] == ending.log_sha256
    return Attempt(
        n=number,
        instance_id=instance.id if instance else None,
        instance_type=instance.type if instance else None,
        zone=instance.zone if instance else None,
        ended=run.ended_at,
        ended_how="spot",
        exit={"code": ending.code, "signal": ending.signal, "stop": ending.stop},
        usd=_usd(run),
        log={**facts["log"], "whole": whole} if facts["log"] else None,
        events=facts["events"],
    )


def _usd(run: Run) -> float:
    """What this machine has cost, without those before it."""
    if run.instance is None:
        return 0.0
    before = max(0.0, run.instance.details.before_usd)
    return (cost.would_cost(run, run.ended_at or run.updated_at) or before) - before


def _may_be_taken(run: Run) -> bool:
    """Whether the run is on a spot instance of its own."""
    ec2 = run.plan.spec.ec2
    return ec2 is not None and ec2.spot and not ec2.instance_id


def _ends(run: Run, notes: RunNotes) -> float:
    """Unix seconds at which the run ends whatever happens."""
    expires = expiry.expires_at(run)
    if expires is not None:
        return expires
    return notes.run_ends_at if notes.run_ends_at else run.created_at + (run.plan.limit_s or DEFAULT_LIMIT_S)
