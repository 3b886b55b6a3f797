"""`runs/NAME/run.json`, the receipt: what a run was, fit to be published.

It is there from the run's beginning, is replaced whole at every step, and says enough to check the results (`verify`)
and to train the same again (`rerun`). `config.toml` beside it holds the settings for `cloudtrain run --config`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from cloudtrain.billing import cost
from cloudtrain.core import disk
from cloudtrain.core.events import Emit, Warned
from cloudtrain.core.host import HostFacts
from cloudtrain.core.notes import Attempt, RunNotes, SentCode
from cloudtrain.core.spec import Target
from cloudtrain.core.states import RunState
from cloudtrain.core.text import iso
from cloudtrain.core.told import EVENTS, ExitRecord, read_events
from cloudtrain.core.version import __version__
from cloudtrain.run_folder import outcome, settings_file
from cloudtrain.run_folder.redact import Redaction
from cloudtrain.store import Run, Store

NAME = "run.json"
SCHEMA_VERSION = 1

# Of the job's `start` event. The rest of it is its own business and may hold what is private.
_STARTED = (
    *("model", "parameters", "epochs", "batch_size", "seed", "lr", "recipe", "device", "device_name", "torch"),
    *("steps", "subset", "resumed"),
)
_RESULT = ("parameters", "best_epoch", "best_test_acc", "best_train_acc", "final_test_acc")
_STOPS = {"user": "stopped", "deadline": "limit"}


def write(run: Run, store: Store) -> None:
    """Write the run's receipt and settings, each whole or not at all.

    Raises:
        OSError: its folder cannot be written; what was there is as it was.
    """
    notes, told = store.read_journal(run.name), told_in(run.folder)
    if not notes.id:
        store.write_journal(run.name, RunNotes(id=uuid.uuid4().hex))
        notes = store.read_journal(run.name)
    data = json.dumps(_built(run, store, notes, told), indent=2, ensure_ascii=False) + "\n"
    disk.write_durably(run.folder / NAME, data.encode("utf-8", "backslashreplace"), mode=0o644)
    pulled = {entry.here.casefold() for entry in notes.pulled or ()}
    if settings_file.NAME not in pulled:  # the last release let a result have that name
        settings = settings_file.toml(run, told.get("start") or {})
        disk.write_durably(run.folder / settings_file.NAME, settings.encode(errors="replace"), mode=0o644)


def update(run: Run, store: Store, emit: Emit) -> None:
    """`write` at a step of the story, which a full disk here must not end: it is reported, and a later step writes."""
    try:
        write(run, store)
    except OSError as error:
        emit(Warned(f"the receipt {run.folder / NAME} cannot be written: {error.strerror or error}"))


def build(run: Run, store: Store) -> dict[str, Any]:
    """The receipt of `run` as it stands now (docs/formats.md, "The receipt").

    Times are ISO 8601 UTC, durations seconds, sizes bytes, money USD, accuracies percent.
    """
    return _built(run, store, store.read_journal(run.name), told_in(run.folder))


def _built(run: Run, store: Store, notes: RunNotes, told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    public = Redaction(run, notes)
    start, result = told.get("start") or {}, told.get("result") or {}
    return {
        **_identity(run, notes),
        **_course(run, store),
        **_asked(run, public),
        **_trained(start, result, public),
        "code": _code(run, notes),
        "data": _data(told.get("data") or {}, public),
        "machine": _machine(run, notes, public),
        "environment": _environment(notes, public),
        "aws_requests": [{**asdict(request), "at": iso(request.at)} for request in notes.aws_requests],
        "cost": _cost(run),
        **_files(run, notes),
    }


def _identity(run: Run, notes: RunNotes) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "cloudtrain": __version__,
        "id": notes.id,
        "rerun_of": notes.rerun_of,
        "resumed_from": notes.resumed_from,
        "name": run.name,
    }


def _course(run: Run, store: Store) -> dict[str, Any]:
    """How far it has come, when, and how it ended."""
    return {
        "status": run.state.value,
        "exit_code": int(outcome.exit_code(run)) if run.state.final else None,
        "ended_how": ended_how(run),
        "error": {"code": run.error.code} if run.error else None,
        "created": iso(run.created_at),
        "ended": iso(run.ended_at),
        "phases": _phases(store, run.name),
        "exit": {key: getattr(run.ending, key, None) for key in ("code", "signal", "stop")},
    }


def _asked(run: Run, public: Redaction) -> dict[str, Any]:
    """Where it was to train, and what."""
    spec, command = run.plan.spec, run.plan.spec.job.command
    numbers = ("epochs", "batch_size", "seed", "lr", "recipe", "device")
    figures = {public(name): public(expression) for name, expression in spec.job.figures.items()}
    return {
        "target": spec.target.value,
        "rehearsal": spec.rehearsal,
        "train": {
            "module": None if command else public(spec.job.module),
            "command": public(command) or None,
            "cwd": public(spec.job.cwd) or None,
            **{key: None if command else getattr(spec.train, key) for key in ("model", *numbers)},
            "args": public(spec.train.args),
            "vars": public(spec.job.vars),
            "secrets": list(spec.job.secrets),
            **({"figures": figures} if figures else {}),
        },
    }


def _trained(start: Mapping[str, Any], result: Mapping[str, Any], public: Callable[[Any], Any]) -> dict[str, Any]:
    """What the job said that it trained, and what came of it."""
    return {
        "settings": {
            **{key: public(start[key]) for key in _STARTED if key in start},
            "hyperparameters": public(start.get("settings") or {}),
        },
        "goals": _goals(start, result, public),
        "result": {key: public(result[key]) for key in _RESULT if key in result},
    }


def _code(run: Run, notes: RunNotes) -> dict[str, Any]:
    sent = asdict(notes.code or SentCode())
    return {
        "files": run.plan.code.files,
        "bytes": run.plan.code.bytes,
        **{key: sent[key] for key in ("digest", "archive", "git")},
    }


def _files(run: Run, notes: RunNotes) -> dict[str, Any]:
    """Sizes and hashes of what lies in its folder."""
    ending = run.ending or ExitRecord()
    return {
        "log": {
            "bytes": ending.log_bytes,
            "sha256": ending.log_sha256,
            "secrets": [asdict(place) for place in ending.secrets],
        },
        "events": {
            "bytes": ending.events_bytes,
            "sha256": ending.events_sha256 or (_hash(run.folder / EVENTS) if run.ending else None),
        },
        "attempts": [_attempt(attempt) for attempt in notes.attempts],
        "artifacts": [entry.to_dict() for entry in notes.pulled or ()],
    }


def ended_how(run: Run) -> str | None:
    """`finished`, `failed` (the job), `not_started`, `stopped`, `limit`, `spot` or `lost`; None while it lives."""
    match run.state:
        case RunState.SUCCEEDED:
            return "finished"
        case RunState.FAILED:
            return "failed" if run.ending else "not_started"
        case RunState.STOPPED:
            return _STOPS.get(run.stop, run.stop) if run.stop else "stopped"
        case RunState.INTERRUPTED:
            return "spot"
        case RunState.LOST:
            return "lost"
    return None


def told_in(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The job's last event of each kind that the receipt needs; a file that cannot be read tells nothing."""
    kinds = ("start", "result", "data")
    try:
        return {
            values["kind"]: values
            for values in read_events(folder / EVENTS)
            if values.get("kind") in kinds and (values["kind"] != "data" or "sha256" in values)
        }
    except OSError:
        return {}


