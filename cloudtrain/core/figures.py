"""Figures that a training program tells, whatever it is: which lines hold some, and what is taken of them. Pure.

Nothing is guessed from prose. A figure is a number under a name in a structure: an event, a scalar of TensorBoard's, a
line of the log that is one JSON object or one flat Python dict, or what an expression finds that the user has declared.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cloudtrain.core.decode import Count, Odd, count, json_object, number, optional
from cloudtrain.core.terminal import LogText
from cloudtrain.core.text import screen_safe

EVENTS, BOARD, LINES, DECLARED = "events", "TensorBoard files", "lines of the log", "[job.figures]"
ORIGINS = EVENTS, BOARD, LINES, DECLARED
"""Where figures come from, the most trusted first: of a name that several tell, the first is believed."""

MOST_LINE = 4096
"""Characters of the longest line of a log that can hold figures."""
MOST_IN_A_ROW, MOST_NAME = 64, 80
_STEPS = ("step", "global_step", "iteration", "iter")
_NO_FIGURES = frozenset({"v", "t", "kind", "epoch", "epochs", "steps", *_STEPS})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
# One entry of a flat dict as Python prints it, with what follows it; no part of it can be looked for in two ways.
_ENTRY = re.compile(
    r"\s*+(?:'([^'\\]*+)'|\"([^\"\\]*+)\")\s*+:\s*+('[^'\\]*+'|\"[^\"\\]*+\"|[^\s,'\"{}\[\]()]++)\s*+([,}])"
)

MOST_EXPRESSIONS, MOST_EXPRESSION, MOST_REPEATS = 32, 200, 1000
LINE_S = 0.05
"""How long an expression may look at one line, in seconds; one that takes longer is not looked for any more."""
# What an expression may take of a whole log, in seconds of work: at the beginning, and for each line on average.
_SPARE_S, _MEAN_S = 2.0, 5e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Figures that were told at once.

    Attributes:
        epoch: from 0; a part of one, where the program says so.
        at: unix seconds; None: not told.
    """

    origin: str
    values: Mapping[str, float]
    epoch: float | None = None
    step: int | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure as it stands: the newest of the name that says most of a run."""

    name: str = ""
    value: float = 0.0
    epoch: float | None = None
    step: Count | None = None
    origin: str = EVENTS


def row(values: Mapping[str, Any], origin: str) -> Row | None:
    """The figures among `values`, which name the epoch or the step that they are of; None: there are none."""
    step = next((value for name in _STEPS if (value := _whole(values.get(name))) is not None), None)
    epoch = _number(values.get("epoch"))
    if step is None and (epoch is None or epoch < 0):
        return None
    if values.get("kind") == "step" and epoch and step and (steps := _whole(values.get("steps"))) and step <= steps:
        epoch, step = epoch - 1 + step / steps, None  # such a step counts from its epoch's beginning
    found: dict[str, float] = {}
    for name, value in values.items():
        told = _number(value)
        if told is not None and (known := named(name)) and known not in _NO_FIGURES and len(found) < MOST_IN_A_ROW:
            found[known] = told
    return Row(origin=origin, values=found, epoch=epoch, step=step, at=_number(values.get("t"))) if found else None


def named(name: str) -> str:
    """A figure's name as it is shown: one line, bounded, nothing that a terminal obeys; "": it has none."""
    return screen_safe(" ".join(name[: 2 * MOST_NAME].split()))[:MOST_NAME]


def _number(value: Any) -> float | None:
    try:
        return optional(number, value)
    except Odd:
        return None


def _whole(value: Any) -> int | None:
    """Of a program that counts its steps as 100.0, too."""
    try:
        return optional(count, int(value) if isinstance(value, float) and value.is_integer() else value)
    except Odd:
        return None


def of_line(line: str) -> Row | None:
    """The figures of a line that is one JSON object or one flat Python dict, and nothing beside it.

    A text that is a number as a whole counts as one: so Hugging Face's Trainer prints them.
    """
    line = line.strip()
    if not (line[:1] == "{" and line[-1:] == "}" and len(line) <= MOST_LINE):
        return None
    try:
        values = json_object(line, MOST_LINE)
    except Odd:
        values = dict(_entries(line))
    return row({name: _as_number(value) for name, value in values.items()}, LINES)


def _entries(line: str) -> Iterator[tuple[str, Any]]:
    """What a Python dict of single values holds; nothing, if it is none."""
    found, at = [], 1
    while entry := _ENTRY.match(line, at):
        value = entry[3]
        found.append((entry[1] if entry[1] is not None else entry[2], value.strip("'\"")))
        at = entry.end()
        if entry[4] == "}":
            break
    if at == len(line):
        yield from found


def _as_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return float(value) if len(value) <= 40 and _NUMBER.fullmatch(value) else None


def checked(declared: Mapping[str, str]) -> Mapping[str, str]:
    """`declared`, if each of them can be looked for.

    Raises:
        ValueError: one cannot; says why, and what to write instead.
    """
    if len(declared) > MOST_EXPRESSIONS:
        raise ValueError(f"{len(declared)} expressions, at most {MOST_EXPRESSIONS}")
    for name, expression in declared.items():
        _compiled(name, expression)
    return declared


def sound(declared: Mapping[str, str]) -> dict[str, str]:
    """Those of `declared`, as a receipt or a row has them, that can be looked for."""
    kept: dict[str, str] = {}
    for name, expression in tuple(declared.items())[:MOST_EXPRESSIONS]:
        with suppress(ValueError):
            _compiled(name, expression)
            kept[name] = expression
    return kept


