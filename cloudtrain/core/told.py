"""What a job tells in `events.jsonl` (docs/your-own-job.md, "What it tells"), and what is kept of it in the registry.

A line that is no event is passed over; a known field of a known kind that is not what it should be is left out. So
whoever reads an event finds numbers where numbers belong, whatever the job wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.decode import Odd, count, each, fields, integer, json_object, known, moment, number, text, truth
from cloudtrain.core.errors import ExitCode

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
    """The fields of an event, or of the registry's `progress`, that are what they should be."""
    return known(values, _FIELDS) if isinstance(values, dict) else {}


_ENDING: _Readers = {
    **dict.fromkeys(("state", "stop", "log_sha256", "events_sha256"), text),
    **dict.fromkeys(("code", "signal"), integer),
    **dict.fromkeys(("log_bytes", "events_bytes"), count),
    "at": moment,
}
_ERROR: _Readers = {
    **dict.fromkeys(("code", "message", "hint", "detail", "consequence", "cause"), text),
    "exit": lambda value: int(_exit_code(value)),
}
_HOST: _Readers = {
    **dict.fromkeys(("python", "python_version", "torch", "cuda", "driver", "os", "home", "boot_id", "logout"), text),
    **dict.fromkeys(("cpus", "disk_free"), count),
    "gpus": each(lambda gpu: known(fields(gpu), {"name": text, "memory_mib": count})),
}


def _exit_code(value: Any) -> ExitCode:
    try:
        return ExitCode(integer(value))
    except ValueError as error:
        raise Odd("not an exit code") from error


def ending(values: Any) -> dict[str, Any]:
    """The registry's copy of a host's exit record, without what is not what it should be."""
    return known(values, _ENDING) if isinstance(values, dict) else {}


def failure(values: Any) -> dict[str, Any]:
    """The registry's `error` of a run, the same; it may hold words of the job."""
    kept = known(values, _ERROR) if isinstance(values, dict) else {}
    return {name: value for name, value in kept.items() if name != "exit" or value is not None}


def host(values: Any) -> dict[str, Any]:
    """What the journal keeps of a host's facts, the same."""
    return known(values, _HOST) if isinstance(values, dict) else {}
