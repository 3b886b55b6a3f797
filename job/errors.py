"""Failures the job can name."""

from __future__ import annotations


class JobError(Exception):
    """A failure with a stable `code`, one lower-case line that says what happened, and what to do next."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
