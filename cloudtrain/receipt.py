"""`runs/NAME/run.json`: what a run was, fit to be published: no account, user, host name, address or path in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cloudtrain import __version__, disk
from cloudtrain.follow import read_objects
from cloudtrain.store import Run, Store


def write(run: Run, store: Store) -> None:
    """Write or update the run's `run.json`, whole or not at all."""
    data = json.dumps(build(run, store), indent=2, ensure_ascii=False) + "\n"
    disk.write_durably(run.folder / "run.json", data.encode(), mode=0o644)


def build(run: Run, store: Store) -> dict[str, Any]:
    """The receipt of `run` as it stands now.

    Times are ISO 8601 UTC, durations seconds, money USD, accuracies percent.
    """
    spec, notes = run.plan.spec, store.read_journal(run.name)
    host = notes.get("host") or {}
    events = read_objects(run.folder / "events.jsonl")
    told: dict[str, dict[str, Any]] = {"start": {}, "result": {}}
    for values in events:
        if values.get("kind") in told:
            told[values["kind"]] = {k: v for k, v in values.items() if k not in ("v", "t", "kind")}
    ending = run.ending or {}
    return {
        "schema_version": 1,
        "cloudtrain": __version__,
        "name": run.name,
        "status": run.state.value,
        "error": dict(run.error) if run.error else None,
        "created": _iso(run.created_at),
        "ended": _iso(run.ended_at),
        "ended_by": ending.get("stop"),
        "exit": {key: ending.get(key) for key in ("code", "signal")},
        "target": spec.target.value,
        "train": {
            "model": spec.train.model,
            "epochs": spec.train.epochs,
            "batch_size": spec.train.batch_size,
            "seed": spec.train.seed,
            "lr": spec.train.lr,
            "recipe": spec.train.recipe,
            "device": spec.train.device,
        },
        "started": told["start"],
        "result": told["result"],
        "code": {
            "files": run.plan.code.files,
            "bytes": run.plan.code.bytes,
            "git": run.plan.code.git,
            **notes.get("code", {}),
        },
        "host": {key: host.get(key) for key in ("python_version", "torch", "cuda", "driver", "gpus", "cpus", "os")},
        "phases": _phases(store, run.name),
        "log": {"bytes": ending.get("log_bytes"), "sha256": ending.get("log_sha256")},
        "artifacts": notes.get("pulled") or [],
    }


def _phases(store: Store, name: str) -> list[dict[str, Any]]:
    moves = store.moves(name)
    return [{"state": state.value, "seconds": round(after - at, 3)} for (state, at), (_, after) in pairwise(moves)]


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
