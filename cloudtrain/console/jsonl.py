"""JSON lines on stdout and nothing else there: for scripts. `docs/structure.md` names the types."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from cloudtrain.console import failure
from cloudtrain.console.base import Reporter
from cloudtrain.console.text import LogText
from cloudtrain.errors import CloudtrainError, ConfirmationNeeded
from cloudtrain.events import (
    Event,
    LogLines,
    Metric,
    Noted,
    PhaseChanged,
    StepDone,
    StepProgress,
    StepStarted,
    Warned,
)
from cloudtrain.outcome import Result
from cloudtrain.plan import Plan
from cloudtrain.states import InstanceLife

SCHEMA_VERSION = 1


class JsonReporter(Reporter):
    """Every line: `ts` (ISO 8601 UTC), `type`, `run`, and what the type brings. Exactly one `result`, last."""

    def __init__(self, run: str = "") -> None:
        self._run = run
        self._log = LogText()

    def emit(self, event: Event) -> None:
        """Write one event."""
        match event:
            case StepStarted(title, detail, limit_s):
                self._write("step", step=title, status="started", detail=detail, limit_s=limit_s)
            case StepDone(title, detail, taken):
                self._write("step", step=title, status="done", detail=detail, seconds=round(taken, 3))
            case StepProgress(title, detail, done, total, unit):
                self._write("step", step=title, status="running", detail=detail, done=done, total=total, unit=unit)
            case PhaseChanged(_, state):
                self._write("state", state=state.value)
            case Metric(kind, values):
                told = {k: v for k, v in values.items() if k not in ("v", "t", "kind", "type", "ts", "run")}
                self._write(
                    "epoch" if kind == "epoch" else "metric", **({} if kind == "epoch" else {"kind": kind}), **told
                )
            case LogLines(data):
                for line in self._log.feed(data):
                    self._write("log", line=line)
            case Noted(message):
                self._write("note", message=message)
            case Warned(message, hint):
                self._write("warning", message=message, hint=hint)

    def plan(self, plan: Plan) -> None:
        """Write the plan."""
        self._run = plan.spec.name
        self._write("plan", plan=plan.to_dict())

    def result(self, result: Result) -> None:
        """Write the one `result`."""
        self._run = result.run
        self._write(
            "result",
            schema_version=SCHEMA_VERSION,
            ok=int(result.exit_code) == 0,
            exit=int(result.exit_code),
            state=result.state.value,
            cost=result.cost_usd,
            seconds=round(result.seconds, 3),
            folder=str(result.folder),
            metrics=dict(result.metrics),
            artifacts=[{"name": e.name, "size": e.size, "sha256": e.sha256} for e in result.artifacts],
            error=dict(result.error) if result.error else None,
            billing={"running": result.life in (InstanceLife.LAUNCHING, InstanceLife.RUNNING)},
            leftovers=list(result.leftovers),
        )

    def failure(self, error: CloudtrainError) -> None:
        """Write the one `result`, of a command that failed."""
        self._write(
            "result",
            schema_version=SCHEMA_VERSION,
            ok=False,
            exit=int(error.exit_code),
            error=failure.record(error),
            billing=failure.billing(error),
        )

    def ask(self, question: str, *, default: bool, otherwise: str = "add --yes") -> bool:
        """Programs are never asked."""

        raise ConfirmationNeeded(
            "cannot ask for confirmation with --json", hint=otherwise, consequence="nothing was started"
        )

    def _write(self, kind: str, /, **values: Any) -> None:
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        write_json({"ts": now, "type": kind, "run": self._run, **values})


def write_json(value: Any) -> None:
    """One JSON value, one line, on stdout. Non-ASCII is escaped: every encoding can carry it."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
