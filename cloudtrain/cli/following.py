"""What `run`, `logs`, `pull` and `stop` share: the story with a person watching, who may leave at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import typer

from cloudtrain.billing import expiry, running
from cloudtrain.cli import leaving, signals, standing
from cloudtrain.cli.leaving import ended as ended
from cloudtrain.cli.options import OnInterrupt
from cloudtrain.cli.signals import Leave
from cloudtrain.config import settings as settings_
from cloudtrain.config.settings import Settings
from cloudtrain.console.choose import Look
from cloudtrain.console.choose import reporter as reporter_for
from cloudtrain.console.lines import last_words, nobody_reads
from cloudtrain.console.log_text import LogView, line_start, tail_offset
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core import disk, secrets
from cloudtrain.core.errors import Busy, CloudtrainError, ExitCode, Interrupted
from cloudtrain.core.events import Event, LogLines, Metric, Noted, PhaseChanged, Warned, discard
from cloudtrain.core.notes import Checkpoint, RunNotes
from cloudtrain.core.spec import RunSpec
from cloudtrain.core.states import RunState
from cloudtrain.core.text import past
from cloudtrain.core.told import LOG
from cloudtrain.lifecycle import planning, story, watch
from cloudtrain.lifecycle import pull as lifecycle_pull
from cloudtrain.lifecycle.session import Context
from cloudtrain.provider.base import Provider
from cloudtrain.provider.choose import provider_of
from cloudtrain.run_folder import log_times
from cloudtrain.run_folder.files import files_of_attempts, read_attempts
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run, Store

T = TypeVar("T")

# What a host has by now is waited for so long before that is shown which is here, in seconds.
LOOK_S = 6.0


@contextmanager
def console(
    look: Look, run: str, *, log: bool = False, raw: bool = False, stamped: bool = False, lines: bool = True
) -> Iterator[Reporter]:
    """A reporter for the time of a command (`lines`: see there), which tells how it fails or is interrupted."""
    if log and not look.json:
        reporter: Reporter = LogView(raw=raw, stamped=stamped)
    else:
        reporter = reporter_for(look, run=run, billing=running.now, lines=lines)
    reporter.bell = look.bell
    try:
        yield reporter
    except CloudtrainError as error:
        last_words(partial(_fails, reporter, error))
        raise typer.Exit(int(error.exit_code)) from error
    except (KeyboardInterrupt, Leave) as left:
        raise typer.Exit(last_words(partial(broken_off, run, reporter))) from left
    finally:
        last_words(reporter.close)


def _fails(reporter: Reporter, error: CloudtrainError) -> None:
    reporter.failure(error)
    reporter.ring()


def broken_off(name: str, reporter: Reporter) -> int:
    """A signal has ended a command about the run `name` ("": about none) where it held nothing. The exit code."""
    store = Store()
    if name in store.names():
        return leaving.broken_off(store.get(name), context(store, reporter), reporter)
    reporter.failure(Interrupted("interrupted"))
    return int(ExitCode.INTERRUPTED)


def trusts(reporter: Reporter, question: str) -> bool:
    """Whether the user trusts a host's key, which `question` shows."""
    return reporter.ask(question, default=False, otherwise="--host-key SHA256:... pins the key without asking")


def context(store: Store, reporter: Reporter) -> Context:
    """The story's context for this command."""

    @cache
    def provider(spec: RunSpec) -> Provider:
        # One for plan and run: the clients that made the look-ups make the launch.
        return provider_of(spec, partial(trusts, reporter))

    def heard(event: Event) -> None:
        try:
            reporter.emit(event)
        except OSError as error:
            # What is written to a closed terminal or a full disk must not look like a failure of the run's own. Other
            # threads leave it to the one that shows the run.
            if threading.current_thread() is not threading.main_thread():
                return
            raise Leave(signals.HANGUP) from error

    rate, keeps = settings_.known("trickle_rate", "keep_on_host")
    return Context(store=store, provider=provider, emit=heard, trickle_mib_s=rate, cleans_hosts=not keeps)