def _hash(path: Path) -> str | None:
    try:
        return disk.sha256(path)
    except OSError:
        return None


def _goals(start: Mapping[str, Any], result: Mapping[str, Any], public: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Each goal, and whether it was met: None where the job did not get so far."""
    met = result.get("goals")
    judged = dict(met) if isinstance(met, Mapping) else {}
    named = start.get("goals")
    names = [str(goal) for goal in named] if isinstance(named, list) else []
    return [{"goal": public(goal), "met": judged.get(goal)} for goal in dict.fromkeys([*names, *judged])]


def figures_of(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and verdicts of a receipt, by names a person can read: those that the job's events tell."""
    found = {}
    for part in ("settings", "result"):
        values = receipt.get(part)
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, (int, float)):
                found[str(key) if part == "result" else f"{part}.{key}"] = value
    goals = receipt.get("goals")
    # By their places: what is private in a goal's text is taken out of a receipt.
    for number, goal in enumerate(goals if isinstance(goals, list) else (), start=1):
        if isinstance(goal, Mapping) and isinstance(goal.get("met"), bool):
            found[f"goal {number}"] = goal["met"]
    return found


def figures_in(folder: Path) -> dict[str, Any]:
    """The same, as the events in a run's folder tell them."""
    told = told_in(folder)
    return figures_of(_trained(told.get("start") or {}, told.get("result") or {}, lambda value: value))


