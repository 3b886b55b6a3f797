"""The story of a run, one call a line: read `resume` first.

Every step looks at the stored state and does nothing if the run is past it. So coming back after a detach, a lost link, a
sleep or a kill -9 is not a second path: it is the same function again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock

from cloudtrain import disk, receipt, results, sync, tree
from cloudtrain.errors import Busy, CloudtrainError, ConnectionFailed, ExitCode, UsageError
from cloudtrain.events import Emit, Noted, PhaseChanged, StepDone, StepStarted, Warned, discard
from cloudtrain.follow import Follower, read_objects
from cloudtrain.plan import CodeSummary, Plan, make_plan
from cloudtrain.provider.base import Provider
from cloudtrain.spec import RunSpec, Target
from cloudtrain.states import InstanceLife, RunState
from cloudtrain.store import Run, Store
from cloudtrain.supervisor import FileEntry, Supervisor
from cloudtrain.transport.base import Transport

STOP_GRACE_S = 20.0
_PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the story works with; tests hand in their own parts.

    Attributes:
        provider: gives the provider of a target.
    """

    store: Store
    provider: Callable[[RunSpec], Provider]
    emit: Emit = discard
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run stands when the story returns.

    Attributes:
        metrics: the job's own `result` event, or what is known of its last epoch.
        artifacts: files in `folder` whose sha256 was verified against the host's manifest.
        seconds: from the plan to the end.
        cost_usd: None where nothing is billed.
        leftovers: what the run still has in the account, for people; empty: nothing.
    """

    run: str
    state: RunState
    exit_code: ExitCode
    folder: Path
    metrics: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[FileEntry, ...] = ()
    seconds: float = 0.0
    cost_usd: float | None = None
    leftovers: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None


def plan_run(spec: RunSpec, context: Context) -> Plan:
    """Resolve what was asked for by look-ups alone: nothing is created.

    Raises:
        UsageError, SignInError, Refused: the run cannot start.
    """
    _check_folder(spec.folder)
    offer = context.provider(spec).survey(spec)
    source = Path(spec.job.source)
    files = tree.scan(source, cache=disk.cache_dir())
    code = CodeSummary(files=len(files.files), bytes=files.bytes, git=tree.git_state(source))
    return make_plan(spec, offer, code)


def begin(plan: Plan, context: Context) -> Run:
    """Record the intent. From here on the run has a row, whatever happens next.

    Raises:
        UsageError: the name is taken, or its folder cannot be made.
    """
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


def resume(run: Run, context: Context, *, detach: bool = False) -> Result:
    """Take `run` from wherever it stands to its end, or until it trains if `detach`.

    Raises:
        Busy: another command is acting on it.
        ConnectionFailed: the host cannot be reached; the run goes on.
        CloudtrainError: what else stopped the story; the row says where.
    """
    with _claim(run.name), Link(run, context) as link:
        run = context.store.get(run.name)
        run = acquire(run, link)
        run = reach(run, link)
        run = push_and_start(run, link)
        if detach and run.state is RunState.RUNNING:
            return result(run, context)
        run = follow(run, link)
        run = pull(run, link)
        return release(run, link)


class Link:
    """The way from a run to its host: instance, transport and supervisor, each made when first needed."""

    def __init__(self, run: Run, context: Context) -> None:
        self.context = context
        self.provider = context.provider(run.plan.spec)
        self.journal = context.store.journal(run.name)
        self.instance = run.instance
        self._run = run
        self._transport: Transport | None = None

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exit_info: object) -> None:
        self.drop()

    @property
    def run_dir(self) -> str:
        """The run directory on the host."""
        return f"{self._workdir}/runs/{self._run.name}"

    @property
    def _workdir(self) -> str:
        if self.instance is None:
            raise ConnectionFailed(
                f"{self._run.name} has no machine any more", hint=f"cloudtrain show {self._run.name}"
            )
        return self.instance.workdir

    def transport(self) -> Transport:
        """An open connection, made anew after `drop`."""
        if self._transport is None:
            if self.instance is None:
                self.instance = self.provider.find(self._run.name, self.journal)
            if self.instance is None:
                raise ConnectionFailed(
                    f"{self._run.name} has no machine any more",
                    hint=f"cloudtrain show {self._run.name}",
                )
            self._transport = self.provider.open(self.instance, self.journal, self.context.emit)
        return self._transport

    def supervisor(self) -> Supervisor:
        """A client of the on-host supervisor."""
        transport = self.transport()
        assert self.instance is not None
        return Supervisor(transport, self.instance.python, self.run_dir, self._workdir)

    def drop(self) -> None:
        """Close the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def move(self, run: Run, state: RunState, **facts: Any) -> Run:
        """Store the new state and tell of it."""
        run = self.context.store.move(run, state, **facts)
        self.context.emit(PhaseChanged(run.name, state))
        return run

    @contextmanager
    def step(self, title: str, detail: str = "", limit_s: float | None = None) -> Iterator[list[str]]:
        """Tell of a step from its start to its end; what is put into the list becomes its closing detail."""
        began = time.monotonic()
        self.context.emit(StepStarted(title, detail, limit_s))
        closing: list[str] = []
        yield closing
        self.context.emit(StepDone(title, " ".join(closing) or detail, time.monotonic() - began))


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
    with _or_failed(run, link):
        transport = link.transport()
        with link.step("environment", limit_s=60) as closing:
            facts = link.supervisor().probe()
            closing.append(facts.summary())
        assert link.instance is not None
        job = Path(run.plan.spec.job.source)
        python = link.provider.prepare(link.instance, transport, facts, job, link.context.emit)
        link.journal.write({"host": asdict(facts), "python": python})
        return link.move(run, RunState.SYNCING)


