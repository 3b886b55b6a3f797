"""How a failure reads: what happened; what it means for money and data; what to type next."""

from __future__ import annotations

from typing import Any

from cloudtrain.console.text import screen_safe
from cloudtrain.errors import CloudtrainError, ExitCode


def lines(error: CloudtrainError) -> list[str]:
    """`error:` and `hint:` lines for people. Text from a host is made safe for the screen."""
    shown = [f"error: {screen_safe(error.message)}"]
    if error.detail:
        shown += [f"       {screen_safe(part)}" for part in error.detail.splitlines()]
    if error.hint and error.consequence:
        shown.append(f"hint:  {screen_safe(error.hint)}   ({screen_safe(error.consequence)})")
    elif error.hint or error.consequence:
        shown.append(f"hint:  {screen_safe(error.hint or error.consequence or '')}")
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
