"""The story of a run, one call a line: read `resume` first.

Every step looks at the stored state and does nothing if the run is past it. So coming back after a detach, a lost link,
a sleep or a kill -9 is not a second path: it is the same function again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock

from cloudtrain import code_copy, crash, disk, lease, receipt, results, sync, tree
from cloudtrain.errors import GONE, ArtifactRefused, Busy, CloudtrainError, ConnectionFailed, UsageError
from cloudtrain.events import Noted, Warned
from cloudtrain.follow import Follower
from cloudtrain.link import Context, Link
from cloudtrain.outcome import Result, ending, result
from cloudtrain.plan import CodeSummary, Plan, make_plan
from cloudtrain.spec import RunSpec, Target
from cloudtrain.states import InstanceLife, RunState
from cloudtrain.store import Run
from cloudtrain.supervisor import FileEntry

STOP_GRACE_S = lease.STOP_GRACE_S
_PROGRESS_EVERY_S = 1.0


def plan_run(spec: RunSpec, context: Context) -> Plan:
    """Resolve what was asked for by look-ups alone: nothing is created.

    Raises:
        UsageError, SignInError, Refused: the run cannot start.
    """
    _check_folder(spec.folder)
    offer = context.provider(spec).survey(spec)
    source = Path(spec.job.source)
    files = tree.scan(source, cache=disk.cache_dir(), runs_dir=spec.folder.parent)
    code = CodeSummary(files=len(files.files), bytes=files.bytes, git=tree.git_state(source))
    return make_plan(spec, offer, code)


def begin(plan: Plan, context: Context) -> Run:
    """Record the intent. From here on the run has a row, whatever happens next.

    Raises:
        UsageError: the name is taken, or its folder cannot be made.
    """
    crash.point("K0")
    run = context.store.add(plan)
    try:
        run.folder.mkdir(parents=True)
        receipt.write(run, context.store)
    except OSError as error:
        context.store.forget(run.name)
        raise UsageError(
            f"{run.folder} cannot be made: {error.strerror}",
            hint="make the folder writable, or set runs_dir to another one",
            consequence="nothing was started",
            code="folder",
        ) from error
    return run


def resume(run: Run, context: Context, *, detach: bool = False, leave_refused: bool = False) -> Result:
    """Take `run` from wherever it stands to its end, or until it trains if `detach`.

    Args:
        leave_refused: end the run also if a file of its results cannot be taken; the file is lost with the machine.

    Raises:
        ArtifactRefused: a file is not what the host's manifest says; the others are here, the machine is kept.
        Busy: another command is acting on it.
        ConnectionFailed: the host cannot be reached; the run goes on.
        CloudtrainError: what else stopped the story; the row says where.
    """
    with claim(run.name), Link(run, context) as link:
        run = context.store.get(run.name)
        run = acquire(run, link)
        run = reach(run, link)
        run = push_and_start(run, link)
        lease.keep(run, link)
        if detach and run.state is RunState.RUNNING:
            return result(run, context)
        try:
            run = follow(run, link)
            run = pull(run, link, leave_refused=leave_refused)
        except ConnectionFailed as error:
            if error.code != GONE:
                raise
            run = lost(context.store.get(run.name), link, error)
        return release(run, link)


def acquire(run: Run, link: Link) -> Run:
    """PLANNED, PROVISIONING -> BOOTING: the run has a machine."""
    if run.state is RunState.PLANNED:
        run = link.move(run, RunState.PROVISIONING, life=_life_while_launching(run))
    if run.state is not RunState.PROVISIONING:
        return run
    with _or_failed(run, link):
        link.instance = link.provider.acquire(run.plan, link.journal, link.context.emit)
        return link.move(run, RunState.BOOTING, instance=link.instance, life=link.instance.life)


def reach(run: Run, link: Link) -> Run:
    """BOOTING -> SYNCING: the machine answers, and can run the job."""
    if run.state is not RunState.BOOTING:
        return run
    crash.point("K5")
    with _or_failed(run, link):
        link.transport()
        with link.step("environment", limit_s=60) as closing:
            facts = link.insist(lambda: link.supervisor().probe())
            closing.append(facts.summary())
        assert link.instance is not None
        job = Path(run.plan.spec.job.source)
        python = link.provider.prepare(link.instance, link.transport(), facts, job, link.context.emit)
        link.journal.write({"host": asdict(facts), "python": python})
        return link.move(run, RunState.SYNCING)


def push_and_start(run: Run, link: Link) -> Run:
    """SYNCING -> RUNNING: the job's files are there and it trains, detached from this command."""
    if run.state is not RunState.SYNCING:
        return run
    with _or_failed(run, link):
        instance = link.instance
        assert instance is not None
        if code_copy.kept(link.journal.read(), instance.id) and link.supervisor().poll().state != "absent":
            # An earlier command started it and did not live to say so. What is sent now would not be what runs.
            return link.move(run, RunState.RUNNING)
        source = Path(run.plan.spec.job.source)
        key = tree.tree_key(source)
        with link.step("sync", limit_s=300) as closing:
            files = tree.scan(source, cache=disk.cache_dir(), runs_dir=run.folder.parent)
            pushed = link.insist(
                lambda: sync.push(
                    link.transport(),
                    files,
                    python=instance.python,
                    workdir=instance.workdir,
                    run_dir=link.run_dir,
                    key=key,
                    target_id=instance.id,
                    emit=link.context.emit,
                ),
            )
            closing.append(pushed.summary())
        code_copy.keep(run.folder, files, pushed.digest, instance.id, link.journal, link.context.emit)
        python = link.journal.read()["python"]
        spec = {
            "v": 1,
            "run": run.name,
            "tree": key,
            "digest": pushed.digest,
            "argv": [python, "-m", run.plan.spec.job.module, *run.plan.spec.train.argv()],
            "env": {},
            "deadline": lease.deadline(run, instance),
            "grace": lease.stop_grace_s(run, instance),
            "lingers": lease.parks(run.plan),
        }
        with link.step("start", limit_s=60) as closing:
            # A link that breaks after the start took effect must not make a failure of a run that trains.
            link.insist(lambda: link.supervisor().start(spec))
            closing.append(f"survives disconnects; log: cloudtrain logs {run.name}")
        crash.point("K6")
        return link.move(run, RunState.RUNNING)