def push_and_start(run: Run, link: Link) -> Run:
    """SYNCING -> RUNNING: the job's files are there and it trains, detached from this command."""
    if run.state is not RunState.SYNCING:
        return run
    with _or_failed(run, link):
        instance = link.instance
        assert instance is not None
        source = Path(run.plan.spec.job.source)
        key = tree.tree_key(source)
        with link.step("sync", limit_s=300) as closing:
            files = tree.scan(source, cache=disk.cache_dir())
            pushed = sync.push(
                link.transport(),
                files,
                python=instance.python,
                workdir=instance.workdir,
                run_dir=link.run_dir,
                key=key,
                target_id=instance.id,
                emit=link.context.emit,
            )
            closing.append(pushed.summary())
        python = link.journal.read()["python"]
        limit = run.plan.limit_s
        spec = {
            "v": 1,
            "run": run.name,
            "tree": key,
            "digest": files.digest,
            "argv": [python, "-m", run.plan.spec.job.module, *run.plan.spec.train.argv()],
            "env": {},
            "deadline": run.created_at + limit if limit else None,
            "grace": STOP_GRACE_S,
        }
        with link.step("start", limit_s=60) as closing:
            link.supervisor().start(spec)
            closing.append(f"survives disconnects; log: cloudtrain logs {run.name}")
        return link.move(run, RunState.RUNNING)


def follow(run: Run, link: Link) -> Run:
    """RUNNING -> PULLING: log and events are here, to the last byte, and how the job ended is known."""
    if run.state is not RunState.RUNNING:
        return run
    progress = _Progress(run, link)
    end = Follower(run.folder, link, link.context.emit, on_event=progress.take, sleep=link.context.sleep).run()
    progress.store(force=True)
    ending: dict[str, Any] = {"state": end.state, **(end.exit.to_dict() if end.exit else {})}
    return link.move(run, RunState.PULLING, ending=ending)


