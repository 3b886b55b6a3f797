"""`cloudtrain export`: a run's results in the forms of other tools. Each is made aside and then put in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.report.facts import Facts

FOLDER = "exports"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what is known of it, for people."""

    path: Path
    detail: str


def export(facts: Facts, to: str, folder: Path | None, which: str, code: Callable[[], Path]) -> Exported:
    """Write the results of a run as `to`: csv, tensorboard, hub, onnx or pt2.

    Args:
        folder: where to; None: `exports/NAME/`, beside the folder of the runs.
        which: best or last: the weights of that epoch.
        code: gives the folder of the training package that the run ran, verified.

    Raises:
        UsageError: the run lacks what is needed, or a package is missing here (code `no_extra`).
        OSError: it cannot be written.
    """
    from cloudtrain.report.exports import curves, hub, network

    if folder is None:
        folder = facts.folder.parent.parent / FOLDER / facts.name
    match to:
        case "csv":
            return curves.table(facts, folder)
        case "tensorboard":
            return curves.tensorboard(facts, folder / "tensorboard")
        case "hub":
            return hub.write(facts, folder / "hub", which, code)
    return network.export(facts, to, folder, which, code)
