"""What becomes of a run's machine when it ends: it parks, its end is moved, or it stays up for a while (`--keep`).

A machine that is kept stays up once its run's results are here, and then ends itself, unwatched.

Its end is on the machine before the run's story ends: it deletes itself, its lease is moved to the end that was
promised, never past the run's own, and its supervisor counts the same time by a clock of its own. Whatever of that
fails, the machine is given back at once instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudtrain.billing import expiry
from cloudtrain.core.errors import CloudtrainError, HostKeyMismatch, UsageError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import Promise, RunNotes
from cloudtrain.core.plan import at_most
from cloudtrain.core.spec import Limits, RunSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import an_hour, time_of_day
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.run_folder import receipt
from cloudtrain.run_folder.outcome import ending
from cloudtrain.store import Run

# Less than this before the run's own end, in seconds, is not worth staying for.
LEAST_S = 20.0
# Ends of a job by which its machine goes, whoever wants it.
_GOING = frozenset({"spot", "shutdown"})


@dataclass(frozen=True, slots=True)
class Held:
    """A machine that stays up: `leftover` is what that is, human-readable, with its price and its end."""

    instance: Instance
    leftover: str


def check(spec: RunSpec) -> None:
    """`spec` is of a run whose machine can be kept.

    Raises:
        UsageError: no machine is launched for it, so none is ended either.
    """
    if spec.target is Target.EC2 and spec.ec2 is not None and not spec.ec2.instance_id:
        return
    where = {Target.LOCAL: "this computer", Target.HOST: "a machine of yours"}.get(spec.target, "an instance of yours")
    raise UsageError(
        f"--keep is for a machine that is launched for the run: this one trains on {where}, which is never ended",
        hint="leave it out",
        consequence="nothing was changed",
        code="bad_setting",
    )


def asked(limits: Limits, notes: RunNotes, *, failed: bool) -> float:
    """Seconds that the run's machine is to stay up; 0: it is not to."""
    if notes.keep_s is not None:
        return notes.keep_s
    return max(limits.keep_s or 0.0, (limits.keep_on_failure_s or 0.0) if failed else 0.0)


def take(run: Run, session: Session) -> Held | None:
    """In PULLING, with the results here: the machine stays up if that was asked for; None: it is to be given back.

    Safe to call again after a crash at any point: the end that was promised first stands.
    """
    notes, instance = session.journal.read(RunNotes), session.instance
    wanted = asked(run.plan.spec.limits, notes, failed=ending(run)[0] is RunState.FAILED)
    if not wanted or instance is None or notes.pulled is None or session.journal.read(Ec2Notes).release_pending:
        return None
    return _kept(run, session, instance, wanted)


def take_untrained(run: Run, session: Session) -> Held | None:
    """A step before the training has failed on a machine that answers: it stays up if that was asked for; None: it is
    to be given back."""
    notes, instance = session.journal.read(RunNotes), session.instance
    wanted = 0.0 if notes.stop_wanted else run.plan.spec.limits.keep_on_failure_s or 0.0
    if not wanted or instance is None or notes.attempt > 1 or session.living() is None:
        return None
    return _kept(run, session, instance, wanted, trained=False)


def _kept(run: Run, session: Session, instance: Instance, wanted: float, *, trained: bool = True) -> Held | None:
    """`take`, once it was asked for."""
    notes, now = session.journal.read(RunNotes), session.context.clock()
    why = _why_not(run, instance, session)
    before = notes.held
    end = expiry.expires_at(run, instance)
    at = before.until if before and before.id == instance.id else now + wanted
    at = float(int(min(at, end) if end else at))
    if why is None and at - now < LEAST_S:
        # A resumed command finds its own promise used up; only a fresh one has something to explain.
        why = "" if before else "its limit is reached"
    if why is not None:
        if why:
            session.context.emit(Noted(f"{instance.id} is not kept: {why}"))
        return None
    session.journal.write(RunNotes(held=Promise(id=instance.id, until=at)))

    def arrange() -> bool:
        transport = session.transport(wakes=False)
        if not session.find().end_at(transport, at):
            return False
        # Counted from now by the machine itself: a clock that is wrong there or here moves this end by nothing.
        if trained:
            session.supervisor().lease(grace=max(1.0, at - session.context.clock()))
        return True

    try:
        with session.step("keep", limit_s=90) as closing:
            if not session.insist(arrange):
                return None
            closing.append(f"{instance.id} stays up until {time_of_day(at, now)}, then it ends itself")
    except CloudtrainError as error:
        session.journal.write(RunNotes(held=None, keep_s=0.0))
        hint = "the results are here" if trained else "nothing has trained on it"
        session.context.emit(Warned(f"{instance.id} cannot be kept and is ended now: {error.message}", hint=hint))
        return None
    # The session's own: it may have been woken or looked up since.
    instance = session.instance or instance
    kept = replace(instance, details=replace(instance.details, expires_at=at, kept_until=at))
    return Held(kept, _leftover(run, kept, at, now))


def _why_not(run: Run, instance: Instance, session: Session) -> str | None:
    """Why a machine is not kept although that was asked for, in words; None: it can be."""
    if not instance.owned:
        return "it is yours, and is not ended"
    if run.stop in _GOING:
        return "it is about to go"
    if instance.details.parked_s is not None or session.journal.read(Ec2Notes).woken:
        return "it had parked, and was started only to fetch its results"
    return None