def pull(run: Run, link: Link) -> Run:
    """In PULLING: every finished file of the job is here, equal to the host's manifest."""
    if run.state is not RunState.PULLING or link.journal.read().get("pulled"):
        return run
    with link.step("pull", limit_s=None) as closing:
        supervisor = link.supervisor()
        _check_log(run, link, supervisor)
        entries = supervisor.manifest()
        report = results.pull(
            supervisor.read,
            entries,
            run.folder,
            outputs=run.plan.spec.job.outputs,
            emit=link.context.emit,
        )
        closing.append(report.summary(run.folder))
    link.journal.write({"pulled": [asdict(entry) for entry in report.files]})
    return run


def release(run: Run, link: Link) -> Result:
    """PULLING -> a final state, with the machine given back and its end confirmed."""
    if run.state is not RunState.PULLING:
        return result(run, link.context)
    leftovers: tuple[str, ...] = ()
    life = run.life
    if link.instance is not None:
        try:
            released = link.provider.release(link.instance, link.journal, link.context.emit)
            life, leftovers = released.life, released.leftovers
        except CloudtrainError as error:
            # The result is safe. The machine is a debt: said now, retried by the next command, ended by its own lease.
            link.context.emit(Warned(error.message, hint=error.hint))
            leftovers = (error.message,)
    state, error = _ending(run, link.context)
    run = link.move(run, state, life=life, error=error)
    link.journal.write({"leftovers": list(leftovers)})
    receipt.write(run, link.context.store)
    results.sha256sums(run.folder)
    return result(run, link.context)


def stop(run: Run, context: Context, *, reason: str = "user") -> Result:
    """End a run: the job is asked to save and end, what exists is pulled, the machine is given back.

    Safe to call again, and while another command follows the run: that one then finishes the story.
    """
    if run.state.final:
        return result(run, context)
    if run.state in (RunState.RUNNING, RunState.PULLING):
        if run.state is RunState.RUNNING:
            with Link(run, context) as link, link.step("stop", limit_s=STOP_GRACE_S + 10):
                link.supervisor().stop(reason=reason, grace=STOP_GRACE_S)
        for _ in range(60):
            try:
                return resume(context.store.get(run.name), context)
            except Busy:
                context.sleep(0.5)
            if (now := context.store.get(run.name)).state.final:
                return result(now, context)
        raise Busy(f"another command is still pulling {run.name}", hint=f"cloudtrain show {run.name}")
    return abandon(run, context)


def abandon(run: Run, context: Context) -> Result:
    """End a run that has not begun to train: nothing can be lost, the machine is given back."""
    with _claim(run.name), Link(run, context) as link:
        run = context.store.get(run.name)
        if not run.state.final:
            _give_back(run, link)
            run = link.move(
                run, RunState.STOPPED, error={"code": "abandoned", "message": "ended before training began"}
            )
        return result(run, context)


def result(run: Run, context: Context) -> Result:
    """How `run` stands, from the registry alone."""
    notes = context.store.read_journal(run.name)
    pulled = notes.get("pulled") or []
    metrics = dict(run.progress)
    for values in read_objects(run.folder / "events.jsonl"):
        if values.get("kind") == "result":
            metrics.update({k: v for k, v in values.items() if k not in ("v", "t", "kind")})
    return Result(
        run=run.name,
        state=run.state,
        exit_code=exit_code(run),
        folder=run.folder,
        metrics=metrics,
        artifacts=tuple(FileEntry(**entry) for entry in pulled),
        seconds=(run.ended_at or context.clock()) - run.created_at,
        cost_usd=cost(run, context.clock()),
        leftovers=tuple(notes.get("leftovers") or ()),
        error=run.error,
    )