def begin(
    spec: RunSpec,
    context: Context,
    reporter: Reporter,
    settings: Settings,
    *,
    origins: Mapping[str, str] | None = None,
    only_plan: bool,
    yes: bool,
    detach: bool,
    notes: RunNotes | None = None,
    checkpoint: tuple[Checkpoint, Path] | None = None,
    on_interrupt: OnInterrupt = OnInterrupt.DETACH,
) -> int:
    """Plan, consent, start, follow. The exit code. For `origins` see `Plan`, for `notes` and `checkpoint`
    `planning.begin`."""
    _know(spec, reporter, asks=not only_plan)
    try:
        plan = replace(planning.plan_run(spec, context), origins=origins or {})
        reporter.plan(plan)
        if only_plan:
            reporter.leave(None, int(ExitCode.DONE))
            return int(ExitCode.DONE)
        most = plan.at_most_usd
        if most is not None and not spec.rehearsal and not yes and most > settings.get("confirm_above"):
            way, unasked = f"add --yes to accept at most ${most:.2f}", "nothing was started"
            if not reporter.ask("Start?", default=True, otherwise=way, consequence=unasked):
                reporter.emit(Noted(unasked))
                return int(ExitCode.INTERRUPTED)
        run = planning.begin(plan, context, notes=notes, checkpoint=checkpoint)
    except (KeyboardInterrupt, Leave) as left:
        if spec.name in context.store.names():
            return leaving.broken_off(context.store.get(spec.name), context, reporter)
        raise Interrupted("interrupted; nothing was started", consequence="nothing of it is billed") from left
    return to_the_end(run, context, reporter, detach=detach, relaunch=True, on_interrupt=on_interrupt)


def _know(spec: RunSpec, reporter: Reporter, *, asks: bool) -> None:
    """The secrets of a run, before anything is looked up or launched for it; those that this shell lacks are asked for.

    Raises:
        UsageError: one is not known (code `secret_missing`).
    """
    for name in secrets.missing(spec.job.secrets) if asks else ():
        secrets.give(
            {name: reporter.line(f"{name} (not in this shell; what you type is not shown):", hidden=True) or ""}
        )
    secrets.values_of(spec.job.secrets, consequence="nothing was started")


def in_a_moment(act: Callable[[], T], within_s: float) -> T:
    """What `act` gives, if it gives it soon.

    Raises:
        CloudtrainError: its own, or that there was no answer.
    """
    given: list[T] = []
    failed: list[Exception] = []

    def acting() -> None:
        try:
            given.append(act())
        except Exception as error:
            failed.append(error)

    # A daemon: a connection that hangs must neither hold the command up nor outlive it.
    thread = threading.Thread(target=acting, name="in a moment", daemon=True)
    thread.start()
    thread.join(within_s)
    if given:
        return given[0]
    raise failed[0] if failed else CloudtrainError(f"no answer within {within_s:.0f} s")


def bring_log(run: Run, context: Context, reporter: Reporter, *, times: bool = False) -> None:
    """The log and the events of a run that trains, up to now, into its folder here; where its host does not answer in
    a moment, that is said, with how old is what is here. `times`: those of the log's lines, too."""
    if run.state is not RunState.RUNNING or expiry.away(run):
        return
    try:
        in_a_moment(partial(lifecycle_pull.bring_log, run, replace(context, emit=discard), times=times), LOOK_S)
    except (CloudtrainError, OSError) as error:
        said = f"the log cannot grow here ({error})"
        if isinstance(error, CloudtrainError):
            said = f"the host of {run.name} did not answer ({error.message})"
        path, now = run.folder / LOG, time.time()
        what = "none of its log is here yet"
        if disk.is_plain(path):
            what = f"this is what was here at {past(path.stat().st_mtime, now)}"
        reporter.emit(Warned(f"{said}; {what}"))


