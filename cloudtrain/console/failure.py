"""How a failure reads: what happened; what it means for money and data; what to type next."""

from __future__ import annotations

from typing import Any

from cloudtrain.console.text import screen_safe, wrapped
from cloudtrain.errors import CloudtrainError, ExitCode

_HANG = 7  # what follows "error: "


def lines(error: CloudtrainError, width: int | None = None) -> list[str]:
    """`error:` and `hint:` lines for people. Text from a host is made safe for the screen.

    Args:
        width: columns to stay in; a hint holds a command to copy, so it stays one line whatever its length.
    """
    shown = [f"error: {screen_safe(error.message)}"]
    if error.detail:
        shown += [f"       {screen_safe(part)}" for part in error.detail.splitlines()]
    if width is not None:
        shown = [part for line in shown for part in wrapped(line, width, _HANG)]
    if error.hint or error.consequence:
        hint = f"hint:  {screen_safe(error.hint or error.consequence or '')}"
        meaning = f"({screen_safe(error.consequence)})" if error.hint and error.consequence else ""
        if width is None or len(hint) + len(meaning) + 3 <= width:
            shown.append(f"{hint}   {meaning}".rstrip())
        else:
            shown.append(hint)
            shown += wrapped(f"{'':<{_HANG}}{meaning}", width, _HANG) if meaning else []
    return shown


def record(error: CloudtrainError) -> dict[str, Any]:
    """The same for programs."""
    return {
        "code": error.code,
        "exit": int(error.exit_code),
        "message": error.message,
        "detail": error.detail,
        "consequence": error.consequence,
        "hint": error.hint,
    }


def billing(error: CloudtrainError) -> dict[str, bool]:
    """Whether money may still be being spent when a command leaves with `error`."""
    pending = error.code == "release_pending"
    return {"running": pending or error.exit_code in (ExitCode.CONNECTION, ExitCode.STILL_RUNNING)}
