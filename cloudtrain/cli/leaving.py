"""How a command parts with its run: at the run's end, at Ctrl-C, by a closed terminal, or in the middle of a stop."""

from __future__ import annotations

from cloudtrain import report
from cloudtrain.billing import expiry
from cloudtrain.billing.cost import hourly
from cloudtrain.cli import standing
from cloudtrain.cli.options import OnInterrupt
from cloudtrain.cli.signals import Leave
from cloudtrain.console.lines import tell
from cloudtrain.console.pages.summary import ends_by
from cloudtrain.console.reporters.base import Reporter, answered
from cloudtrain.core.errors import ExitCode
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.states import RunState
from cloudtrain.core.text import an_hour
from cloudtrain.lifecycle import stop as lifecycle_stop
from cloudtrain.lifecycle import suited
from cloudtrain.lifecycle.fetch_results import BEYOND
from cloudtrain.lifecycle.session import Context
from cloudtrain.run_folder import code_copy
from cloudtrain.run_folder.outcome import Result, lives
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
        return broken_off(run, context, reporter)
    if not reporter.may_ask():
        return stopped(run, context, reporter) if on_interrupt is OnInterrupt.STOP else detached(run, context, reporter)
    try:
        if not run.state.trains:
            return _in_set_up(run, context, reporter)
        stop = "[s]top and terminate   " if run.instance and run.instance.owned else "[s]top   "
        goes_on = f"{run.name} is still training{_stands(run)}"
        if not _plainly_trains(run, context):
            stop, goes_on = ("" if run.state is RunState.PULLING else stop), stands(run, context)
        tell(f"Watching stopped; {goes_on}. Ctrl-C again detaches.")
        tell(f"[d]etach (default)   {stop}[c]ontinue watching: ", end="")
        answer = answered().strip().lower()[:1]
    except (KeyboardInterrupt, Leave):
        return detached(context.store.get(run.name), context, reporter)
    run = context.store.get(run.name)  # another command may have gone on with it meanwhile
    if answer == "c":
        return None
    if answer == "s" and stop:
        return stopped(run, context, reporter)
    return detached(run, context, reporter)


def _in_set_up(run: Run, context: Context, reporter: Reporter) -> int | None:
    """The same before training has begun."""
    notes = context.store.read_journal(run.name)
    so_far = "What it has trained so far is here." if notes.attempt > 1 else "Nothing has trained yet."
    question = f"Terminate {run.instance.id}?" if run.instance and run.instance.owned else "End this run?"
    if run.state is RunState.PROVISIONING or _may_train(run, notes):
        so_far, question = f"{stands(run, context)}.", "End this run?"
    way = f"cloudtrain stop {run.name}"
    if not reporter.ask(f"{so_far} {question}", default=True, otherwise=way, consequence=stands(run, context)):
        return None
    with standing.told(run.name, context.store):
        result = lifecycle_stop.stop(run, context)
    if result.artifacts or context.store.get(run.name).life.may_exist:
        ended(result, context.store, reporter)  # it trained by then, or its machine has not gone
    else:
        reporter.emit(Noted("ended; nothing is running"))
    return int(ExitCode.INTERRUPTED)


def stopped(run: Run, context: Context, reporter: Reporter, *, keep_s: float = 0.0, pull: bool = True) -> int:
    """Stop `run`, and show how it ended. Whoever interrupts that leaves at once, and is told what that leaves behind.

    Args:
        keep_s, pull: see `stop` and `discard` of `lifecycle/stop.py`.

    Returns:
        The exit code: that of the run, or 8 where the stop was cut short.
    """
    if not run.state.final:
        reporter.emit(Noted(f"stopping {run.name}; Ctrl-C leaves at once: {_cut_short(run, context)}"))
    try:
        with standing.told(run.name, context.store):
            result = lifecycle_stop.stop(run, context, keep_s=keep_s) if pull else lifecycle_stop.discard(run, context)
    except (KeyboardInterrupt, Leave):
        now = context.store.get(run.name)
        if not lives(now):
            return broken_off(now, context, reporter)
        told = f"left in the middle of the stop. {stands(now, context)}; cloudtrain stop {run.name} ends it"
        reporter.emit(Noted(told))
        reporter.leave(context.result(now), int(ExitCode.STILL_RUNNING))
        return int(ExitCode.STILL_RUNNING)
    ended(result, context.store, reporter)
    return int(result.exit_code if reporter.own_exit is None else reporter.own_exit)


