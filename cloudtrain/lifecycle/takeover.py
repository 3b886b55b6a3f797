"""`--on RUN`: a run takes over the machine that an earlier one has kept, and nothing is launched.

Whose a machine is stands in the registry, and changes there in one transaction: row and journal of both runs. Before it
nothing of the machine has changed. After it the new run has the machine marked as its own and its end moved, as often
as it takes; until that is done the machine ends itself when the earlier run wanted it to.
"""

from __future__ import annotations

from dataclasses import replace

from cloudtrain.billing import cost, expiry
from cloudtrain.core import crash
from cloudtrain.core.errors import RunLost, UsageError
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.plan import DEFAULT_LIMIT_S, Offer
from cloudtrain.core.spec import Ec2Spec, RunSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import time_of_day
from cloudtrain.lifecycle import machine_end
from cloudtrain.lifecycle.run_lock import claim
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.base import Provider
from cloudtrain.provider.ec2 import trust
from cloudtrain.provider.ec2.notes import Ec2Notes, handed_over
from cloudtrain.run_folder import receipt
from cloudtrain.store import Run, Store
from cloudtrain.transfer.supervisor import Supervisor

# The supervisor of the run before would switch the machine off so many seconds after its job: later than it ever does.
_NEVER_S = 7 * 86400.0


def wanted(spec: RunSpec, notes: RunNotes) -> bool:
    """Whether the run's next machine is one to be taken over: its first may be, later ones are launched."""
    return spec.ec2 is not None and spec.ec2.from_run is not None and notes.attempt == 1


def holder(run: Run, store: Store) -> str | None:
    """Name of the run that has the machine of `run` now; None: it was never taken over."""
    found, next_one = None, store.read_journal(run.name).handed_to
    while next_one is not None:
        found, next_one = next_one, store.read_journal(next_one).handed_to
    return found


def check(run: Run, store: Store, now: float) -> Instance:
    """The machine of `run`, which can be taken over as far as the registry knows at `now` (unix seconds).

    Raises:
        UsageError: it is not kept, or is another run's by now (code `not_kept`).
    """
    ec2, instance, until, name = run.plan.spec.ec2, run.instance, expiry.kept_until(run), run.name
    notes, ends = store.read_journal(name), f"cloudtrain stop {name} --keep 30m"
    anew = "leave --on out: a machine is launched, and with --keep 30m it stays up for the next run"
    if taker := holder(run, store):
        raise _not_kept(f"the machine of {name} was taken over by {taker}", f"--on {taker}, once that one has kept it")
    if ec2 is None or ec2.instance_id:
        raise _not_kept(f"{name} has no machine that was launched for it", "--host, --instance-id or --local name it")
    if run.life is InstanceLife.PARKED:
        raise _not_kept(f"the machine of {name} is parked", f"cloudtrain pull {name} fetches its results; {anew}")
    if not run.state.final:
        raise _not_kept(f"{name} has not ended ({run.state.value})", f"{ends} ends it, and keeps its machine")
    if instance is None or until is None or now >= until or notes.owed:
        raise _not_kept(f"the machine of {name} has ended, or is about to", anew)
    if until - now < machine_end.LEAST_S:
        raise _not_kept(f"the machine of {name} ends itself in {until - now:.0f} s", anew)
    if ec2.faults:
        raise _not_kept(f"{name} is a rehearsal with faults, in a region of its own", "rehearse without --fault")
    if instance.price_per_hour is None:
        raise _not_kept(f"no price is known for the machine of {name}, so its cost could not be limited", anew)
    if not (trust.keys_folder(name) / "client").exists():
        raise _not_kept(f"the key to the machine of {name} is not on this computer", anew)
    return instance


