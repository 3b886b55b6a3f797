"""Whether a machine suits its run: asked once the probe has told what it has, before anything is sent or trained."""

from __future__ import annotations

from dataclasses import replace

from cloudtrain.core import questions
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.host import HostFacts
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.text import an_hour, seconds
from cloudtrain.lifecycle.session import Session
from cloudtrain.store import Run

LINGER = "once, on the host: loginctl enable-linger"
# A difference between two clocks that is worth a line, in seconds.
_CLOCK_OFF_S = 120.0


def ends_at_logout(notes: RunNotes) -> bool:
    """Whether the run's host ends what a login has started when that login ends; `notes` of the run's journal."""
    return notes.host is not None and notes.host.logout == "ends"


def check(run: Run, session: Session, facts: HostFacts, *, detach: bool) -> None:
    """Say what does not suit, and ask where it costs money.

    Raises:
        UsageError: it ends a run that is to be left alone (`ends_at_logout`), lacks torch (`no_torch`), or its GPU
            cannot be used and nobody has agreed to that (`gpu_unusable`).
    """
    _clock(session, facts)
    _logout(run, session, facts, detach)
    _torch(run, session, facts)
    _gpu(run, session, facts)


def _logout(run: Run, session: Session, facts: HostFacts, detach: bool) -> None:
    if facts.logout != "ends" or run.plan.spec.target is Target.LOCAL:
        return
    told = "the host ends all programs of a login when that login ends (KillUserProcesses of its systemd-logind)"
    if detach:
        hint = f"leave out --detach and stay connected; or {LINGER}"
        raise UsageError(f"cannot detach: {told}", hint=hint, consequence="nothing was sent", code="ends_at_logout")
    session.context.emit(Warned(f"{told}: the run is lost when this connection ends", hint=LINGER))


def _clock(session: Session, facts: HostFacts) -> None:
    """What a job prints of the time is its host's: a clock that is far off is reported once. No end depends on it."""
    off = 0.0 if facts.at is None else facts.at - session.context.clock()
    if abs(off) > _CLOCK_OFF_S:
        which = "ahead of" if off > 0 else "behind"
        told = f"the clock of this machine is {seconds(abs(off))} {which} this computer's"
        session.context.emit(Noted(f"{told}: times that the job prints are its own; limits hold all the same"))


def _torch(run: Run, session: Session, facts: HostFacts) -> None:
    """It is not missed where it comes with the packages that the project asks for."""
    assert session.instance is not None
    planned, here = run.plan.environment, run.plan.spec.target is Target.LOCAL
    if facts.torch or (planned and (planned.torch or planned.why or here)):
        return
    if run.plan.spec.rehearsal and not run.plan.spec.job.command:
        raise UsageError(
            "the rehearsal trains on this computer, and its Python has no torch",
            hint='pip install "cloudtrain[local,rehearse]"',
            consequence="nothing was installed",
            code="no_torch",
        )
    given = facts.why == "given"
    seen = f"{facts.python} there has no torch" if given else "no Python there has torch"
    looked = "" if given else f"; looked at: {', '.join(facts.looked)[:500]}"
    if session.instance.owned and not run.plan.spec.job.command:
        raise ConnectionFailed(
            "could not find torch on the instance",
            hint="leave out --ami to get an image that has torch, or install it on your own image; --python PATH"
            " names it",
            consequence="nothing has trained",
            code="environment",
            detail=f"{facts.python} has none" if given else f"none of these has it: {', '.join(facts.looked)[:500]}",
        )
    hint = "--python PATH of one that has it; or make one there: python3 -m venv ~/venv; ~/venv/bin/pip install torch"
    if run.plan.spec.job.shipped:
        raise UsageError(seen + looked, hint=hint, consequence="nothing was sent", code="no_torch")
    session.context.emit(Warned(seen + looked, hint=hint))


def _gpu(run: Run, session: Session, facts: HostFacts) -> None:
    machine, spec = session.instance, run.plan.spec
    assert machine is not None
    promised, planned = machine.details.gpu, run.plan.environment
    if planned is not None and (planned.torch or planned.why):
        # It brings a torch of its own: of the machine's only the driver counts.
        facts = replace(facts, without_cuda=False, cuda=None)
    why = facts.idle_gpu(promised)
    if why is None or spec.train.device == "cpu" or (promised and not facts.torch):
        return
    what = f"the GPU of {machine.type} ({promised})" if promised else f"the GPU of {machine.id}"
    told = f"{what} cannot be used: {why}"
    if not promised:
        hint = "--device cpu trains there without this warning" if spec.job.shipped else None
        session.context.emit(Warned(told, hint=hint))
        return
    hour = an_hour(machine.price_per_hour, ", at ")
    if not (spec.ec2 is not None and spec.ec2.allow_cpu) and not session.journal.read(RunNotes).gpu_idle_agreed:
        answer = questions.ask(f"{told}.\nGo on without it{hour}? [y/N]")
        if answer is None or not answer.strip().lower().startswith("y"):
            raise UsageError(
                told,
                hint="the same command with --allow-cpu goes on without it; or another --ami or --python",
                consequence="nothing has trained",
                code="gpu_unusable",
            )
        session.journal.write(RunNotes(gpu_idle_agreed=True))
    session.context.emit(Warned(f"{told}; it goes on without it{hour}, as you allowed"))
