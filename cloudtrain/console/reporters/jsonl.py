"""JSON on stdout and nothing else there: for scripts. docs/json.md explains it, docs/schema/ has its schemas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cloudtrain.console.answer import Answer
from cloudtrain.console.lines import now, write_json, write_result
from cloudtrain.console.pages import failure
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core import credentials, events
from cloudtrain.core.errors import GONE, RECLAIMED, Busy, CloudtrainError, ExitCode, Interrupted
from cloudtrain.core.figures import EVENTS
from cloudtrain.core.plan import Plan
from cloudtrain.core.terminal import LogText
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Run

# Errors that have just seen what the registry does not know yet: how it stands with the run's machine.
_OVER = {"running": False, "parked": False, "ends_by": None}
_ENDED: dict[str, Mapping[str, Any]] = {"parked": {**_OVER, "parked": True}, GONE: _OVER, RECLAIMED: _OVER}


class JsonReporter(Reporter):
    """Every line: `ts` (ISO 8601 UTC), `type`, `run`, and what the type brings. Exactly one `result`, last.

    Args:
        run: name of the run that the command is about, where it is known.
        billing: says of a run by its name, or of all runs here (""), whether money is being spent.
        aside: where events go of a command that writes one object and nothing else; None: each is a line.
    """

    asks = False

    def __init__(
        self, run: str = "", billing: Callable[[str], Mapping[str, Any]] | None = None, aside: Reporter | None = None
    ) -> None:
        self._run = run
        self._billing = billing
        self._aside = aside
        self._log = LogText()

    def emit(self, event: events.Event) -> None:
        """Write one event."""
        if self._aside is not None:
            self._aside.emit(event)
            return
        match event:
            case events.StepStarted(title, detail, limit_s):
                self._write("step", step=title, status="started", detail=detail, limit_s=limit_s)
            case events.StepDone(title, detail, taken):
                self._write("step", step=title, status="done", detail=detail, seconds=round(taken, 3))
            case events.StepProgress(title, detail, done, total, unit):
                self._write("step", step=title, status="running", detail=detail, done=done, total=total, unit=unit)
            case events.PhaseChanged(_, state):
                self._write("state", state=state.value)
            case events.Metric(kind, values):
                told = {k: v for k, v in values.items() if k not in ("v", "t", "kind", "type", "ts", "run")}
                self._write(
                    "epoch" if kind == "epoch" else "metric", **({} if kind == "epoch" else {"kind": kind}), **told
                )
            case events.FiguresTold(row) if row.origin != EVENTS:
                place = {"epoch": row.epoch, "step": row.step}
                self._write("figures", origin=row.origin, **place, values=dict(row.values))
            case events.GpuUse(percent, used_mib, total_mib):
                self._write("gpu", busy_percent=round(percent, 1), used_mib=used_mib, total_mib=total_mib)
            case events.LogLines(data):
                for line in self._log.feed(data):
                    self._write("log", line=line)
            case events.Noted(message):
                self._write("note", message=message)
            case events.Warned(message, hint):
                self._write("warning", message=message, hint=hint)

    def about(self, run: Run, again: Callable[[], Run]) -> None:
        """Every line from now on is of this run."""
        self._run = run.name

    def plan(self, plan: Plan) -> None:
        """Write the plan."""
        self._run = plan.spec.name
        # Logs are passed on: who signed in, of a root user the account's number, stays here.
        told = plan.to_dict()
        told["offer"]["details"].pop("owner", None)
        train, job = told["spec"]["train"], told["spec"]["job"]
        train["args"], job["vars"] = credentials.typed(train["args"]), credentials.variables(job["vars"])
        job |= {name: credentials.typed(job[name]) for name in ("command", "packages", "resume_args")}
        self._write("plan", plan=told)

    def result(self, result: Result) -> None:
        """Write the one `result`."""
        self._ended(result, int(result.exit_code if self.own_exit is None else self.own_exit))

    def leave(self, result: Result | None, exit_code: int) -> None:
        """Write the one `result`, of a command that leaves its run as it is, or that had none to begin."""
        if result is not None:
            self._ended(result, exit_code)
        else:
            self._result(exit_code, error=_why(self._run, exit_code))

    def failure(self, error: CloudtrainError) -> None:
        """Write the one `result`, of a command that failed."""
        self._result(int(error.exit_code), error=failure.record(error), known=_ENDED.get(error.code))

    def answer(self, found: Answer) -> int:
        """Write the one `result`, of what a command has found."""
        error = failure.record(found.error) if found.error else None
        write_result(found.run, found.exit_code, **{"error": error, **found.record()})
        return found.exit_code

    def show(self, *lines: str) -> None:
        """See `Reporter.show`."""

    def remark(self, event: events.Event) -> None:
        """See `Reporter.remark`."""

    def one_of(self, result: Result) -> None:
        """See `Reporter.one_of`."""

    def _ended(self, result: Result, exit_code: int) -> None:
        self._run = result.run
        kept = failure.kept(result.folder, result.life, files=len(result.artifacts), usd=result.cost_usd)
        error = failure.of_run(result.error, int(result.exit_code), result.run, kept)
        self._result(
            exit_code,
            state=result.state.value,
            cost=_usd(result.cost_usd),
            rehearsed_cost=_usd(result.rehearsed_usd),
            seconds=round(result.seconds, 3),
            folder=str(result.folder),
            metrics=dict(result.metrics),
            artifacts=[entry.to_dict() for entry in result.artifacts],
            error=error or _why(result.run, exit_code),
            leftovers=list(result.leftovers),
        )

    def _result(self, exit_code: int, *, known: Mapping[str, Any] | None = None, **values: Any) -> None:
        for line in self._log.feed(b"", final=True):
            self._write("log", line=line)
        billing = {} if self._billing is None else {"billing": {**self._billing(self._run), **(known or {})}}
        write_result(self._run, exit_code, **values, **billing)

    def _write(self, kind: str, /, **values: Any) -> None:
        write_json({"ts": now(), "type": kind, "run": self._run or None, **values})


def _why(run: str, exit_code: int) -> dict[str, Any] | None:
    """The error of a command that leaves although nothing has failed."""
    if exit_code == ExitCode.STILL_RUNNING:
        return failure.record(Busy(f"{run} has not ended yet", code="still_running"))
    return failure.record(Interrupted("interrupted")) if exit_code == ExitCode.INTERRUPTED else None


def _usd(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 6)
