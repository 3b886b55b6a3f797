"""How a command parts with its run: at the run's end, at Ctrl-C, by a closed terminal, or in the middle of a stop."""

from __future__ import annotations

import sys
import time

from cloudtrain import report
from cloudtrain.billing import expiry
from cloudtrain.billing.cost import cost
from cloudtrain.cli import standing
from cloudtrain.cli.options import OnInterrupt
from cloudtrain.cli.signals import Leave
from cloudtrain.console.lines import tell
from cloudtrain.console.pages.summary import ends_by
from cloudtrain.console.reporters.base import Reporter, may_ask
from cloudtrain.core.errors import ExitCode
from cloudtrain.core.events import Noted, Warned
from cloudtrain.lifecycle import stop as lifecycle_stop
from cloudtrain.lifecycle import suited
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run, Store


def ended(result: Result, store: Store, reporter: Reporter) -> None:
    """Show how a run stands; one that is over gets its report first."""
    write_report(result, store, reporter)
    reporter.result(result)
    reporter.ring()


def write_report(result: Result, store: Store, reporter: Reporter) -> None:
    """Put the report into the folder of a run that is over."""
    if not (result.state.final and result.folder.is_dir()):
        return

    try:
        report.write(store.get(result.run), store)
    except Exception as error:
        # A page about results must never stand between a person and the results.
        why = str(error) or type(error).__name__
        reporter.emit(Warned(f"the report could not be written: {why}", hint=f"cloudtrain report {result.run}"))


def interrupted(
    run: Run, context: Context, reporter: Reporter, on_interrupt: OnInterrupt = OnInterrupt.DETACH
) -> int | None:
    """Ctrl-C: the exit code, or None to go on watching. `on_interrupt` counts where nobody can be asked."""
    reporter.close()
    if run.state.final:
        reporter.leave(context.result(run), int(ExitCode.INTERRUPTED))
        return int(ExitCode.INTERRUPTED)
    if not (reporter.asks and may_ask()):
        return stopped(run, context, reporter) if on_interrupt is OnInterrupt.STOP else detached(run, context, reporter)
    try:
        if not run.state.trains:
            again = context.store.read_journal(run.name).attempt > 1
            so_far = "What it has trained so far is here." if again else "Nothing has trained yet."
            machine = f"Terminate {run.instance.id}?" if run.instance and run.instance.owned else "End this run?"
            if reporter.ask(f"{so_far} {machine}", default=True):
                with standing.told(run.name, context.store):
                    lifecycle_stop.stop(run, context)
                reporter.emit(Noted("ended; nothing is running"))
                return int(ExitCode.INTERRUPTED)
            return None
        stop = "[s]top and terminate" if run.instance and run.instance.owned else "[s]top"
        tell(f"Watching stopped; {run.name} is still training{_stands(run)}. Ctrl-C again detaches.")
        tell(f"[d]etach (default)   {stop}   [c]ontinue watching: ", end="")
        answer = sys.stdin.readline().strip().lower()[:1]
    except (KeyboardInterrupt, Leave):
        return detached(context.store.get(run.name), context, reporter)
    if answer == "c":
        return None
    if answer == "s":
        return stopped(run, context, reporter)
    return detached(run, context, reporter)


def stopped(run: Run, context: Context, reporter: Reporter, *, keep_s: float = 0.0, pull: bool = True) -> int:
    """Stop `run`, and show how it ended. Whoever interrupts that leaves at once, and is told what that leaves behind.

    Args:
        keep_s, pull: see `stop` and `discard` of `lifecycle/stop.py`.

    Returns:
        The exit code: that of the run, or 8 where the stop was cut short.
    """
    if not run.state.final:
        reporter.emit(Noted(f"stopping {run.name}; Ctrl-C leaves at once: {_cut_short(run)}"))
    try:
        with standing.told(run.name, context.store):
            result = lifecycle_stop.stop(run, context, keep_s=keep_s) if pull else lifecycle_stop.discard(run, context)
    except (KeyboardInterrupt, Leave):
        now = context.store.get(run.name)
        if not now.state.final:
            reporter.emit(
                Noted(f"left in the middle of the stop. {_cut_short(now)}; cloudtrain stop {run.name} ends it")
            )
        code = ExitCode.INTERRUPTED if now.state.final else ExitCode.STILL_RUNNING
        reporter.leave(context.result(now), int(code))
        return int(code)
    ended(result, context.store, reporter)
    return int(result.exit_code if reporter.own_exit is None else reporter.own_exit)


def left(run: Run, context: Context, reporter: Reporter) -> int:
    """A command that only showed a run is left by Ctrl-C: nothing becomes of the run. The exit code."""
    reporter.close()
    if not run.state.final:
        reporter.emit(Noted(f"left; {run.name} goes on.{_limit(run)} To end it: cloudtrain stop {run.name}"))
    reporter.leave(context.result(run), int(ExitCode.INTERRUPTED))
    return int(ExitCode.INTERRUPTED)


def detached(run: Run, context: Context, reporter: Reporter) -> int:
    """The command leaves, and the run goes on: what becomes of it by itself, and the way back. The exit code."""
    if run.state.trains and suited.ends_at_logout(context.store.read_journal(run.name)):
        reporter.emit(Warned(f"detached; the host of {run.name} ends it with this connection", hint=suited.LINGER))
    elif run.state.trains:
        reporter.emit(Noted(f"detached; {run.name} goes on.{_limit(run)} To return: cloudtrain logs {run.name}"))
    else:
        told = f"left while {run.name} was being set up.{_limit(run)}"
        reporter.emit(Noted(f"{told} To go on: cloudtrain logs {run.name}   To end it: cloudtrain stop {run.name}"))
    reporter.leave(context.result(run), int(ExitCode.STILL_RUNNING))
    return int(ExitCode.STILL_RUNNING)


def _limit(run: Run) -> str:
    ends = ends_by(run.plan, run.created_at, expiry.expires_at(run))
    return f" It ends itself by {ends}." if ends else ""


def _cut_short(run: Run) -> str:
    """What a stop that is cut short leaves behind, for people."""
    machine = standing.machine_up(run, time.time())
    if machine is not None:
        return f"what is not pulled yet stays there, {machine}"
    return "what is not pulled yet stays where it is"


def _stands(run: Run) -> str:
    """How far a run is and what an hour of it costs, in brackets."""
    epoch, epochs = run.progress.epoch, run.progress.epochs
    told = [f"epoch {epoch}/{epochs}"] if epoch and epochs else []
    if cost(run, time.time()) is not None and run.instance and run.instance.price_per_hour:
        told.append(f"${run.instance.price_per_hour:.3f} an hour")
    return f" ({', '.join(told)})" if told else ""
