"""What a job tells in `events.jsonl` (docs/your-own-job.md, "What it tells"), and what is kept of it in the registry.

A line that is no event is passed over; a known field of a known kind that is not what it should be is left out. So
whoever reads an event finds numbers where numbers belong, whatever the job wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.decode import Count, Moment, Odd, count, fields, integer, json_object, known, number, text, truth
from cloudtrain.core.figures import Figure
from cloudtrain.core.secrets import Place

LOG_FILES = LOG, EVENTS = "console.log", "events.jsonl"
"""What grows in a run's folder while it trains, there and here."""

MOST_LINE = 2**20
"""Bytes of the longest line that can be an event."""

_Readers = Mapping[str, Callable[[Any], Any]]


def _plain(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        raise Odd("not a single value")
    return value


_COUNTS = ("epoch", "epochs", "step", "steps", "parameters", "batch_size", "best_epoch", "best_val_epoch")
_NUMBERS = (
    *("t", "loss", "train_loss", "train_acc", "test_loss", "test_acc", "lr", "rate", "seconds", "done", "total"),
    *("goal_test_acc", "best_test_acc", "best_train_acc", "final_test_acc", "final_val_acc", "best_val_acc"),
)
_FIELDS: _Readers = {
    **dict.fromkeys(_COUNTS, count),
    **dict.fromkeys(_NUMBERS, number),
    **dict.fromkeys(("device", "device_name", "torch", "recipe", "name", "source", "scored_on"), text),
    **dict.fromkeys(("message", "hint", "code"), text),
    **dict.fromkeys(("model", "subset"), _plain),
    **dict.fromkeys(("settings", "sha256", "resumed"), fields),
    "best": truth,
    "seed": integer,
}
_KINDS = ("start", "data", "step", "epoch", "checkpoint", "result", "warning", "error")


def event(line: bytes) -> dict[str, Any]:
    """One line as an event. Of a kind that is not ours the fields are the job's own.

    Raises:
        Odd: it is none.
    """
    values = json_object(line, MOST_LINE)
    kind = text(values.get("kind", ""))
    if kind == "epoch":
        count(values.get("epoch"))
    return figures(values) if kind in _KINDS else values


def events(data: bytes, passed_over: Callable[[], None] | None = None) -> Iterator[dict[str, Any]]:
    """The events in `data`, a line each; `passed_over` is called for each line that is none and not empty."""
    yield from _events(data.split(b"\n"), passed_over)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a local file, one after another; none where there is no such file yet.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with disk.plain(path) as file:
            yield from _events(_lines(file.readline), None)
    except FileNotFoundError:
        return


def _lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Lines without holding one that is too long for an event: it comes in pieces, and none of them is one."""
    while piece := readline(MOST_LINE + 1):
        yield piece


def _events(lines: Any, passed_over: Callable[[], None] | None) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            found = event(line)
        except Odd:
            if passed_over is not None and line.strip():
                passed_over()
            continue
        yield found


def figures(values: Any) -> dict[str, Any]:
    """The fields of an event that are what they should be."""
    return known(values, _FIELDS) if isinstance(values, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is known of a job that trains: its settings, and its last epoch and best one. Accuracies in percent.

    `figure`: of a job that is not the shipped one, the figure that says most of it, as it stands.
    """

    epoch: Count | None = None
    epochs: Count | None = None
    test_acc: float | None = None
    train_acc: float | None = None
    best_test_acc: float | None = None
    best_epoch: Count | None = None
    parameters: Count | None = None
    batch_size: Count | None = None
    device: str | None = None
    figure: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a job ended, as its host says; in the registry all that is not known may be None.

    Attributes:
        state: "exited", or "lost": its supervisor left no record.
        code: exit code; negative: the signal that ended it.
        at: unix seconds.
        log_bytes, log_sha256, events_bytes: of the complete `console.log` and `events.jsonl`.
        events_sha256: None: an earlier supervisor's record.
        stop: why it was told to end ("user", "deadline", ...); None: it ended by itself.
        signal_name: as its system calls `signal`: "SIGKILL"; None: not known.
        oom_kills: how many processes the kernel there ended for lack of memory while it ran; None: not known.
        logout: its host ends what a login has started with that login.
        secrets: where in its log the value of one stands, as far as its host has looked.
    """

    state: str = ""
    code: int | None = None
    signal: int | None = None
    at: Moment | None = None
    log_bytes: Count | None = None
    log_sha256: str | None = None
    events_bytes: Count | None = None
    events_sha256: str | None = None
    stop: str | None = None
    signal_name: str | None = None
    oom_kills: int | None = None
    logout: bool = False
    secrets: tuple[Place, ...] = ()