def _not_kept(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was changed", code="not_kept")


def waiting(spec: RunSpec, store: Store, now: float) -> Run | None:
    """The latest run that has kept a machine on which `spec` could train as well; None: there is none."""
    ec2 = spec.ec2
    if ec2 is None or ec2.instance_id or ec2.from_run or ec2.faults:
        return None
    for run in store.runs(lambda _: None, latest=1):
        was, region = run.plan.spec.ec2, run.plan.offer.details.region
        if was is None or not expiry.is_kept(run, now) or ec2.region not in (None, region) or _but(was) != _but(ec2):
            continue
        try:
            if check(run, store, now).type in ec2.types:
                return run
        except UsageError:
            continue
    return None


def _but(ec2: Ec2Spec) -> Ec2Spec:
    """What must be the same of two machines, so that one does for the other, beside type and Region."""
    return replace(ec2, types=(), region=None, from_run=None, allow_cpu=False, boot_limit_s=None)


def _kept(name: str, context: Context, provider: Provider) -> tuple[Run, Instance]:
    """The run `name`, and its machine as EC2 has it now.

    Raises:
        UsageError: it cannot be taken over.
    """
    store = context.store
    run = store.get(name)
    known = check(run, store, context.clock())
    found = provider.find(name, store.journal(name))
    if found is None:
        raise _not_kept(
            f"the machine of {name} has ended: EC2 says so", "leave --on out, or look: cloudtrain ls --refresh"
        )
    if found.life is not InstanceLife.RUNNING:
        raise _not_kept(f"the machine of {name} is {found.life.value}", f"cloudtrain stop {name} ends it")
    if found.details.expires_at != known.details.expires_at:
        told = f"somebody else has moved the end of {found.id}: another computer may use it"
        raise _not_kept(told, "cloudtrain ls --remote shows it; leave --on out")
    details = replace(found.details, gpu=known.details.gpu)
    return run, replace(found, price_per_hour=known.price_per_hour, details=details)


def survey(spec: RunSpec, context: Context) -> Offer:
    """The machine that `spec` is to take over, in the place of `Provider.survey`.

    Raises:
        UsageError: it cannot be; nothing was changed.
    """
    assert spec.ec2 is not None and spec.ec2.from_run is not None
    run, machine = _kept(spec.ec2.from_run, context, context.provider(spec))
    was = run.plan.offer
    one = next((each for each in was.candidates if each.type == machine.type), was.candidates[0])
    until = time_of_day(machine.details.expires_at or 0.0, context.clock())
    told = f"{machine.id} of {run.name}, kept until {until}; the limit counts from the takeover"
    shown = replace(
        one, type=machine.type, price_per_hour=machine.price_per_hour, zones=(machine.zone or "",), note=told
    )
    launchable = tuple(each for each in was.details.candidates if each.type == machine.type)
    details = replace(
        was.details, instance_id=machine.id, state="running", zone=machine.zone, candidates=launchable, adopted=False
    )
    return replace(was, candidates=(shown,), alternatives=(), warnings=(), details=details)


def take(run: Run, session: Session) -> Instance:
    """In PROVISIONING: the machine that the run was to take over is its own, and ends itself at the run's end. Safe to
    call again after a crash at any point.

    Raises:
        UsageError: it can no longer be taken over, and is not; nothing was changed.
        Busy: another command is acting on the run that has kept it.
        CloudtrainError: it is the run's own now, and ends itself at the time that it had.
    """
    context, store = session.context, session.context.store
    ec2 = run.plan.spec.ec2
    assert ec2 is not None and ec2.from_run is not None
    name = ec2.from_run
    with session.step("instance", f"taking over the machine of {name}", limit_s=60) as closing:
        if session.journal.read(Ec2Notes).instance is None:
            with claim(name):
                _hand_over(name, run, session)
            crash.point("K10")
        trust.forget(name)
        receipt.update(store.get(name), store, context.emit)
        session.instance = store.get(run.name).instance
        until = session.journal.read(Ec2Notes).ends_by
        assert until is not None

        def arrange() -> None:
            # The run before first: what ends a machine earlier than it was told to harms nobody.
            if any(state is RunState.RUNNING for state, _ in store.moves(name)):
                _dismiss(name, store.read_journal(name), session)
            session.find().take_over(session.transport(wakes=False), until)

        session.insist(arrange)
        instance = session.find().instance
        closing.append(f"{instance.id} {instance.type}, {instance.zone}, taken over from {name}")
    return replace(instance, details=replace(instance.details, expires_at=until))


def _hand_over(name: str, run: Run, session: Session) -> None:
    """The registry has the machine of the run `name` as that of `run`."""
    store, now = session.context.store, session.context.clock()
    try:
        before, machine = _kept(name, session.context, session.provider)
    except UsageError:
        trust.forget(run.name)  # a command that was killed may have copied them
        raise
    trust.copy_keys(name, run.name)
    crash.point("K9")
    until = float(int(now + (run.plan.limit_s or DEFAULT_LIMIT_S)))
    left, taken = cost.handed_over(before, machine, run.name, now)
    old, new = handed_over(store.read_notes(before.name, Ec2Notes), run.name, until)
    own = RunNotes(handed_to=run.name, held=None, owed=False, leftovers=())
    store.write(
        (before.name, own, {"life": InstanceLife.NONE, "instance": left}),
        (before.name, old, {}),
        (run.name, new, {"life": InstanceLife.RUNNING, "instance": taken}),
    )


def _dismiss(name: str, notes: RunNotes, session: Session) -> None:
    """The supervisor of the run `name`, which waits there to switch the machine off, does so no more."""
    transport, instance = session.transport(wakes=False), session.find().instance
    folder, known = f"{instance.workdir}/runs/{notes.on_host or name}", notes.id if notes.on_host else None
    try:
        Supervisor(transport, instance.python, folder, instance.workdir, known).lease(grace=_NEVER_S)
    except RunLost:
        # Its folder there is gone, and its supervisor with it.
        return
