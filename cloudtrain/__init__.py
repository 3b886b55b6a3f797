"""Train on an EC2 GPU from your laptop: launch, stream the log, pull verified results, end the instance."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtrain.report.notebook import LoadedRun

from cloudtrain.core.version import __version__ as __version__


def load(run: str | Path | None = None) -> LoadedRun:
    """A run's figures and weights, for notebooks: `cloudtrain.load("brave-otter").metrics`.

    Args:
        run: a name, the beginning of one, its folder or a `run.json`; None: the latest run.

    Raises:
        UsageError: there is no such run, or its receipt cannot be understood.
    """
    # Here alone, so that `import cloudtrain` stays quick.
    from cloudtrain.report.notebook import load as load_

    return load_(run)


def log(step: int | None = None, /, **figures: Any) -> None:
    """Tell figures of a training to whoever follows it: `cloudtrain.log(step, val_loss=loss)`, or by `epoch=`.

    Where no cloudtrain follows it does nothing, and it never ends a training: what is no number is left out, and so is
    a line that cannot be written.
    """
    path = os.environ.get("CLOUDTRAIN_EVENTS")
    if not path:
        return
    event: dict[str, Any] = {}
    for name, value in {"step": step, **figures}.items():
        with suppress(TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several
            event[name] = value if isinstance(value, int) else float(value)
    event |= {"v": 1, "t": time.time(), "kind": "figures"}
    with suppress(OSError), open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - of the training, not ours
        file.write(json.dumps(event) + "\n")
