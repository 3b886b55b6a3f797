"""How a failure reads: what happened; what it means for money and data; what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtrain.console.text import screen_safe, wrapped
from cloudtrain.error_codes import completed
from cloudtrain.errors import CloudtrainError

_HANG = 7  # what follows "error: "


def lines(error: CloudtrainError, width: int | None = None) -> list[str]:
    """`error:` and `hint:` lines for people. Text from a host is made safe for the screen.

    Args:
        width: columns to stay in; a hint holds a command to copy, so it stays one line whatever its length.
    """
    consequence, next_ = completed(error)
    shown = [f"error: {screen_safe(error.message)}"]
    if error.detail:
        shown += [f"       {screen_safe(part)}" for part in error.detail.splitlines()]
    if width is not None:
        shown = [part for line in shown for part in wrapped(line, width, _HANG)]
    if next_ or consequence:
        hint = f"hint:  {screen_safe(next_ or consequence or '')}"
        meaning = f"({screen_safe(consequence)})" if next_ and consequence else ""
        if width is None or len(hint) + len(meaning) + 3 <= width:
            shown.append(f"{hint}   {meaning}".rstrip())
        else:
            shown.append(hint)
            shown += wrapped(f"{'':<{_HANG}}{meaning}", width, _HANG) if meaning else []
    return shown


def record(error: CloudtrainError, exit_code: int | None = None) -> dict[str, Any]:
    """The same for programs.

    Args:
        exit_code: that of the command, where it is not the one of the error's kind.
    """
    consequence, next_ = completed(error)
    return {
        "code": error.code,
        "exit": int(error.exit_code if exit_code is None else exit_code),
        "message": error.message,
        "detail": error.detail,
        "consequence": consequence,
        "hint": next_,
        "cause": None,
    }


def of_run(error: Mapping[str, Any] | None, exit_code: int) -> dict[str, Any] | None:
    """The `error` that a run has ended with, as the registry keeps it, for programs; None: it has none.

    Args:
        exit_code: that of a command which followed the run to its end.
    """
    if not error:
        return None
    told = {key: error.get(key) for key in ("code", "hint", "detail", "consequence")}
    return {
        **record(CloudtrainError(str(error.get("message", "it failed")), **told), exit_code),
        "cause": error.get("cause"),
    }