def left(run: Run, context: Context, reporter: Reporter) -> int:
    """A command that only showed a run is left by Ctrl-C: nothing becomes of the run. The exit code."""
    reporter.close()
    if _plainly_trains(run, context):
        reporter.emit(Noted(f"left; {run.name} goes on.{_limit(run)} To end it: cloudtrain stop {run.name}"))
    else:
        reporter.emit(Noted(f"left; {stands(run, context)}. {_way_on(run, context)}"))
    reporter.leave(context.result(run), int(ExitCode.INTERRUPTED))
    return int(ExitCode.INTERRUPTED)


def detached(run: Run, context: Context, reporter: Reporter) -> int:
    """The command leaves, and the run goes on: what becomes of it by itself, and the way back. The exit code."""
    if not _plainly_trains(run, context):
        return broken_off(run, context, reporter, "left")
    if suited.ends_at_logout(context.store.read_journal(run.name)):
        reporter.emit(Warned(f"detached; the host of {run.name} ends it with this connection", hint=suited.LINGER))
    else:
        reporter.emit(Noted(f"detached; {run.name} goes on.{_limit(run)} To return: cloudtrain logs {run.name}"))
    reporter.leave(context.result(run), int(ExitCode.STILL_RUNNING))
    return int(ExitCode.STILL_RUNNING)


def broken_off(run: Run, context: Context, reporter: Reporter, how: str = "interrupted") -> int:
    """A command about `run` ends where a signal found it: how things stand, and the next command. The exit code."""
    reporter.close()
    reporter.emit(Noted(f"{how}; {stands(run, context)}. {_way_on(run, context)}"))
    code = int(ExitCode.STILL_RUNNING if lives(run) else ExitCode.INTERRUPTED)
    reporter.leave(context.result(run), code)
    return code


def stands(run: Run, context: Context) -> str:
    """What is so now of `run` and of its machine, as far as this computer knows, in words."""
    notes = context.store.read_journal(run.name)
    return "; ".join(filter(None, [_training(run, notes), standing.machine(run, context.store, context.clock())]))


def _training(run: Run, notes: RunNotes) -> str:
    if run.state.final:
        here = " and its results are here" if notes.pulled is not None else ""
        return f"{run.name} has ended ({run.state.value}){here}"
    if run.state is RunState.PULLING:
        here = "its results are here" if notes.pulled is not None else "not all of its results are here"
        return f"{run.name} trains no more, and {here}"
    if run.state is RunState.RUNNING:
        return f"{run.name} was asked to end" if notes.stop_wanted else f"{run.name} goes on"
    if _may_train(run, notes):
        return f"{run.name} may train already"
    return f"what {run.name} has trained is here" if notes.attempt > 1 else f"nothing of {run.name} has trained yet"


def _may_train(run: Run, notes: RunNotes) -> bool:
    """Whether its job may have been started without a note of that."""
    return run.state is RunState.SYNCING and run.instance is not None and code_copy.kept(notes, run.instance.id)


def _way_on(run: Run, context: Context) -> str:
    """What to type next."""
    if run.state.final:
        return f"cloudtrain stop {run.name} ends its machine" if lives(run) else f"cloudtrain show {run.name}"
    if run.state is RunState.PULLING:
        if context.store.read_journal(run.name).pulled is None:
            more = " --all" if run.error is not None and run.error.code == BEYOND else ""
            return f"cloudtrain pull {run.name}{more} fetches the rest"
        return f"cloudtrain stop {run.name} finishes it"
    to_go_on = "To return" if run.state.trains else "To go on"
    return f"{to_go_on}: cloudtrain logs {run.name}   To end it: cloudtrain stop {run.name}"


def _plainly_trains(run: Run, context: Context) -> bool:
    """Whether nothing else is known than that it trains, on a machine that has time left."""
    late = expiry.overdue_s(run, context.clock()) is not None
    asked = context.store.read_journal(run.name).stop_wanted
    return run.state is RunState.RUNNING and not (late or asked or expiry.away(run))


def _limit(run: Run) -> str:
    ends = ends_by(run.plan, run.created_at, expiry.expires_at(run))
    return f" It ends itself by {ends}." if ends else ""


def _cut_short(run: Run, context: Context) -> str:
    """What a stop that is cut short leaves behind, in words."""
    machine = standing.machine(run, context.store, context.clock())
    return f"what is not pulled yet stays there, {machine}" if machine else "what is not pulled yet stays where it is"


def _stands(run: Run) -> str:
    """How far a run is and what an hour of it costs, in brackets."""
    epoch, epochs = run.progress.epoch, run.progress.epochs
    told = filter(None, (f"epoch {epoch}/{epochs}" if epoch and epochs else "", an_hour(hourly(run))))
    return f" ({stands})" if (stands := ", ".join(told)) else ""
