"""`cloudtrain export`: the epochs of a run as CSV and as TensorBoard's event files."""

from __future__ import annotations

import csv
import importlib.util
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import counted
from cloudtrain.report.facts import Facts

FOLDER = "exports"
COLUMNS = ("step", "timestamp", "epoch", "train_loss", "train_acc", "test_loss", "test_acc", "lr", "seconds")
# Names in TensorBoard: what is before the slash groups the charts.
TAGS = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "accuracy/train": "train_acc",
    "accuracy/test": "test_acc",
    "learning rate": "lr",
}
_EVENTS = "events.out.tfevents."
# Module -> what brings it, as pip wants it; pyproject.toml says the same in its extras.
PACKAGES = {"torch": "torch==2.13.0", "safetensors": "safetensors>=0.6", "tensorboard": "tensorboard>=2.20"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what is known of it, in words."""

    path: Path
    detail: str


def write_epochs(facts: Facts, to: str, folder: Path | None) -> Exported:
    """Write the epochs of a run as `to`: csv or tensorboard.

    Args:
        folder: where to; None: `exports/NAME/`, beside the folder of the runs.

    Raises:
        UsageError: no epoch was finished, or a package is missing here (code `no_extra`).
        OSError: it cannot be written.
    """
    if not facts.epochs and not facts.curves:
        raise UsageError(
            f"{facts.name} has no finished epoch" + ("" if facts.shipped else ", and told no other figures"),
            hint=f"cloudtrain show {facts.name}",
            consequence="nothing was written",
            code="no_figures",
        )
    if folder is None:
        folder = facts.folder.parent.parent / FOLDER / facts.name
    return _table(facts, folder) if to == "csv" else _tensorboard(facts, folder / "tensorboard")


def _table(facts: Facts, folder: Path) -> Exported:
    """`metrics.csv`: a row an epoch, with the header that trackio's and other importers know; of a job that tells
    further figures a row for each place in the training, with a column for each of them."""
    text = io.StringIO()
    known = COLUMNS if facts.epochs else COLUMNS[:3]
    columns = [*known, *(one.name for one in facts.curves if one.name not in known)]
    rows: list[tuple[float | None, int | None, float | None, Mapping[str, Any]]]
    rows = [(epoch.epoch, epoch.step, epoch.at, asdict(epoch)) for epoch in facts.epochs]
    if facts.curves:
        rows = [(told.epoch, told.step, told.at, told.values) for told in facts.told.rows]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for epoch, step, at, values in rows:
        utc = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None
        places = {"timestamp": utc, "step": step if step is not None else epoch, "epoch": epoch}
        writer.writerow([places[column] if column in places else values.get(column) for column in columns])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.csv"
    disk.write_durably(path, text.getvalue().encode(), mode=0o644)
    return Exported(path, counted(len(rows), "row" if facts.curves else "epoch"))


def _tensorboard(facts: Facts, folder: Path) -> Exported:
    """Event files for `tensorboard --logdir FOLDER`. The x axis is the epoch; of further figures it is what they are
    told by, and their number where that is parts of epochs."""
    if importlib.util.find_spec("tensorboard") is None:
        raise missing(["tensorboard"], "event files are written by TensorBoard's own package")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as aside:
        writer = EventFileWriter(aside)
        for epoch in facts.epochs:
            figures = {tag: getattr(epoch, name) for tag, name in TAGS.items()}
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items() if value is not None]
            writer.add_event(Event(wall_time=epoch.at or 0.0, step=epoch.epoch, summary=Summary(value=values)))
        for one in facts.curves:
            whole = all(at.is_integer() for at, _ in one.points)
            for count, (at, value) in enumerate(one.points, 1):
                summary = Summary(value=[Summary.Value(tag=one.name, simple_value=value)])
                writer.add_event(Event(step=int(at) if whole else count, summary=summary))
        writer.close()
        (written,) = Path(aside).glob(f"{_EVENTS}*")
        # An earlier export of the run would be drawn a second time.
        for old in folder.glob(f"{_EVENTS}*"):
            old.unlink()
        # Named by TensorBoard it would tell this computer's name.
        path = folder / f"{_EVENTS}{written.name.removeprefix(_EVENTS).split('.')[0]}.{facts.name}"
        written.replace(path)
    told = counted(len(facts.epochs), "epoch")
    told += f", {counted(len(facts.curves), 'further figure')}" if facts.curves else ""
    return Exported(path, f"{told}; tensorboard --logdir {folder} shows them")


def missing(modules: Sequence[str], why: str) -> UsageError:
    """That packages are missing on this computer, with the command that brings them."""
    wanted = " ".join(f'"{PACKAGES[module]}"' for module in modules)
    return UsageError(
        f"{' and '.join(modules)} {'is' if len(modules) == 1 else 'are'} not installed here: {why}",
        hint=f"python -m pip install {wanted}",
        consequence="nothing was written",
        code="no_extra",
    )
