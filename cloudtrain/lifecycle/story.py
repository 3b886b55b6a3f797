"""The story of a run, one call a line: read `resume` first.

Every step looks at the stored state and does nothing if the run is past it. So coming back after a detach, a lost link,
a sleep or a kill -9 is not a second path: it is the same function again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cloudtrain.billing import expiry
from cloudtrain.core import crash, disk, secrets
from cloudtrain.core.environment import Environment
from cloudtrain.core.errors import (
    RECLAIMED,
    CloudtrainError,
    ConnectionFailed,
    LimitReached,
    RunError,
    RunLost,
)
from cloudtrain.core.events import Warned, discard
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import seconds
from cloudtrain.core.told import ExitRecord
from cloudtrain.lifecycle import (
    background_pull,
    checkpoints,
    environments,
    host_folder,
    machine_end,
    overdue,
    put_back,
    spot,
    suited,
    takeover,
)
from cloudtrain.lifecycle.fetch_results import allowed, check_log, limit, results_of
from cloudtrain.lifecycle.progress import Heard, Progress
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.run_folder import code_copy, receipt
from cloudtrain.run_folder import files as folder_files
from cloudtrain.run_folder.outcome import Result, discarded, ending, not_pulled
from cloudtrain.source import command, tree
from cloudtrain.store import Facts, Run
from cloudtrain.transfer.follow import Follower


def resume(run: Run, context: Context, *, detach: bool = False, relaunch: bool = False) -> Result:
    """Take `run` from wherever it stands to its end, or until it trains if `detach`.

    Args:
        relaunch: a run whose spot instance is taken back goes on, on another, within its limits.

    Raises:
        ArtifactRefused: a file is not what the host's manifest says; the others are here, the machine is kept.
        LimitReached: there are more results than may come unasked; the others are here, the machine is parked.
        Busy: another command is acting on it.
        ConnectionFailed: the host cannot be reached; the run goes on.
        CloudtrainError: what else stopped the story; the row says where.
    """
    with claim(run.name), Session(run, context) as session:
        while True:
            _attempt(context.store.get(run.name), session, detach=detach)
            run = context.store.get(run.name)
            if not relaunch or spot.go_on(run, session) is None:
                return context.result(run)


def _attempt(run: Run, session: Session, *, detach: bool) -> None:
    """The story on one machine."""
    try:
        run = acquire(run, session)
        run = reach(run, session, detach=detach)
        run = push_and_start(run, session)
        machine_end.park_at_end(run, session)
        if detach and run.state is RunState.RUNNING:
            return
        run = follow(run, session)
        run = spot.within_notice(run, session, lambda: pull(run, session))
    except ConnectionFailed as error:
        run = session.context.store.get(run.name)
        if run.state is RunState.INTERRUPTED and error.code == RECLAIMED:
            return
        if error.code not in spot.ENDED or not run.state.trains:
            raise
        run = interrupted(run, session, error) if spot.was_taken(run, error) else lost(run, session, error)
    release(run, session)


def acquire(run: Run, session: Session) -> Run:
    """PLANNED, PROVISIONING -> BOOTING: the run has a machine."""
    if run.state not in (RunState.PLANNED, RunState.PROVISIONING):
        return run
    session.secrets()
    if run.state is RunState.PLANNED:
        launches = run.plan.spec.target is Target.EC2 and not takeover.wanted(run.plan.spec, RunNotes())
        life = InstanceLife.LAUNCHING if launches else InstanceLife.NONE
        run = session.move(run, RunState.PROVISIONING, life=life)
    with _or_failed(run, session):
        notes, now = session.journal.read(RunNotes), session.context.clock()
        if takeover.wanted(run.plan.spec, notes):
            instance = takeover.take(run, session)
        else:
            instance = session.provider.acquire(spot.plan_for(run, notes, now), session.journal, session.context.emit)
        session.instance = instance = spot.priced(instance, notes, now)
        return session.move(run, RunState.BOOTING, instance=instance, life=instance.life)


def reach(run: Run, session: Session, *, detach: bool = False) -> Run:
    """BOOTING -> SYNCING: the machine answers, and can run the job."""
    if run.state is not RunState.BOOTING:
        return run
    session.secrets()
    crash.point("K5")
    with _or_failed(run, session):
        session.transport()
        # On this computer it is the one that runs this command.
        here = environments.here(run, session)
        only = run.plan.spec.job.python or here
        with session.step("environment", limit_s=60) as closing:
            facts = session.insist(lambda: session.supervisor().probe(only))
            facts = replace(facts, why=None) if here else facts
            closing.append(facts.summary())
        suited.check(run, session, facts, detach=detach)
        environments.make(run, session, facts)
        return session.move(run, RunState.SYNCING)


def push_and_start(run: Run, session: Session) -> Run:
    """SYNCING -> RUNNING: the job's files are there and it trains, detached from this command."""
    if run.state is not RunState.SYNCING:
        return run
    if started_unnoted(run, session):
        # What is sent now would not be what runs.
        return session.move(run, RunState.RUNNING)
    values = session.secrets()
    with _or_failed(run, session):
        instance = session.instance
        assert instance is not None
        notes = session.journal.read(RunNotes)
        source, first = spot.source_of(run, notes), notes.attempt == 1
        key = tree.tree_key(source)
        with session.step("sync", limit_s=300) as closing:
            files = tree.scan(source, cache=disk.cache_dir(), runs_dir=run.folder.parent)
            pushed = session.push(files, key)
            closing.append(pushed.summary())
            if run.plan.code.stays:
                closing[-1] += f"; stays here: {'; '.join(run.plan.code.stays)}"
        environments.build_image(run, session, files, key, pushed.digest)
        if first or not notes.code:
            code_copy.keep(run.folder, files, pushed.digest, instance.id, session.journal, session.context.emit)
        else:
            session.journal.write(RunNotes(code=replace(notes.code, target_id=instance.id)))
        onward = put_back.begin(run, session) or checkpoints.begin(run, session)
        notes = session.journal.read(RunNotes)
        python = notes.python or "python3"
        spec = {
            "v": 1,
            "run": run.name,
            "tree": key,
            "digest": pushed.digest,
            **command.program(
                run.plan.spec, notes.environment or Environment(python=python), onward.get("added", ()), files.folders
            ),
            "env": environments.variables(notes.environment) | dict(run.plan.spec.job.vars) | onward.get("env", {}),
            "restore": onward.get("restore"),
            "grace": expiry.stop_grace_s(run, instance),
            "lingers": expiry.parks(run.plan),
            "spot": instance.details.spot,
            "most": limit(run, notes),
            "scope": notes.host is not None and notes.host.logout == "scope",
            "container": environments.container(notes),
        }
        with session.step("start", limit_s=60) as closing:
            # A link that breaks after the start took effect must not make a failure of a run that trains.
            # In seconds from now, and with our time of now: the host's clock may be wrong.
            end, clock = expiry.deadline(run, instance), session.context.clock
            session.insist(
                lambda: session.supervisor().start(
                    {**spec, "secrets": values, "at": clock(), "lasts": end - clock() if end else None}
                )
            )
            lasts = "ends with its login" if suited.ends_at_logout(notes) else "survives disconnects"
            closing.append(f"{lasts}; log: cloudtrain logs {run.name}")
        crash.point("K6")
        return session.move(run, RunState.RUNNING)