def _leftover(run: Run, instance: Instance, at: float, now: float) -> str:
    price = an_hour(instance.price_per_hour) or "billed"
    costs = "nothing is billed for a rehearsal" if run.plan.spec.rehearsal else price
    kind, until = f" ({instance.type})" if instance.type else "", f"kept until {time_of_day(at, now)}"
    return f"instance {instance.id}{kind}, {until}, then it ends itself; {costs}. {expiry.kept_hint(run)}"


def park_at_end(run: Run, session: Session) -> None:
    """In RUNNING: the machine parks from now on where it would have ended itself, and does so soon after the job's end.

    Looked at by every command that resumes the run, so that one which was killed in between is made good.
    """
    if run.state is not RunState.RUNNING or not expiry.parks(run.plan):
        return
    try:
        machine = session.find()
        if session.journal.read(RunNotes).parks == machine.instance.id:
            return
        if machine.park_at_end():
            session.supervisor().lease(grace=run.plan.spec.limits.grace_s)
            session.journal.write(RunNotes(parks=machine.instance.id))
    except HostKeyMismatch:
        raise
    except CloudtrainError as error:
        session.context.emit(
            Warned(
                f"the machine may delete its disk when it ends itself: {error.message}",
                hint="stay with the run, or pull before its limit; the next command tries again",
            )
        )


def can_park(run: Run) -> bool:
    """Whether the machine of `run` is its own, and EC2 lets it stop."""
    instance = run.instance
    return instance is not None and instance.owned and not instance.details.spot


def park(run: Run, session: Session) -> None:
    """In PULLING, with results that stay behind: the machine parks now, whatever was planned for its limit. One that
    cannot park is left as it is."""
    machine = session.machine
    if machine is None or not can_park(run) or run.life is InstanceLife.PARKED:
        return
    known = machine.instance
    try:
        with session.step("park", known.id, limit_s=120) as closing:
            machine.park_at_end()
            ended = machine.end(parks=True)
            closing.append(f"{known.id} {ended.life.value}")
    except CloudtrainError as error:
        hint = f"it parks itself; cloudtrain show {run.name}"
        session.context.emit(Warned(f"{known.id} is not parked yet: {error.message}", hint=hint))
        return
    session.drop()
    session.instance = down = session.down(known, ended.life, ended.at)
    session.context.store.note(run, life=ended.life, instance=down)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A later end for a run.

    Attributes:
        before, after: unix seconds at which it ends whatever it does.
        at_most_usd: the most it can cost with the later end, rounded up to the cent; None where nothing is billed.
    """

    before: float
    after: float
    at_most_usd: float | None


def extension(run: Run, context: Context, by_s: float) -> Extension:
    """What `by_s` more seconds would mean for `run`, from the registry alone.

    Raises:
        UsageError: it has ended, is parked, is not training yet, or has no limit.
    """
    if run.state.final:
        raise _not_extended(f"{run.name} has ended ({run.state.value})", f"cloudtrain show {run.name}")
    if run.state is RunState.PULLING or expiry.away(run):
        raise _not_extended(f"{run.name} is no longer training", f"cloudtrain pull {run.name}")
    if run.state is not RunState.RUNNING:
        raise _not_extended(f"{run.name} is not training yet", f"cloudtrain logs {run.name}")
    before = expiry.ends_at(run)
    if before is None:
        raise _not_extended(f"{run.name} has no limit that could be moved", f"cloudtrain logs {run.name}")
    moved = context.store.read_journal(run.name).ends_at
    before = moved if moved and expiry.expires_at(run) is None else before
    after = before + by_s
    parked_s = (run.instance.details.parked_s or 0.0) if run.instance else 0.0
    most = at_most(run.plan.offer.dearest, after - run.created_at - parked_s)
    return Extension(before=before, after=after, at_most_usd=most if run.plan.at_most_usd is not None else None)


def extend(run: Run, context: Context, by_s: float) -> Extension:
    """Move a run's end: the machine's own lease, its tag, the job's deadline, the registry. Works beside a command that
    follows the run.

    Raises:
        UsageError: there is nothing to extend.
        ConnectionFailed: the machine cannot be reached, or did not take the new end; it ends at the old one.
    """
    run = context.store.get(run.name)
    told = extension(run, context, by_s)
    with Session(run, context, wakes=False) as session:
        if session.supervisor().poll().state != "running":
            raise _not_extended(f"{run.name} is no longer training", f"cloudtrain pull {run.name}")
        machine, margin = session.find(), 0.0
        instance = machine.instance
        moved = replace(instance, details=replace(instance.details, expires_at=told.after))
        # The machine first: a job must never outlive it.
        if machine.extend(session.transport(), told.after):
            run = context.store.note(run, instance=moved)
            margin = expiry.margin_s(run.plan.limit_s or 0.0)
        session.supervisor().lease(lasts=told.after - margin - context.clock())
        if instance.provider is not Target.EC2:
            run = context.store.note(run, instance=moved)
        session.journal.write(RunNotes(ends_at=told.after))
        receipt.update(run, context.store, context.emit)
    return told


def _not_extended(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was changed", code="not_extended")