def show_log(run: Run, reporter: Reporter, *, last: int | None, since: float | None = None) -> None:
    """Show what is here of a run's log: that of its last machine, and those before where all of it is wanted.

    Args:
        since: unix seconds; what was written before is left out, as far as its time is known.
    """
    *earlier, path = files_of_attempts(run.folder, LOG)
    known = run.ending.secrets if run.ending else ()
    times = log_times.LogTimes.read(run.folder / log_times.NAME)
    offset = 0
    for shelved in earlier if last is None and since is None else ():
        with disk.plain(shelved) as file:
            data = file.read()
        reporter.emit(LogLines(data, offset))
        offset += len(data)
    if isinstance(reporter, LogView):
        reporter.show_file(path, last=last, since=since, times=times, secrets=known)
    elif disk.is_plain(path):
        offset = tail_offset(path, last) if last is not None else 0
        if since is not None:
            offset = max(offset, line_start(path, times.size_before(since)))
        with disk.plain(path) as file:
            file.seek(offset)
            reporter.emit(LogLines(secrets.blanked(file.read(), offset, known), offset))


def show_epochs(run: Run, reporter: Reporter, *, last: int | None) -> None:
    """Show the epochs of a run that are known here."""
    done = {values.get("epoch"): values for values in read_attempts(run.folder) if values.get("kind") == "epoch"}
    for values in list(done.values())[-last if last else 0 :] if last != 0 else []:
        reporter.emit(Metric("epoch", values))


def to_the_end(
    run: Run,
    context: Context,
    reporter: Reporter,
    *,
    detach: bool = False,
    join: bool = False,
    relaunch: bool = False,
    on_interrupt: OnInterrupt = OnInterrupt.DETACH,
    only_shows: bool = False,
) -> int:
    """Resume `run` and show how it ends; what a person does meanwhile is asked for. The exit code.

    With `join`, a run that another command is acting on is watched beside it, reading only. With `relaunch`, one whose
    spot instance is taken back goes on, on another: only the command that was agreed to does that. With `only_shows`,
    Ctrl-C leaves without a question; else `on_interrupt` says what it does where nobody can be asked, as SIGTERM does.
    """
    if only_shows:
        reporter.keys = "Ctrl-C to leave; it goes on"
    reporter.about(run, lambda: context.store.get(run.name))
    for event in watch.set_up(run, context.store) if join else ():
        context.emit(event)
    while True:
        if run.state is RunState.RUNNING:
            context.emit(PhaseChanged(run.name, run.state))
        try:
            result = _resumed(run, context, detach=detach, join=join, relaunch=relaunch)
            if detach and not result.state.final:
                reporter.emit(Noted(f"{run.name} is training. To return: cloudtrain logs {run.name}"))
                reporter.leave(result, int(ExitCode.DONE))
                return int(ExitCode.DONE)
            last_words(partial(ended, result, context.store, reporter))
            return int(result.exit_code)
        except KeyboardInterrupt:
            now = context.store.get(run.name)
            if only_shows:
                return last_words(partial(leaving.left, now, context, reporter))
            code = last_words(partial(leaving.interrupted, now, context, reporter, on_interrupt))
            if code is not None:
                return code
            run = now
        except Leave as asked:
            unread = isinstance(asked.__cause__, BrokenPipeError) and only_shows
            if isinstance(asked.__cause__, OSError) and (unread or not nobody_reads()):
                raise asked.__cause__ from None  # `| head`, or a disk that is full
            now = context.store.get(run.name)
            if asked.asked and on_interrupt is OnInterrupt.STOP:
                return last_words(partial(leaving.stopped, now, context, reporter))
            return last_words(partial(leaving.detached, now, context, reporter))


def _resumed(run: Run, context: Context, *, detach: bool, join: bool, relaunch: bool) -> Result:
    """The story to its end, or beside the command that has it (`join`)."""
    try:
        with standing.told(run.name, context.store):
            return story.resume(run, context, detach=detach, relaunch=relaunch)
    except Busy:
        if not join:
            raise
        with standing.told(run.name, context.store):
            return watch.watch(run, context)
