"""All figures that a run has told, read from its folder: rows for tables, curves for pages. Never fails on what lies
there.

Of a run of the shipped job nothing is read here: its epochs are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.figures import DECLARED, EVENTS, LogFigures, Row, rank, row, sound
from cloudtrain.core.text import counted, size
from cloudtrain.core.told import LOG
from cloudtrain.run_folder.artifacts import PARTS
from cloudtrain.run_folder.event_files import MARK, EventFiles, readable
from cloudtrain.run_folder.files import files_of_attempts, is_inside, read_attempts

MOST_NAMES = 64
MOST_VALUES = 400_000
# Bytes of the logs' ends that are looked through.
MOST_LOG = 16 * 2**20
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over the training.

    Attributes:
        axis: what is counted along it: "epoch", "step", or "row" where the program does not say.
        points: at least one, (position, value), in order.
    """

    name: str
    origin: str
    axis: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(value for _, value in self.points)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(value for _, value in self.points)

    @property
    def where(self) -> str:
        """Where the newest is: "step 2,000", "epoch 0.5"."""
        at = self.points[-1][0]
        return f"{self.axis} {at:,.0f}" if at.is_integer() else f"{self.axis} {at:g}"


@dataclass(frozen=True, slots=True)
class Told:
    """What a run has told.

    Attributes:
        rows: what belongs to one place in the training, of all origins (`origin` is that of the first), in order.
        origins: where each figure is from; what says most of the run comes first.
        notes: what is not here, in words.
    """

    rows: tuple[Row, ...] = ()
    origins: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all figures."""
        return tuple(self.origins or {})

    def curves(self) -> tuple[Curve, ...]:
        """A curve for each figure."""
        found: dict[str, list[Row]] = {name: [] for name in self.names}
        for told in self.rows:
            for name in told.values:
                found[name].append(told)
        origins = self.origins or {}
        return tuple(_curve(name, origins[name], rows) for name, rows in found.items() if rows)


def read(folder: Path, declared: Mapping[str, str]) -> Told:
    """The figures of the run whose files lie in `folder`.

    Args:
        declared: see `JobSpec.figures`.
    """
    table, notes = _Table(), list[str]()
    table.add(told for values in _events(folder) if (told := row(values, EVENTS)) is not None)
    boards, files = [name for path in folder.rglob(f"*{MARK}*") if (name := _result(folder, path))], EventFiles(folder)
    table.add(files.news(boards))
    if boards and not readable():
        notes.append(f"{counted(len(boards), 'TensorBoard file')} not read: python -m pip install tensorboard")
    if files.cut:
        notes.append("TensorBoard files: so much that only the first of it was read")
    logs = files_of_attempts(folder, LOG)
    table.add(_of_logs(logs, LogFigures({})))
    if declared:
        reader = LogFigures(sound(declared))
        table.add(one for one in _of_logs(logs, reader) if one.origin == DECLARED)
        notes += [f"[job.figures] {name} was given up: {why}" for name, why in reader.given_up.items()]
    if any(disk.is_plain(path) and path.stat().st_size > MOST_LOG for path in logs):
        notes.append(f"of the log only the last {size(MOST_LOG)} were looked through")
    return table.told(notes, tuple(declared))


def _events(folder: Path) -> Iterable[Mapping[str, object]]:
    try:
        yield from read_attempts(folder)
    except OSError:
        return


def _result(folder: Path, path: Path) -> str | None:
    name = path.relative_to(folder).as_posix()
    ours = not name.startswith(f"{PARTS}/") and is_inside(folder, name) and disk.is_plain(path)
    return name if ours and not name.endswith(".part") else None


def _of_logs(paths: Iterable[Path], reader: LogFigures) -> Iterator[Row]:
    for path in paths:
        try:
            with disk.plain(path) as file:
                file.seek(max(0, file.seek(0, 2) - MOST_LOG))
                while data := file.read(_PIECE):
                    yield from reader.feed(data)
        except OSError:
            pass
        yield from reader.feed(b"", final=True)


class _Table:
    """Rows by their positions. Of a name the first origin that tells it counts; told again after a resume, the later
    value."""

    def __init__(self) -> None:
        self._rows: dict[tuple[float | None, int | None, int], Row] = {}
        self._origins: dict[str, str] = {}
        self._values = 0
        self._thinned = False

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of an origin, which no more trusted one may follow."""
        for number, told in enumerate(rows):
            values = {name: value for name, value in told.values.items() if self._counts(name, told.origin)}
            if not values:
                continue
            nowhere = told.epoch is None and told.step is None
            key = (told.epoch, told.step, number if nowhere else -1)
            before = self._rows.get(key)
            self._values += len(values) if before is None else len(values.keys() - before.values.keys())
            if before is not None and before.origin == told.origin:
                self._rows[key] = replace(told, values={**before.values, **values})
            else:
                self._rows[key] = replace(before or told, values={**(before.values if before else {}), **values})
            if self._values > MOST_VALUES:
                self._thin()

    def _counts(self, name: str, origin: str) -> bool:
        if name not in self._origins and len(self._origins) >= MOST_NAMES and origin != DECLARED:
            return False
        return self._origins.setdefault(name, origin) == origin

    def _thin(self) -> None:
        """Leave every second row out, but the newest."""
        kept = list(self._rows.items())
        self._rows = dict([*kept[:-1:2], kept[-1]])
        self._values = sum(len(one.values) for one in self._rows.values())
        self._thinned = True

    def told(self, notes: list[str], declared: Sequence[str]) -> Told:
        """What has been added."""
        more = ["so many values that some rows are left out here"] if self._thinned else []
        rows = sorted(self._rows.values(), key=lambda one: (one.step is None, one.step or 0, one.epoch or 0.0))
        origins = dict(sorted(self._origins.items(), key=lambda one: rank(one[0], declared)))
        return Told(tuple(rows), origins, (*notes, *more))


def _curve(name: str, origin: str, rows: Sequence[Row]) -> Curve:
    epochs = [one.epoch for one in rows if one.epoch is not None]
    steps = [one.step for one in rows if one.step is not None]
    at: Sequence[tuple[float | None, Row]]
    if not epochs and not steps:
        axis, at = "row", [(float(count), one) for count, one in enumerate(rows, 1)]
    elif steps and len(set(epochs)) < len(rows):
        axis, at = "step", [(one.step, one) for one in rows]
    else:
        axis, at = "epoch", [(one.epoch, one) for one in rows]
    points = {float(where): one.values[name] for where, one in at if where is not None}
    return Curve(name, origin, axis, tuple(sorted(points.items())))