def started_unnoted(run: Run, session: Session) -> bool:
    """Whether an earlier command started the job and did not live to say so, in SYNCING.

    Raises:
        ConnectionFailed: the machine cannot be asked. It may have trained for hours: nobody ends it for that.
    """
    known = session.instance is not None and code_copy.kept(session.journal.read(RunNotes), session.instance.id)
    if run.state is not RunState.SYNCING or not known:
        return False
    try:
        return session.insist(lambda: session.supervisor().poll()).state != "absent"
    except RunLost:
        return False
    except ConnectionFailed as error:
        if error.code in spot.ENDED:
            return False
        raise


def follow(run: Run, session: Session) -> Run:
    """RUNNING -> PULLING: log and events are here, to the last byte, and how the job ended is known."""
    if run.state is not RunState.RUNNING:
        return run
    crash.point("K6")
    context = session.context
    if session.journal.read(RunNotes).stop_wanted:
        within_s = expiry.STOP_GRACE_S + overdue.STOP_S
        session.guard.last_call(within_s, f"asked to stop, it did not end within {within_s:.0f} s")
    progress = Progress(run, context.store)
    heard = Heard(run, context.emit, progress.hear_row)
    outputs, rate, most = run.plan.spec.job.outputs, context.trickle_mib_s, limit(run, session.journal.read(RunNotes))
    with background_pull.Trickle(
        session, run.folder, outputs, session.journal, context.emit, mib_s=rate, most=most, keeps=allowed(run)
    ) as beside:

        def take(values: Mapping[str, Any]) -> None:
            progress.take(values)
            beside.heard(values)

        def beat() -> None:
            heard.arrived(beside.arrived(), beside.grown())
            progress.beat()

        end = Follower(run.folder, session, heard.emit, on_event=take, on_frame=beat, sleep=context.sleep).run()
    progress.store(force=True)
    # Its supervisor, too: killed, or told to end as at a shutdown.
    goes_with_it = end.exit is None or end.exit.stop == "shutdown"
    logout = goes_with_it and suited.ends_at_logout(session.journal.read(RunNotes))
    record = replace(end.exit or ExitRecord(), state=end.state, logout=logout)
    if told := secrets.places(record.secrets):
        context.emit(Warned(f"the console log holds {told}", hint="logs and reports hide that; console.log does not"))
    return session.move(run, RunState.PULLING, ending=record)


