"""What flows from the story to the console. Values only: nothing here prints, and nothing below the CLI does either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudtrain.core.figures import Row
from cloudtrain.core.states import RunState


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The run entered `state`."""

    run: str
    state: RunState


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of the story began: `title` is one or two words ("sync"), `limit_s` its deadline in seconds."""

    title: str
    detail: str = ""
    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far the current step is; `done` and `total` in `unit` ("B", "files", "s"), `total` None where unknown."""

    title: str
    detail: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class StepDone:
    """The step ended well after `seconds`."""

    title: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LogLines:
    """Raw console bytes of the host from `offset` on, already on disk here."""

    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the job's `events.jsonl` (docs/your-own-job.md, "What it tells")."""

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FiguresTold:
    """Figures of a job that is not the shipped one, wherever they come from; what an event tells is a `Metric`, too."""

    row: Row


@dataclass(frozen=True, slots=True)
class GpuUse:
    """How busy the host's GPUs were in the last seconds: mean percent, and MiB in use and in all of them together."""

    percent: float
    used_mib: int | None
    total_mib: int | None


@dataclass(frozen=True, slots=True)
class Noted:
    """A fact worth a line ("reconnected, 1 epoch caught up")."""

    message: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should act on or know about; `hint` is the next command."""

    message: str
    hint: str | None = None


Event = PhaseChanged | StepStarted | StepProgress | StepDone | LogLines | Metric | FiguresTold | GpuUse | Noted | Warned

Emit = Callable[[Event], None]
"""How library code reports: it is handed a function and never asks what becomes of the event."""


def discard(event: Event) -> None:
    """An `Emit` that drops everything."""