def follow(run: Run, link: Link) -> Run:
    """RUNNING -> PULLING: log and events are here, to the last byte, and how the job ended is known."""
    if run.state is not RunState.RUNNING:
        return run
    crash.point("K6")
    progress = _Progress(run, link)
    end = Follower(run.folder, link, link.context.emit, on_event=progress.take, sleep=link.context.sleep).run()
    progress.store(force=True)
    record: dict[str, Any] = {"state": end.state, **(end.exit.to_dict() if end.exit else {})}
    return link.move(run, RunState.PULLING, ending=record)


def pull(run: Run, link: Link, *, leave_refused: bool = False) -> Run:
    """In PULLING: every finished file of the job is here, equal to the host's manifest."""
    if run.state is not RunState.PULLING or link.journal.read().get("pulled") is not None:
        return run
    _check_log(run, link)
    try:
        files = fetch_results(run, link)
    except ArtifactRefused as error:
        if not leave_refused:
            error.hint = f"cloudtrain pull {run.name} tries again; cloudtrain stop {run.name} ends it without that file"
            raise
        link.context.emit(Warned(f"left behind: {error.message}"))
        files = [entry for entry in link.supervisor().manifest() if results.is_here(entry, run.folder)]
    link.journal.write({"pulled": [asdict(entry) for entry in files]})
    crash.point("K7")
    return run


def lost(run: Run, link: Link, error: ConnectionFailed) -> Run:
    """RUNNING, PULLING -> LOST: the machine has ended with what was still on it; what had arrived is kept."""
    what = "before its results were pulled" if run.state is RunState.PULLING else "while it trained"
    told = {
        "code": "run_lost",
        "message": f"{run.name} was lost: its machine ended {what} ({error.message})",
        "hint": f"what had arrived is in {run.folder}; a new run: cloudtrain rerun {run.name}",
    }
    give_back(run, link)
    run = link.move(link.context.store.get(run.name), RunState.LOST, error=told)
    results.sha256sums(run.folder)
    return run


def release(run: Run, link: Link) -> Result:
    """PULLING -> a final state, with the machine given back and its end confirmed."""
    if run.state is not RunState.PULLING:
        return result(run, link.context)
    leftovers: tuple[str, ...] = ()
    life, owed = run.life, None
    if link.instance is not None:
        try:
            released = link.provider.release(link.instance, link.journal, link.context.emit)
            life, leftovers = released.life, released.leftovers
        except CloudtrainError as error:
            # The result is safe. The machine is a debt: said last, paid by `stop`, ended by its own lease.
            owed, leftovers = error, (error.message,)
    state, ended_by = ending(run)
    # Before the move: a command killed between the two must not leave a run that has ended and a debt nobody knows.
    link.journal.write({"leftovers": list(leftovers), "owed": owed is not None})
    run = link.move(run, state, life=life, error=ended_by)
    receipt.update(run, link.context.store, link.context.emit)
    results.sha256sums(run.folder)
    if owed is not None:
        owed.consequence = "; ".join(filter(None, [f"the results are safe in {run.folder}", owed.consequence]))
        raise owed
    return result(run, link.context)


