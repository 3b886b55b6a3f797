"""What the scripts beside it say, how they end, and how they run a program. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Stop(Exception):
    """The script cannot go on: what happened, lines to quote, and the next step."""

    def __init__(self, message: str, *, hint: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message, self.hint, self.detail = message, hint, detail


def entry(main: Callable[[list[str]], int]) -> None:
    """Run `main` with the arguments and leave with its exit code; a failure is told, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A Windows console in an old code page must not end the script over a letter that it lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say(f"\nstopped; to go on: {this_command()}")
        sys.exit(130)
    except Stop as stop:
        _complain(stop)
    except OSError as error:
        _complain(_what_the_system_refused(error))
    sys.exit(1)


def _complain(stop: Stop) -> None:
    say(f"\nerror: {stop.message}")
    for line in stop.detail:
        say(f"  | {line}")
    say(f"next: {stop.hint}")


def _what_the_system_refused(error: OSError) -> Stop:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Stop(f"the disk is full ({what})", hint=f"free some space, then: {this_command()}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Stop(
            f"this user may not write there ({what})",
            hint=f"put the repository into a folder of your own, then run it there: {this_command()}",
        )
    return Stop(f"the system refused: {what}", hint=f"try again: {this_command()}")


def say(text: str) -> None:
    """One human-readable line, on stderr: stdout belongs to the program that the script runs."""
    print(text, file=sys.stderr, flush=True)


def this_command() -> str:
    """The line to type to run this script again."""
    script = Path(sys.argv[0])
    with contextlib.suppress(ValueError):
        script = script.resolve().relative_to(Path.cwd())
    return subprocess.list2cmdline(["py" if os.name == "nt" else "python3", str(script), *sys.argv[1:]])


def short(path: Path) -> str:
    """`path` as seen from the current folder."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def elapsed(seconds: float) -> str:
    """7.2 -> "7 s", 75.3 -> "1:15 min"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"


def environment() -> dict[str, str]:
    """This process's environment, less what would make the Python of `.venv` read another one's modules."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(command: Sequence[str | Path]) -> int:
    """Run a program in the repository's folder, on this terminal, to its end. Ctrl-C is the program's to answer.

    Returns:
        Its exit code; 128 + the signal's number if a signal ended it.
    """
    with subprocess.Popen([str(part) for part in command], cwd=ROOT, env=environment()) as child:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                continue  # the terminal has sent it to the program as well
            return code if code >= 0 else 128 - code