def pull(run: Run, session: Session) -> Run:
    """In PULLING: every finished file of the job is here, equal to the host's manifest."""
    notes = session.journal.read(RunNotes)
    if run.state is not RunState.PULLING or notes.pulled is not None:
        return run
    if discarded(run, notes):
        background_pull.keep(run.folder, session.journal)
        return run
    session.guard.last_call(overdue.LAST_S, f"what it has did not come within {seconds(overdue.LAST_S)}")
    check_log(run, session)
    files = results_of(run, session, goes=spot.goes(run))
    session.journal.write(RunNotes(pulled=tuple(files)) | checkpoints.arrived(run, files))
    crash.point("K7")
    progress = Progress(run, session.context.store)
    Heard(run, discard, progress.hear_row).arrived(entry.here for entry in files)
    if progress.figures != run.progress:
        progress.store(force=True)
    return run


def lost(run: Run, session: Session, error: ConnectionFailed) -> Run:
    """RUNNING, PULLING -> LOST: the machine has ended with what was still on it; what had arrived is kept."""
    what = "before its results were pulled" if run.state is RunState.PULLING else "while it trained"
    onward = checkpoints.onward(run, session.journal.read(RunNotes))
    told = RunError(
        code="run_lost",
        message=f"{run.name} was lost: its machine ended {what} ({error.message})",
        hint=onward or f"what had arrived is in {run.folder}; a new run: cloudtrain rerun {run.name}",
    )
    give_back(run, session)
    return _ended(run, session, RunState.LOST, told)


def interrupted(run: Run, session: Session, error: ConnectionFailed) -> Run:
    """RUNNING, PULLING -> INTERRUPTED: the spot instance was taken back; what had arrived is kept."""
    told = spot.told(run, session.journal.read(RunNotes), f"its spot instance was taken back ({error.message})")
    give_back(run, session)
    return _ended(run, session, RunState.INTERRUPTED, told)


def unpulled(run: Run, session: Session) -> Run:
    """RUNNING, PULLING -> STOPPED, on request: the machine ends with what was still on it; what had arrived is kept."""
    give_back(run, session)
    now, onward = session.context.store.get(run.name), checkpoints.onward(run, session.journal.read(RunNotes))
    return _ended(run, session, RunState.STOPPED, not_pulled(now, onward))


def _ended(run: Run, session: Session, state: RunState, told: RunError) -> Run:
    """The run ends without a pull: what had come down before is its result."""
    background_pull.keep(run.folder, session.journal)
    run = session.move(session.context.store.get(run.name), state, error=told)
    folder_files.sha256sums(run.folder)
    return run


