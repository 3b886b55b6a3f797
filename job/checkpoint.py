"""Everything a run needs to go on as if it had not stopped, in one file that is whole or not there."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from job.errors import JobError
from job.files import write_whole

VERSION = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, texts, lists and dicts of them) to `path` by way of a file aside.

    Raises:
        OSError: it cannot be written; an older checkpoint at `path` is as it was.
    """
    buffer = io.BytesIO()
    torch.save({"v": VERSION, **state}, buffer)
    write_whole(path, buffer.getvalue())


def load(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The state at `path`, with its tensors on the CPU. Runs no code from the file.

    Raises:
        JobError: unreadable or damaged (`checkpoint_unreadable`), or of a run with other settings than `identity`
            (`checkpoint_mismatch`).
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["v"] != VERSION:
            raise KeyError("v")
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged"
        raise JobError(
            "checkpoint_unreadable",
            f"cannot resume from {path}: {reason}",
            "name another checkpoint with --resume, or leave it out to start anew",
        ) from None
    was = state["identity"]
    if was != identity:
        changed = [f"{key} {was.get(key)} then, {now} now" for key, now in identity.items() if was.get(key) != now]
        raise JobError(
            "checkpoint_mismatch",
            f"cannot resume from {path}: it is of another run ({'; '.join(changed)})",
            "use the settings of the run it came from, or leave --resume out to start anew",
        )
    return state


def random_state() -> dict[str, Any]:
    """Where torch's default random streams stand, on the CPU and on each accelerator in use."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the random streams back; those of a device that is not here are passed over."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
