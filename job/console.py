"""What a person reads: the training log on stdout, errors on stderr. The only module of the job that prints.

The log keeps the shape of the course's loop: device, layer table, one bar line and one test line an epoch, a results
block. Its epochs count from 0; the results block names the best one by its ordinal.
"""

from __future__ import annotations

import io
import sys
import time
import traceback
from pathlib import Path

from tqdm import tqdm

PLAIN_WIDTH = 100  # columns of the bar line where there is no terminal

tqdm.monitor_interval = 0  # no watching thread: bars here are redrawn when there is something to say


class Console:
    """Prints. On a terminal bars are redrawn in place; elsewhere each epoch leaves exactly one finished bar line."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a pipe on Windows would be cp1252 and could not say "█"
                stream.reconfigure(encoding="utf-8", errors="replace", newline=None if stream.isatty() else "\n")
        self.live = sys.stdout.isatty()
        self._bar: tqdm | None = None
        self._fetched = ""

    def line(self, text: str = "") -> None:
        self.close()
        print(text, flush=True)

    def error(self, message: str, hint: str) -> None:
        """One line that says what happened, one that says what to do."""
        self.close()
        print(f"error: {message}\nhint: {hint}", file=sys.stderr, flush=True)

    def traceback(self) -> None:
        """The exception being handled, for the training log."""
        self.close()
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()

    # data

    def progress(self, source: str, done: int, total: int) -> None:
        """How many bytes of the data set are here; a bar on a terminal, nothing elsewhere."""
        if not self.live:
            return
        if self._bar is None or self._fetched != source:
            self.close()
            self._bar = tqdm(desc=f"MNIST, {source}", total=total, unit="B", unit_scale=True, file=sys.stdout)
            self._fetched = source
        self._bar.n = done
        self._bar.update(0)

    def data_ready(self, source: str, folder: Path | None = None) -> None:
        """That the data set is here. Without `folder` in a run, whose log is published: the path may name a person."""
        where = f", in {folder}" if folder is not None else ""
        self.line(f"MNIST: 60,000 + 10,000 images from the {source}, checked by sha256{where}")

    # training

    def epoch(self, epoch: int) -> None:
        """Head of an epoch; `epoch` counts from 0."""
        self.line(f"EPOCH: {epoch}")

    def bar(self, step: int, steps: int, loss: float, accuracy: float) -> None:
        """The state after `step` of `steps`: the last batch's loss, the epoch's accuracy so far in percent."""
        if not self.live:
            return
        if self._bar is None:
            self._bar = tqdm(total=steps, initial=0, dynamic_ncols=True, file=sys.stdout)
        self._bar.set_description_str(bar_text(step, loss, accuracy), refresh=False)
        self._bar.n = step
        self._bar.refresh()

    def bar_done(self, steps: int, loss: float, accuracy: float, seconds: float) -> None:
        """The finished bar line, once."""
        width = PLAIN_WIDTH
        if self._bar is not None:
            width = self._bar.ncols or width
            self._bar.leave = False
            self.close()
        self.line(tqdm.format_meter(steps, steps, seconds, ncols=width, prefix=bar_text(steps, loss, accuracy)))

    def test(self, loss: float, correct: int, total: int, *, held_out: bool = False) -> None:
        share = 100 * correct / total
        name = "Held-out set" if held_out else "Test set"
        self.line(f"\n{name}: Average loss: {loss:.4f}, Accuracy: {correct}/{total} ({share:.2f}%)\n")

    def results(self, parameters: int, train_accuracy: float, test_accuracy: float, best_epoch: int) -> None:
        """The closing block; accuracies in percent, `best_epoch` counts from 1."""
        rule = "=" * 19
        self.line(
            f"\n{rule}\nResults:\nParameters: {parameters / 1000:.1f}k\nBest Train Accuracy: {train_accuracy:.2f}\n"
            f"Best Test Accuracy: {test_accuracy:.2f} ({ordinal(best_epoch)} Epoch)\n{rule}"
        )

    def close(self) -> None:
        """Take a bar that is on the screen away."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()
            self._bar = None


def bar_text(step: int, loss: float, accuracy: float) -> str:
    return f"Loss={loss} Batch_id={step - 1} Accuracy={accuracy:0.2f}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 12th, 13th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


class Pace:
    """True at most `per_second` times a second, and the first time it is asked."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._gap
        return True