def release(run: Run, session: Session) -> Result:
    """PULLING -> a final state, with the machine given back and its end confirmed, or kept as it was asked for."""
    if run.state is not RunState.PULLING:
        return session.context.result(run)
    leftovers: tuple[str, ...] = ()
    life, owed, instance = run.life, None, None
    held = machine_end.take(run, session)
    if held is not None:
        life, leftovers = InstanceLife.RUNNING, (held.leftover,)
        session.instance = instance = held.instance
    elif session.machine is not None:
        host_folder.remove(run, session)
        try:
            released = session.machine.release()
            life, leftovers = released.life, released.leftovers
            instance = session.down(session.machine.instance, life, released.at)
        except CloudtrainError as error:
            # The result is safe. The machine is a debt: said last, paid by `stop`, ended by its own lease.
            owed, leftovers = error, (error.message,)
    state, ended_by = ending(run)
    if state is RunState.INTERRUPTED:
        ended_by = spot.told(run, session.journal.read(RunNotes), "its spot instance was taken back")
    elif state in (RunState.STOPPED, RunState.LOST) and ended_by is not None:
        notes = session.journal.read(RunNotes)
        onward = checkpoints.onward(run, notes)
        ended_by = replace(ended_by, hint=onward or ended_by.hint)
        if discarded(run, notes):
            ended_by = not_pulled(replace(run, life=life), onward)
    # Before the move: a command killed between the two must not leave a run that has ended and a debt nobody knows.
    session.journal.write(RunNotes(leftovers=leftovers, owed=owed is not None))
    facts: Facts = {"life": life, "error": ended_by}
    if instance is not None:
        facts["instance"] = instance
    run = session.move(run, state, **facts)
    receipt.update(run, session.context.store, session.context.emit)
    folder_files.sha256sums(run.folder)
    if owed is not None:
        owed.consequence = "; ".join(filter(None, [f"the results are safe in {run.folder}", owed.consequence]))
        raise owed
    return session.context.result(run)


@contextmanager
def _or_failed(run: Run, session: Session) -> Iterator[None]:
    """Nothing has trained yet on this machine: when a step fails it is given back and the run has failed.

    A run that had others before, or whose spot instance is taken back already, is interrupted instead.
    """
    try:
        yield
    except Exception as failed:
        # Whatever it is: a machine on which nothing trains must not stay.
        why = f"something unexpected happened: {type(failed).__name__}: {failed}"
        error = failed if isinstance(failed, CloudtrainError) else CloudtrainError(why, hint="cloudtrain ls")
        if (held := machine_end.take_untrained(run, session)) is not None:
            session.journal.write(RunNotes(leftovers=(held.leftover,)))
            up, told = InstanceLife.RUNNING, RunError.of(error)
            session.move(run, RunState.FAILED, life=up, instance=held.instance, error=told)
            raise
        give_back(run, session)
        if error.code == "launch_unknown":
            # It may show up yet: `stop` looks again.
            session.journal.write(RunNotes(owed=True))
        run, notes = session.context.store.get(run.name), session.journal.read(RunNotes)
        taken = error.code == RECLAIMED
        if taken or notes.attempt > 1:
            why = "its spot instance was taken back" if taken else "it could not go on on another machine"
            row = spot.told(run, notes, f"{why} ({error.message})", error.code)
            _ended(run, session, RunState.INTERRUPTED, row)
            if taken:
                raise
            raise LimitReached(
                row.message,
                hint="; ".join(filter(None, [error.hint, row.hint])),
                consequence=error.consequence,
                code=error.code,
                detail=error.detail,
            ) from error
        session.move(run, RunState.FAILED, error=RunError.of(error))
        raise


def give_back(run: Run, session: Session) -> None:
    """Give the machine back if the run has one; what fails is reported, and is the next command's to do again."""
    try:
        machine = session.look_up()
        if machine is not None:
            released = machine.release()
            over = session.down(machine.instance, released.life, released.at)
            session.context.store.note(run, life=released.life, instance=over)
        else:
            session.context.store.note(run, life=InstanceLife.NONE)
    except CloudtrainError as error:
        session.journal.write(RunNotes(owed=True))
        session.context.emit(Warned(error.message, hint=error.hint))
