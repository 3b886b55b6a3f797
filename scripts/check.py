"""Lint and types, without the tests: python3 scripts/check.py"""

import time
from collections.abc import Sequence
from pathlib import Path

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _terminal import elapsed, entry, run, say

# Name of a stage -> the module that is run, and its arguments.
Stages = dict[str, Sequence[str]]
CHECKS: Stages = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
}


def run_stages(python: Path, stages: Stages) -> int:
    """Run all `stages`, whatever becomes of one, and sum them up.

    Returns:
        The exit code of the first that failed, or 0.
    """
    first_failure = 0
    summary = []
    for name, (module, *arguments) in stages.items():
        say(f"\n== {name}: {' '.join((module, *arguments))}")
        began = time.monotonic()
        code = run([python, "-m", module, *arguments])
        summary.append(f"  {name:8} {'ok' if code == 0 else f'FAILED ({code})':12} {elapsed(time.monotonic() - began)}")
        first_failure = first_failure or code
    say("\n" + "\n".join(summary))
    return first_failure


def main(arguments: list[str]) -> int:
    """Make the environment, then check."""
    if arguments:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    return run_stages(_bootstrap.prepare({"dev"}), CHECKS)


if __name__ == "__main__":
    entry(main)