def fetch_results(run: Run, link: Link) -> list[FileEntry]:
    """Pull every finished file of the job that its spec wants."""
    with link.step("pull") as closing:
        supervisor = link.supervisor()
        report = results.pull(
            supervisor.read,
            supervisor.manifest(),
            run.folder,
            outputs=run.plan.spec.job.outputs,
            emit=link.context.emit,
        )
        closing.append(report.summary(run.folder))
    return list(report.files)


def _life_while_launching(run: Run) -> InstanceLife:
    return InstanceLife.LAUNCHING if run.plan.spec.target is Target.EC2 else InstanceLife.NONE


@contextmanager
def _or_failed(run: Run, link: Link) -> Iterator[None]:
    """Nothing has trained yet: when a step fails the machine is given back and the run has failed."""
    try:
        yield
    except CloudtrainError as error:
        give_back(run, link)
        if error.code == "launch_unknown":
            # It may show up yet: `stop` looks again.
            link.journal.write({"owed": True})
        row = {"code": error.code, "exit": int(error.exit_code), "message": error.message, "hint": error.hint}
        link.move(link.context.store.get(run.name), RunState.FAILED, error=row)
        raise


def give_back(run: Run, link: Link) -> None:
    """Give the machine back if the run has one; what fails is told, and is the next command's to do again."""
    try:
        instance = link.instance or link.provider.find(run.name, link.journal)
        if instance is not None:
            released = link.provider.release(instance, link.journal, link.context.emit)
            link.context.store.note(run, life=released.life)
        else:
            link.context.store.note(run, life=InstanceLife.NONE)
    except CloudtrainError as error:
        link.journal.write({"owed": True})
        link.context.emit(Warned(error.message, hint=error.hint))


def _check_log(run: Run, link: Link) -> None:
    """The local log equals the host's by the sha256 of the exit record; fetched again from the start if it does not."""
    record = run.ending or {}
    path = run.folder / "console.log"
    for attempt in range(2):
        if not record.get("log_sha256") or results.sha256(path) == record["log_sha256"]:
            return
        if attempt == 0:
            link.context.emit(Noted("the local log differs from the host's and is fetched again"))
            results.fetch(link.supervisor().read, "console.log", path)
    link.context.emit(Warned("the log here is not the one that the host's exit record names", hint="both are kept"))


class _Progress:
    """What `ls` shows of a run that trains, kept up to date while its events pass by."""

    def __init__(self, run: Run, link: Link) -> None:
        self._run = run
        self._store = link.context.store
        self._values = dict(run.progress)
        self._stored_at = 0.0

    def take(self, values: Mapping[str, Any]) -> None:
        kind = values.get("kind")
        if kind == "start":
            self._values.update({k: values[k] for k in ("epochs", "parameters", "device", "batch_size") if k in values})
        elif kind == "step" and "epoch" in values:
            self._values["epoch"] = values["epoch"]
        elif kind == "epoch":
            self._values.update({k: values[k] for k in ("epoch", "epochs", "test_acc", "train_acc") if k in values})
            if values.get("best"):
                self._values.update(best_test_acc=values.get("test_acc"), best_epoch=values.get("epoch"))
        self.store(force=kind == "epoch")

    def store(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._stored_at > _PROGRESS_EVERY_S:
            self._store.note(self._run, progress=self._values)
            self._stored_at = now


@contextmanager
def claim(name: str) -> Iterator[None]:
    """Only one command acts on a run at a time. The operating system drops the lock of a killed one."""
    folder = disk.private_dir(disk.state_dir() / "locks")
    lock = filelock.FileLock(folder / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Busy(
            f"another command is acting on {name}",
            hint=f"cloudtrain logs {name} follows it, reading only",
            consequence="this one changed nothing",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_folder(folder: Path) -> None:
    """The run's folder can be made. Found out before anything costs money."""
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe = parent / f".{folder.name}.writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{parent} cannot be written: {error.strerror}",
            hint="make the folder writable, or set runs_dir to another one",
            consequence="nothing was started",
            code="folder",
        ) from error
    if folder.exists():
        raise UsageError(
            f"{folder} exists already",
            hint="choose another --name, or move that folder away",
            consequence="nothing was started",
            code="name_taken",
        )
