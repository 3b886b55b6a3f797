"""What a command needs of a console, and the choice of one."""

from __future__ import annotations

import getpass
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from cloudtrain.console.lines import print_lines, tell
from cloudtrain.core.errors import CloudtrainError, ConfirmationNeeded, ExitCode
from cloudtrain.core.text import screen_safe

if TYPE_CHECKING:
    from cloudtrain.console.answer import Answer
    from cloudtrain.core.events import Event
    from cloudtrain.core.plan import Plan
    from cloudtrain.run_folder.outcome import Result
    from cloudtrain.store import Run


class Reporter(ABC):
    """Shows a run as it goes. One is made for each command; library code only ever sees its `emit`.

    Attributes:
        own_exit: exit code of the command however its run has ended; None: it is that of the run.
        asks: whether it can put a question at all.
        bell: the user wants a sound when the run ends or a question waits.
        keys: what can be pressed while the run trains.
    """

    own_exit: ExitCode | None = None
    asks: bool = True
    bell: bool = False
    keys: str = "Ctrl-C to detach or stop"

    @abstractmethod
    def emit(self, event: Event) -> None:
        """Show one event."""

    @abstractmethod
    def plan(self, plan: Plan) -> None:
        """Show what is about to be done and what it can cost."""

    @abstractmethod
    def result(self, result: Result) -> None:
        """Show how a run ended; the last thing that is shown."""

    @abstractmethod
    def failure(self, error: CloudtrainError) -> None:
        """Show why the command could not do what was asked; the last thing that is shown."""

    def leave(self, result: Result | None, exit_code: int) -> None:  # noqa: B027 - people have been told already
        """The command ends with `exit_code` while its run goes on as `result` says, or before there is one (None)."""

    def answer(self, found: Answer) -> int:
        """Show what a command has found, the last thing that is shown; the command's exit code."""
        self.show(*found.lines(columns_of(sys.stdout)))
        for aside in found.asides:
            tell(aside)
        if found.error is not None and not found.said:
            self.failure(found.error)
        return found.exit_code

    def show(self, *lines: str) -> None:
        """Lines on stdout for people, before a command goes on; programs have it all in the answer."""
        print_lines(*lines)

    def remark(self, event: Event) -> None:
        """Show people an event; programs have it in the answer."""
        self.emit(event)

    def one_of(self, result: Result) -> None:
        """Show how one of several runs ended; programs have it in the answer."""
        self.result(result)

    def about(self, run: Run, again: Callable[[], Run]) -> None:  # noqa: B027 - most reporters need no more than events
        """Hear which run the events are of; `again` gives it as it stands later."""

    def close(self) -> None:  # noqa: B027 - most reporters hold nothing
        """Leave the terminal as it was. Safe to call again."""

    def ring(self) -> None:
        """One sound, if it is wanted and a terminal can make it."""
        if self.bell and sys.stderr.isatty():
            tell("\a", end="")

    def may_ask(self) -> bool:
        """Whether a question can be put: a person sits at both ends, and wants to be asked."""
        return self.asks and not no_input() and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def ask(
        self,
        question: str,
        *,
        default: bool,
        otherwise: str = "add --yes",
        consequence: str = "nothing was changed",
    ) -> bool:
        """Ask on the terminal.

        Raises:
            ConfirmationNeeded: there is none, or no question is wanted; `otherwise` says what to do instead,
                `consequence` what it means that nobody was asked.
        """
        if not self.may_ask():
            why = "with --json" if not self.asks else "with --no-input" if no_input() else "without a terminal"
            raise ConfirmationNeeded(f"cannot ask for confirmation {why}", hint=otherwise, consequence=consequence)
        self.close()
        self.ring()
        choices = "[Y/n]" if default else "[y/N]"
        while True:
            tell(f"{_lines(question)} {choices} ", end="")
            line = answered()
            if not line:
                raise ConfirmationNeeded("the terminal was closed", hint=otherwise, consequence=consequence)
            answer = line.strip().lower()
            if answer in ("", "y", "yes", "n", "no"):
                return default if not answer else answer.startswith("y")

    def line(self, question: str, *, hidden: bool = False) -> str | None:
        """What is typed in answer to `question`; None: nobody is there, or wants no question (`core.questions`)."""
        if not self.may_ask():
            return None
        self.close()
        self.ring()
        tell(_lines(question), end=" ")
        if hidden:
            with suppress(EOFError):
                return getpass.getpass("")
            return None
        return answered() or None


def answered() -> str:
    """The line that is typed in answer; empty: the terminal was closed."""
    try:
        return sys.stdin.readline()
    except OSError:
        return ""


def _lines(question: str) -> str:
    """A question's lines as a screen may have them: a name in it may be a host's."""
    return "\n".join(screen_safe(line) for line in question.split("\n"))


NO_INPUT = "CLOUDTRAIN_NO_INPUT"
"""The variable behind `--no-input`."""


def no_input() -> bool:
    """Whether the user wants no question, also where there is a terminal."""
    return os.environ.get(NO_INPUT, "") not in ("", "0")


def may_redraw(stream: TextIO) -> bool:
    """Whether lines on `stream` may be drawn again."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns_of(stream: TextIO) -> int | None:
    """Columns of the terminal behind `stream`; None: there is none, and a line may be as long as it is."""
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    try:
        # Not what `shutil` says: that is of stdout, which may be a file while a person reads stderr.
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def lines_of(stream: TextIO) -> int:
    """Lines of the terminal behind `stream`."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or 24
    except (OSError, ValueError):
        return 24


def forgive_encodings() -> None:
    """A console that cannot show a character shows a substitute: a cp1252 pipe must not end a run."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
