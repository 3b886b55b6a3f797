"""Lint and types, without the tests: python3 scripts/check.py"""

import time
from collections.abc import Sequence
from pathlib import Path

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _terminal import elapsed, entry, run, say

# Name of a stage -> the module that is run, and its arguments.
Stages = dict[str, Sequence[str]]
CHECKS: Stages = {"lint": ("ruff", "check", "."), "format": ("ruff", "format", "--check", "."), "types": ("mypy",)}


def run_stages(python: Path, stages: Stages, install_s: float) -> int:
    """Run all `stages`, whatever becomes of one, and sum them up in a table with their times.

    Args:
        install_s: seconds that it took to come so far.

    Returns:
        The exit code of the first that failed, or 0.
    """
    first_failure = 0
    summary, first = [_row("install", 0, install_s)], time.monotonic() - install_s
    for name, (module, *arguments) in stages.items():
        say(f"\n== {name}: {' '.join((module, *arguments))}")
        began = time.monotonic()
        code = run([python, "-m", module, *arguments])
        summary.append(_row(name, code, time.monotonic() - began))
        first_failure = first_failure or code
    say("\n" + "\n".join([*summary, _row("all", first_failure, time.monotonic() - first)]))
    return first_failure


def _row(name: str, code: int, seconds: float) -> str:
    return f"  {name:8} {'ok' if code == 0 else f'FAILED ({code})':12} {elapsed(seconds):>9}"


def main(arguments: list[str]) -> int:
    """Make the environment, then check."""
    if arguments:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    began = time.monotonic()
    python = _bootstrap.prepare({"dev"})
    return run_stages(python, CHECKS, time.monotonic() - began)


if __name__ == "__main__":
    entry(main)
