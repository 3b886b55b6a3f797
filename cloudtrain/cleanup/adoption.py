"""An instance whose registry was lost comes back under control: a row is made from its tags and its own state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cloudtrain.core import told
from cloudtrain.core.decode import Odd, json_object, made
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.core.notes import N, Notes, RunNotes
from cloudtrain.core.plan import Plan
from cloudtrain.core.spec import JobSpec, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.reach import adopt as orphans
from cloudtrain.run_folder import receipt
from cloudtrain.store import Run, Store
from cloudtrain.transfer.answers import RunStatus
from cloudtrain.transfer.supervisor import Supervisor

_STORY = (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING)


_MOST_SPEC = 1 << 20  # bytes
_QUIET_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """Of what a supervisor was told: the program, its folder below `code/`, and the folder there that has results."""

    argv: tuple[str, ...] = ()
    cwd: str | None = None
    results: str | None = None


class _Notes:
    """A journal in memory, for the time before there is a row."""

    def __init__(self, notes: Notes) -> None:
        self._entries = notes.entries()

    def read(self, kind: type[N]) -> N:
        return kind.of(self._entries)

    def write(self, notes: Notes) -> None:
        self._entries |= notes.entries()


def adopt(
    instance_id: str,
    clients: Clients,
    store: Store,
    emit: Emit,
    *,
    identity: Path | None,
    user: str,
    anyone: bool = False,
    profile: str | None,
    job: JobSpec,
    runs_dir: Path,
    pace: Pace | None = None,
) -> Run:
    """A row for the run that trains, or has trained, on `instance_id`; from then on it is a run like any other.

    Args:
        identity: private key that the machine accepts; None: the run's own, or EC2 Instance Connect.
        user: login name of the image.
        job: what it trains, where its host does not tell that a command of somebody's own does.
        anyone: also a machine that another person has launched.
        profile: what `clients` were asked for; None: whatever AWS's own settings name.

    Raises:
        UsageError: it is not ours or another person's, it is known already, or nothing has trained on it.
        HostKeyMismatch: it does not show the key that its console output tells; nothing was sent.
        ConnectionFailed: nobody here can log in; it goes on running.
    """
    emit(StepStarted("adopt", f"{instance_id} in {clients.region}", (pace or Pace()).boot))
    orphan = orphans.find(clients, instance_id, user, anyone=anyone)
    _check_new(orphan, store)
    notes = _Notes(orphans.notes(orphan, clients))
    status, sent = _look(orphan, clients, notes, emit, pace or Pace(), identity)
    if status is not None and status.state == "absent":
        raise UsageError(
            f"nothing has trained on {instance_id}: there is no run {orphan.run} on it",
            hint=f"end it: cloudtrain clean --all --yes {instance_id}",
            consequence="it keeps running and being billed until its own lease ends it",
            code="nothing_yet",
        )
    job = _job(sent, job, runs_dir)
    plan = orphans.plan(orphan, clients.region, profile=profile, train=_train(status), job=job, runs_dir=runs_dir)
    run = _row(plan, orphan, notes, store)
    receipt.update(run, store, emit)
    emit(StepDone("adopt", f"{run.name} on {instance_id}: {status.state if status else 'parked'}"))
    return run


def _look(
    orphan: orphans.Orphan, clients: Clients, notes: _Notes, emit: Emit, pace: Pace, identity: Path | None
) -> tuple[RunStatus | None, _Sent]:
    """How the run on the machine stands, None: it is parked; and what the machine was told to run. Fills `notes` with
    what a later login needs."""
    if orphan.parked:
        # It parks only once it has something to lose; what that is, `pull` will see.
        orphans.enter_later(orphan, clients, notes, emit, identity=identity)
        return None, _Sent()
    with orphans.enter(orphan, clients, notes, emit, pace, identity=identity) as transport:
        instance = orphan.instance
        run_dir = f"{instance.workdir}/runs/{orphan.run}"
        supervisor = Supervisor(transport, instance.python, run_dir, instance.workdir)
        facts = supervisor.probe()
        status = supervisor.poll()
        sent = _sent(supervisor) if status.state != "absent" else _Sent()
    notes.write(RunNotes(host=facts, python=facts.python))
    return status, sent


def _sent(supervisor: Supervisor) -> _Sent:
    data = bytearray()
    try:
        with supervisor.read("spec.json") as stream:
            while len(data) < _MOST_SPEC and (piece := stream.read(_QUIET_S)):
                data += piece
        return made(_Sent, json_object(bytes(data)), leave_out=True)
    except (Odd, TimeoutError):
        return _Sent()


def _job(sent: _Sent, job: JobSpec, runs_dir: Path) -> JobSpec:
    """The command that the host was told to run, as its user may have typed it. Its project is not known here."""
    if sent.results is None or not sent.argv:
        return job
    program = sent.argv[0].rpartition("/")[2]
    command = ("python" if program.startswith("python") else sent.argv[0], *sent.argv[1:])
    cwd = (sent.cwd or "").partition("/")[2]
    return JobSpec(source=str(runs_dir.parent / sent.results.partition("/")[0]), command=command, cwd=cwd)


def _row(plan: Plan, orphan: orphans.Orphan, notes: _Notes, store: Store) -> Run:
    """The run in the registry, as if it had been followed from its launch until now.

    Raises:
        ConnectionFailed: its folder cannot be made; no row is left.
    """
    run = Store(store.path, clock=lambda: orphan.launched_at).add(plan)
    store.write_journal(run.name, notes.read(RunNotes))
    store.write_journal(run.name, notes.read(Ec2Notes))
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        store.forget(run.name)
        raise ConnectionFailed(
            f"{run.folder} cannot be made: {error.strerror or error}",
            hint="adopt it from another folder",
            consequence="the instance goes on running",
            code="folder",
        ) from error
    instance = replace(orphan.instance, host_key=notes.read(Ec2Notes).host_key)
    for state in _STORY[:-1]:
        run = store.move(run, state)
    return store.move(run, _STORY[-1], instance=instance, life=instance.life)


def _check_new(orphan: orphans.Orphan, store: Store) -> None:
    if orphan.run not in store.names():
        return
    if orphan.token in store.read_notes(orphan.run, Ec2Notes).seeds:
        raise UsageError(
            f"{orphan.instance.id} is known here: it is the machine of {orphan.run}",
            hint=f"cloudtrain logs {orphan.run}",
            consequence="nothing was changed",
            code="known_already",
        )
    raise UsageError(
        f"{orphan.instance.id} belongs to a run {orphan.run}, and another run here has this name",
        hint="adopt it with another state folder: set CLOUDTRAIN_HOME",
        consequence="nothing was changed",
        code="name_taken",
    )


def _train(status: RunStatus | None) -> TrainSpec:
    for values in told.events(status.events) if status else ():
        if values.get("kind") == "start":
            return orphans.learnt(values)
    return TrainSpec()
