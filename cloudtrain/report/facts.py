"""What a report says of a run: taken from its receipt and the files beside it, checked, and nothing guessed.

Every view (HTML, Markdown, JSON, compare, exports, notebooks) is drawn from these facts, so that they agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cloudtrain.core import credentials, disk
from cloudtrain.core.decode import Odd, each, made
from cloudtrain.core.figures import EVENTS
from cloudtrain.core.secrets import Place, blanked
from cloudtrain.core.terminal import LogText
from cloudtrain.core.text import screen_safe
from cloudtrain.core.told import LOG, read_events
from cloudtrain.report import reading
from cloudtrain.report.reading import mapping, number, text, whole
from cloudtrain.run_folder.figures import Curve, Told, read
from cloudtrain.run_folder.files import files_of_attempts, read_attempts

TEST_SET = "test set"
# So many places at most a host notes (`onhost/supervise.py`).
MOST_PLACES = 1000
# Bytes of a log's end that are shown; the whole of it is in `console.log`.
MOST_LOG = 512 * 1024
_HOMES = re.compile(r"(?<![\w.~])(?:/home/|/Users/|[A-Za-z]:\\Users\\)(?!(?:ubuntu|ec2-user)\b)[^\s/\\:'\"]+")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch, counted from 1. Accuracies in percent, losses are means, `seconds` for the whole epoch.

    `at` is unix seconds, `step` the steps done since the beginning; None where the job did not tell.
    """

    epoch: int
    train_loss: float | None = None
    train_acc: float | None = None
    test_loss: float | None = None
    test_acc: float | None = None
    lr: float | None = None
    seconds: float | None = None
    at: float | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """What a run should reach. `met` None: the run did not get so far; `value` None: not told."""

    goal: str
    met: bool | None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test picture that the best epoch's weights got wrong; `confidence` from 0 to 1 in the wrong answer."""

    index: int
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What `predictions.csv` holds: how many test pictures, and the wrong ones, most confident first."""

    total: int
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run.

    Attributes:
        folder: its results on this computer.
        receipt: `run.json` (docs/formats.md, "The receipt"), or what it would be now.
        message: why it ended badly, where this computer knows.
        epochs: finished ones in order, without gaps filled.
        told: all figures of a job that is not the shipped one.
        scored_on: which pictures the epochs' test figures are of, as the job told; most often the test set.
        opened: of a run whose epochs were scored on something else, its one look at the test set.
        confusion: of the headline; row is the digit, column the answer. None: the job told none.
        confusion_epoch: which epoch that is.
        log: the console log as a terminal would show it at the end, line by line.
        layers: the layer table as text.
    """

    folder: Path
    receipt: Mapping[str, Any]
    message: str | None
    epochs: tuple[Epoch, ...]
    goals: tuple[Goal, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    confusion_epoch: int | None
    answers: Answers | None
    log: tuple[str, ...]
    layers: str | None
    told: Told = field(default_factory=Told)
    scored_on: str = TEST_SET
    opened: Epoch | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.receipt.get("name"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """As the job resolved them; empty where it told none."""
        return mapping(self.receipt.get("settings"))

    @property
    def train(self) -> Mapping[str, Any]:
        """As they were asked for."""
        return mapping(self.receipt.get("train"))

    @property
    def machine(self) -> Mapping[str, Any]:
        """What it ran on."""
        return mapping(self.receipt.get("machine"))

    @property
    def shipped(self) -> bool:
        """Whether the job is called as the training package that comes with cloudtrain."""
        return self.train.get("module") == "job.train"

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """Those of `told` that are no columns of `epochs`."""
        columns = {name for epoch in self.epochs for name, value in asdict(epoch).items() if value is not None}
        return tuple(one for one in self.told.curves() if one.name not in columns or one.origin != EVENTS)

    @property
    def figure(self) -> Curve | None:
        """The figure that stands for a run without a test accuracy."""
        return self.curves[0] if self.curves else None

    @property
    def command(self) -> list[str]:
        """The user's own command, as it was typed; none: a module ran."""
        words = self.train.get("command")
        return [str(word) for word in words] if isinstance(words, list) else []

    @property
    def living(self) -> bool:
        """Whether the run had not ended when its receipt was written."""
        return self.receipt.get("ended_how") is None

    @property
    def subset(self) -> int | None:
        """Training pictures of a rehearsal on a part of the data set; None: all of them."""
        return whole(self.settings.get("subset"))

    @property
    def parameters(self) -> int | None:
        """Trainable numbers of the network."""
        told = whole(mapping(self.receipt.get("result")).get("parameters"))
        return told if told is not None else whole(self.settings.get("parameters"))

    @property
    def planned_epochs(self) -> int | None:
        """How many epochs the run was to have."""
        told = whole(self.settings.get("epochs"))
        return told if told is not None else whole(self.train.get("epochs"))

    @property
    def last(self) -> Epoch | None:
        """The last epoch that was finished: the headline, since nothing was picked."""
        return self.epochs[-1] if self.epochs else None

    @property
    def held_out(self) -> bool:
        """Whether the epochs were scored on pictures that are not the test set (`--val` of the shipped job)."""
        return self.scored_on != TEST_SET

    @property
    def best(self) -> Epoch | None:
        """The first epoch with the highest test accuracy: picked on what the epochs were scored on."""
        scored = [epoch for epoch in self.epochs if epoch.test_acc is not None]
        return max(scored, key=lambda epoch: epoch.test_acc or 0.0) if scored else None

    @property
    def best_train_acc(self) -> float | None:
        """The highest training accuracy of any epoch, in percent."""
        return max((epoch.train_acc for epoch in self.epochs if epoch.train_acc is not None), default=None)

    @property
    def training_seconds(self) -> float | None:
        """Of the finished epochs together; None where the job told no times."""
        told = [epoch.seconds for epoch in self.epochs if epoch.seconds is not None]
        return sum(told) if told else None

    @property
    def phases(self) -> dict[str, float]:
        """State -> seconds in it, in the order first entered; a state that was entered again counts on."""
        spans: dict[str, float] = {}
        listed = self.receipt.get("phases")
        for phase in listed if isinstance(listed, list) else []:
            state, seconds = text(mapping(phase).get("state")), number(mapping(phase).get("seconds"))
            if state is not None and seconds is not None and seconds >= 0:
                spans[state] = spans.get(state, 0.0) + seconds
        return spans

    @property
    def artifacts(self) -> dict[str, str]:
        """Name here -> sha256 of each result that was pulled and verified."""
        listed = self.receipt.get("artifacts")
        entries = [mapping(entry) for entry in listed] if isinstance(listed, list) else []
        return {str(entry.get("stored") or entry.get("name")): str(entry.get("sha256")) for entry in entries}

    def weights(self, which: str) -> Path | None:
        """The file `weights/WHICH.safetensors`, if it is one of the verified results and here."""
        name = f"weights/{which}.safetensors"
        path = self.folder / name
        return path if name in self.artifacts and disk.is_plain(path) else None


def gather(
    receipt: Mapping[str, Any], folder: Path, message: str | None = None, declared: Mapping[str, str] | None = None
) -> Facts:
    """The facts of the run with this receipt, whose files lie in `folder`. Never fails on what lies there.

    Args:
        declared: see `JobSpec.figures`; None: as the receipt has it, which may lack what looked private.
    """
    train, metrics = mapping(receipt.get("train")), reading.read_json(folder / "metrics.json")
    scored_on = text(metrics.get("scored_on"), 60) or TEST_SET
    opened = mapping(metrics.get("test")) if scored_on != TEST_SET else {}
    headline = opened if scored_on != TEST_SET else mapping(metrics.get("final"))
    return Facts(
        folder=folder,
        receipt=receipt,
        message=text(message, 2000),
        epochs=_epochs(folder),
        goals=_goals(receipt, metrics),
        confusion=reading.square(headline.get("confusion")),
        confusion_epoch=whole(headline.get("epoch")),
        answers=_answers(folder / "predictions.csv"),
        log=tuple(line for path, places in _logs(receipt, folder) for line in _log(path, places)),
        layers=_layers(folder / "model_summary.txt"),
        told=Told() if train.get("module") == "job.train" else read(folder, declared or _declared(train)),
        scored_on=scored_on,
        opened=_opened(opened),
    )


def _declared(train: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in mapping(train.get("figures")).items() if isinstance(value, str)}


def _opened(told: Mapping[str, Any]) -> Epoch | None:
    epoch, accuracy = whole(told.get("epoch")), number(told.get("test_acc"))
    if epoch is None or accuracy is None:
        return None
    return Epoch(epoch, test_loss=number(told.get("test_loss")), test_acc=accuracy)


def _epochs(folder: Path) -> tuple[Epoch, ...]:
    """From the events, which are here even of a run that failed; else from `metrics.jsonl`."""
    try:
        told = [values for values in read_attempts(folder) if values.get("kind") == "epoch"]
        told = told or list(read_events(folder / "metrics.jsonl"))
    except OSError:
        return ()
    found: dict[int, Epoch] = {}
    for values in told:
        count = whole(values.get("epoch"))
        if count is None or not 1 <= count < 10**9:
            continue
        names = ("train_loss", "train_acc", "test_loss", "test_acc", "lr", "seconds")
        figures = {name: number(values.get(name)) for name in names}
        # Told twice after a resume: the later one is what the weights come from.
        found[count] = Epoch(count, **figures, at=number(values.get("t")), step=whole(values.get("step")))
    return tuple(found[count] for count in sorted(found))


def _goals(receipt: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[Goal, ...]:
    listed = metrics.get("goals")
    values = {
        str(mapping(goal).get("goal")): number(mapping(goal).get("value"))
        for goal in (listed if isinstance(listed, list) else [])
    }
    told = receipt.get("goals")
    goals = []
    for entry in told if isinstance(told, list) else []:
        goal, met = text(mapping(entry).get("goal")), mapping(entry).get("met")
        if goal is not None:
            goals.append(Goal(goal, met if isinstance(met, bool) else None, values.get(goal)))
    return tuple(goals)


def _answers(path: Path) -> Answers | None:
    total, wrong = 0, []
    for row in reading.read_rows(path, ("index", "label", "predicted", "confidence")):
        try:
            index, label, predicted, confidence = int(row[0]), int(row[1]), int(row[2]), float(row[3])
        except ValueError:
            return None
        if not (0 <= index < 10**9 and 0 <= label < 1000 and 0 <= predicted < 1000 and 0 <= confidence <= 1):
            return None
        total += 1
        if label != predicted:
            wrong.append(Mistake(index, label, predicted, confidence))
    if not total:
        return None
    return Answers(total, tuple(sorted(wrong, key=lambda mistake: (-mistake.confidence, mistake.index))))


def _logs(receipt: Mapping[str, Any], folder: Path) -> Iterator[tuple[Path, list[Place] | None]]:
    """The logs of a run, and where in each the values of secrets stand; None: nobody can tell. What is not noted of a
    machine that was lost or taken back cannot be made good: a value that this shell has may be another one by now."""
    *earlier, last = files_of_attempts(folder, LOG)
    gets_none, places = not mapping(receipt.get("train")).get("secrets"), None
    yield from ((path, [] if gets_none else None) for path in earlier)
    with suppress(Odd):
        places = each(partial(made, Place))(mapping(receipt.get("log")).get("secrets") or [])
    looked = mapping(receipt.get("exit")).get("code") is not None and len(places or []) < MOST_PLACES
    yield last, places if looked or gets_none else None


def _log(path: Path, secrets: list[Place] | None) -> tuple[str, ...]:
    """Last state of each redrawn line, no escapes, no secrets; the home folder, which names a person, is `~`."""
    if secrets is None:
        left_out = f"[{path.name} is left out here: whether it holds the value of a secret is not known]"
        return (left_out,) if disk.is_plain(path) else ()
    try:
        with disk.plain(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MOST_LOG))
            data = file.read(MOST_LOG)
    except OSError:
        return ()
    data = blanked(data, max(0, size - MOST_LOG), secrets)
    text = credentials.without_tokens("\n".join(line.rstrip() for line in LogText().feed(data, final=True)))
    lines = [without_home(line) for line in text.split("\n")] if text else []
    if size > MOST_LOG:
        lines[:1] = [f"[the first {(size - MOST_LOG) / 1e6:.1f} MB of this log are left out here]"]
    return tuple(lines)


def without_home(line: str) -> str:
    """`line` with home folders, which name a person, as `~`: this computer's, and those of the host."""
    try:
        home = str(Path.home())
    except RuntimeError:
        home = ""
    return _HOMES.sub("~", line.replace(home, "~") if len(home) > 5 else line)


def _layers(path: Path) -> str | None:
    found = reading.read_text(path, 2**20)
    return "\n".join(screen_safe(line).rstrip() for line in found.splitlines()) if found else None
