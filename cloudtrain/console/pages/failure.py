"""How a failure reads: what happened; what it means for money and data; what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudtrain.console.text import shown_path
from cloudtrain.core.error_codes import completed
from cloudtrain.core.errors import CloudtrainError, RunError
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import fitted, money, screen_safe, wrapped

_HANG = 7  # what follows "error: "


def lines(error: CloudtrainError, width: int | None = None) -> list[str]:
    """The `error:` and `hint:` lines, with the code to look up in docs/errors.md. Text from a host is made safe
    for the screen.

    Args:
        width: columns to stay in; a hint holds a command to copy, so it stays one line whatever its length.
    """
    consequence, next_ = completed(error)
    shown = [f"error: {screen_safe(error.message)} [{screen_safe(error.code)}]"]
    if error.detail:
        shown += [f"       {screen_safe(part)}" for part in error.detail.splitlines()]
    shown = fitted(shown, width, _HANG)
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


def of_run(error: RunError | None, exit_code: int, run: str, kept: str) -> dict[str, Any] | None:
    """The `error` that a run has ended with, as the registry keeps it, for programs; None: it has none.

    Args:
        exit_code: that of a command which followed the run to its end.
        kept: what the end means for money and data, where the error does not say it.
    """
    if error is None:
        return None
    made = record(error.shown(kept), exit_code)
    hint = None if made["hint"] is None else made["hint"].replace("RUN", run)
    return {**made, "hint": hint, "cause": error.cause}


def kept(folder: Path, life: InstanceLife, *, files: int | None = None, usd: float | None = None) -> str:
    """What a run that ended badly means for data and money.

    Args:
        folder: its results here; files: how many of them are verified, None: not looked at.
        usd: what it cost; None: nothing is billed, or it is shown elsewhere.
    """
    what = {0: "its log is", None: "what is here of it is"}.get(files, "its results so far are")
    parts = [f"{what} in {shown_path(folder)}"]
    if machine := _MACHINE.get(life):
        parts.append(machine + (f", about {money(usd)}" if usd is not None else ""))
    return "; ".join(parts)


_MACHINE = {
    InstanceLife.TERMINATED: "the instance is terminated",
    InstanceLife.PARKED: "the instance is parked, its disk is billed",
    InstanceLife.RUNNING: "the instance may still run until its own limit",
    InstanceLife.LAUNCHING: "the instance may still run until its own limit",
}