def _data(told: Mapping[str, Any], public: Redaction) -> dict[str, Any]:
    hashes = told.get("sha256")
    return {"source": public(told.get("source")), "sha256": public(hashes if isinstance(hashes, Mapping) else {})}


def _machine(run: Run, notes: RunNotes, public: Redaction) -> dict[str, Any]:
    """What it ran on. An EC2 instance's id is in it; address and names of machines are not."""
    facts, details = notes.host or HostFacts(), run.plan.offer.details
    on_ec2 = run.plan.spec.target is Target.EC2
    instance = run.instance if on_ec2 else None
    return {
        "instance_id": instance.id if instance else None,
        "instance_type": instance.type if instance else None,
        "region": details.region if on_ec2 else None,
        "zone": instance.zone if instance else None,
        "market": details.market if on_ec2 else None,
        "image_id": details.image_id if on_ec2 else None,
        "image_name": public(details.image_name) if on_ec2 else None,
        "gpus": [{"name": public(gpu.name), "memory_mib": gpu.memory_mib} for gpu in facts.gpus],
        "driver": public(facts.driver),
        "cuda": public(facts.cuda),
        "torch": public(facts.torch),
        "python": public(facts.python_version or None),
        "cpus": facts.cpus or None,
        "os": public(facts.os or None),
    }


def _environment(notes: RunNotes, public: Redaction) -> dict[str, Any] | None:
    """What was made for its program; null: it had the Python of the machine as that was."""
    made = notes.environment
    if made is None or made.key is None:
        return None
    told = ("source", "version", "torch", "torch_of")
    return {
        **{name: public(getattr(made, name)) for name in told},
        **{name: getattr(made, name) for name in ("packages", "key", "lock_sha256")},
    }


def _attempt(over: Attempt) -> dict[str, Any]:
    """A machine that the run was on before this one; its log and events are `console.N.log` and `events.N.jsonl`."""
    told = {**asdict(over), "ended": iso(over.ended)}
    del told["usd"]
    return told


def _cost(run: Run) -> dict[str, Any]:
    """By the plan's price; a rehearsal's is what the real instance would cost, and nothing was billed for it."""
    estimate = cost.would_cost(run, time.time())
    return {
        "currency": "USD",
        "billed": estimate is not None and not run.plan.spec.rehearsal,
        "price_per_hour": run.instance.price_per_hour if run.instance else run.plan.price_per_hour,
        "price_date": run.plan.offer.details.price_date,
        "estimate": round(estimate, 6) if estimate is not None else None,
    }


def _phases(store: Store, name: str) -> list[dict[str, Any]]:
    moves = store.moves(name)
    return [{"state": state.value, "seconds": round(after - at, 3)} for (state, at), (_, after) in pairwise(moves)]
