"""What a command has found. It returns that, and the reporter that its flags chose shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudtrain.core.errors import CloudtrainError, ExitCode


@dataclass(frozen=True, slots=True)
class Answer:
    """One command's.

    Attributes:
        record: gives the values of its result, for programs (docs/schema).
        lines: gives what people read on stdout, for a screen of so many columns (None: a line may be as long as it is).
        run: name of the run that it is about; "": it is about none.
        error: what went wrong beside what was found; its exit code is the command's.
        asides: what people are told on stderr.
        said: the lines say what went wrong, too.
    """

    record: Callable[[], Mapping[str, Any]]
    lines: Callable[[int | None], Iterable[str]] = lambda width: ()
    run: str = ""
    error: CloudtrainError | None = None
    asides: Iterable[str] = ()
    said: bool = False

    @property
    def exit_code(self) -> int:
        """That of the command."""
        return int(ExitCode.DONE if self.error is None else self.error.exit_code)