def _compiled(name: str, expression: str) -> Any:
    # Here alone, since nearly no command needs it.
    import regex

    shown = f"{named(name)[:40]!r}"
    if named(name) != name:
        raise ValueError(f"{shown} cannot be the name of a figure: one line of at most {MOST_NAME} characters")
    repeats = 1
    for times in re.findall(r"\d+", "".join(re.findall(r"\{[^}]*", expression))):
        repeats *= max(1, int(times[:9]))
    if len(expression) > MOST_EXPRESSION or repeats > MOST_REPEATS:
        raise ValueError(f"the expression of {shown} is too large: at most {MOST_EXPRESSION} characters, and {{n}} few")
    try:
        found = regex.compile(expression)
    except (regex.error, RecursionError, ValueError, OverflowError) as error:
        raise ValueError(f"the expression of {shown} is none: {screen_safe(str(error))[:80]}") from error
    if found.groups != 1:
        groups = "no group" if not found.groups else f"{found.groups} groups: write (?:...) for all but one"
        raise ValueError(f"the expression of {shown} has {groups}; put ( ) around the number, as in 'loss ([0-9.]+)'")
    return found


class Expressions:
    """Looks for declared figures in the lines of a log, within a limit of time.

    Expressions called `epoch` and `step` say where in the training the figures after them are.

    Attributes:
        given_up: of each that took too long, its name and why; it is not looked for any more.
    """

    def __init__(self, declared: Mapping[str, str], clock: Callable[[], float] = time.thread_time) -> None:
        self._wanted = {name: _compiled(name, expression) for name, expression in declared.items()}
        self._clock = clock
        self._lines = 0
        self._spent = dict.fromkeys(self._wanted, 0.0)
        self._epoch: float | None = None
        self._step: int | None = None
        self.given_up: dict[str, str] = {}

    def of_line(self, line: str) -> Row | None:
        """What they find in `line`; None: nothing."""
        if len(line) > MOST_LINE:
            return None
        self._lines += 1
        found = {name: told for name in tuple(self._wanted) if (told := self._look(name, line)) is not None}
        epoch, step = found.pop("epoch", None), _whole(found.pop("step", None))
        self._epoch, self._step = epoch if epoch is not None else self._epoch, step if step is not None else self._step
        return Row(origin=DECLARED, values=found, epoch=self._epoch, step=self._step) if found else None

    def _look(self, name: str, line: str) -> float | None:
        began = self._clock()
        try:
            match = self._wanted[name].search(line, timeout=LINE_S)
        except (TimeoutError, MemoryError, RecursionError):
            self._give_up(name, f"it took more than {1000 * LINE_S:.0f} ms for one line")
            return None
        self._spent[name] += self._clock() - began
        if self._spent[name] > _SPARE_S + _MEAN_S * self._lines:
            self._give_up(name, f"it took {self._spent[name]:.1f} s for {self._lines} lines")
        return _number(_as_number(match[1].strip())) if match and match[1] else None

    def _give_up(self, name: str, why: str) -> None:
        del self._wanted[name]
        self.given_up[name] = why


class LogFigures:
    """Reads figures out of a log as it grows: a piece of it at a time.

    Args:
        declared: see `JobSpec.figures`.
    """

    def __init__(self, declared: Mapping[str, str]) -> None:
        self._text = LogText()
        self._expressions = Expressions(declared)

    def feed(self, data: bytes, *, final: bool = False) -> list[Row]:
        """The rows of the lines that `data` completes; with `final` also of one that has no end."""
        found = []
        for line in self._text.feed(data, final=final):
            found += [told for told in (of_line(line), self._expressions.of_line(line)) if told is not None]
        return found

    @property
    def given_up(self) -> Mapping[str, str]:
        """See `Expressions`."""
        return self._expressions.given_up


_SCORED = re.compile(r"val|eval|test|dev", re.IGNORECASE)
_MEASURED = re.compile(r"loss|acc|score|ppl|perplexity|bleu|f1|auc|iou|rmse|mse|mae", re.IGNORECASE)


def rank(name: str, declared: Sequence[str]) -> tuple[int, int]:
    """How much a figure of this name says of a run; less is more. It decides what is shown, not what is known."""
    if name in declared:
        return 0, declared.index(name)
    return 4 - 2 * bool(_MEASURED.search(name)) - bool(_SCORED.search(name)), 0


def newest(known: Figure | None, told: Row, declared: Sequence[str] = ()) -> Figure | None:
    """The figure that stands for a run once `told` is known, too: the newest of the name that says most."""
    name = min(told.values, key=lambda name: rank(name, declared))
    if known is not None and rank(known.name, declared) <= rank(name, declared):
        if known.name not in told.values or trust(known.origin) < trust(told.origin):
            return known
        name = known.name
    return Figure(name=name, value=told.values[name], epoch=told.epoch, step=told.step, origin=told.origin)


def trust(origin: str) -> int:
    """Which place an origin has among `ORIGINS`."""
    return ORIGINS.index(origin) if origin in ORIGINS else len(ORIGINS)


def shown(value: float) -> str:
    """A figure as people read it: 0.4123, 98.91, 12,340."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def position(epoch: float | None, step: int | None) -> str:
    """Where in the training something is: "epoch 3, step 2,000"; "" where that is not known."""
    parts = [f"epoch {epoch:g}"] if epoch is not None else []
    return ", ".join([*parts, *([f"step {step:,}"] if step is not None else [])])