def exit_code(run: Run) -> ExitCode:
    """The exit code of a command that followed `run` to where it stands."""
    reason = (run.ending or {}).get("stop")
    match run.state:
        case RunState.SUCCEEDED:
            return ExitCode.DONE
        case RunState.STOPPED:
            return ExitCode.LIMIT if reason and reason != "user" else ExitCode.INTERRUPTED
        case RunState.INTERRUPTED:
            return ExitCode.LIMIT
        case RunState.LOST:
            return ExitCode.CONNECTION
        case RunState.FAILED if run.ending is not None:
            return ExitCode.TRAINING_FAILED
        case RunState.FAILED:
            return ExitCode((run.error or {}).get("exit", ExitCode.UNEXPECTED))
    return ExitCode.STILL_RUNNING


def cost(run: Run, now: float) -> float | None:
    """USD so far by the price of the plan; EC2 bills by the second, a minute at least. None: nothing is billed."""
    instance = run.instance
    if instance is None or not instance.owned or instance.price_per_hour is None:
        return None
    seconds = max(60.0, (run.ended_at or now) - run.created_at)
    return instance.price_per_hour * seconds / 3600


def _ending(run: Run, context: Context) -> tuple[RunState, dict[str, Any] | None]:
    """The final state that the host's exit record stands for, and the error to show with it."""
    ending = run.ending or {}
    if ending.get("state") != "exited":
        return RunState.LOST, {
            "code": "run_lost",
            "message": f"{run.name} was lost: its supervisor ended without a record (killed, or the machine went down)",
            "hint": f"what could be saved is in {run.folder}",
        }
    if ending.get("stop"):
        limit = ending["stop"] == "deadline"
        message = f"{run.name} was ended by its time limit" if limit else f"{run.name} was stopped"
        return RunState.STOPPED, {"code": "limit_reached" if limit else "stopped", "message": message}
    if ending.get("code") == 0:
        return RunState.SUCCEEDED, None
    told = [v for v in read_objects(run.folder / "events.jsonl") if v.get("kind") == "error"]
    epoch = run.progress.get("epoch")
    where = f" in epoch {epoch}" if epoch else ""
    code = f"signal {ending['signal']}" if ending.get("signal") else f"exit code {ending.get('code')}"
    error = {
        "code": "training_failed",
        "message": f"training failed{where} with {code}",
        "hint": f"the whole log: cloudtrain logs {run.name}",
    }
    if told:
        error["detail"] = str(told[-1].get("message", ""))
        if told[-1].get("hint"):
            error["hint"] = str(told[-1]["hint"])
    return RunState.FAILED, error


def _life_while_launching(run: Run) -> InstanceLife:
    return InstanceLife.LAUNCHING if run.plan.spec.target is Target.EC2 else InstanceLife.NONE


@contextmanager
def _or_failed(run: Run, link: Link) -> Iterator[None]:
    """Nothing has trained yet: when a step fails the machine is given back and the run has failed."""
    try:
        yield
    except CloudtrainError as error:
        _give_back(run, link)
        row = {"code": error.code, "exit": int(error.exit_code), "message": error.message, "hint": error.hint}
        link.move(link.context.store.get(run.name), RunState.FAILED, error=row)
        raise


def _give_back(run: Run, link: Link) -> None:
    try:
        instance = link.instance or link.provider.find(run.name, link.journal)
        if instance is not None:
            released = link.provider.release(instance, link.journal, link.context.emit)
            link.context.store.note(run, life=released.life)
    except CloudtrainError as error:
        link.context.emit(Warned(error.message, hint=error.hint))


def _check_log(run: Run, link: Link, supervisor: Supervisor) -> None:
    """The local log equals the host's: by the sha256 of the exit record. Fetched again from the start if it does not."""
    ending = run.ending or {}
    path = run.folder / "console.log"
    for attempt in range(2):
        if not ending.get("log_sha256") or results.sha256(path) == ending["log_sha256"]:
            return
        if attempt == 0:
            link.context.emit(Noted("the local log differs from the host's and is fetched again"))
            results.fetch(supervisor.read, "console.log", path)
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
def _claim(name: str) -> Iterator[None]:
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
