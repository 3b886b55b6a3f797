"""Lines of a command that has no reporter: what was asked for on stdout, what is said beside it on stderr."""

from __future__ import annotations

import sys


def print_lines(*lines: str) -> None:
    """What the command was asked for, a line each, on stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def tell(text: str, end: str = "\n") -> None:
    """A word to whoever reads the screen, on stderr; at once, also without a line's end."""
    sys.stderr.write(f"{text}{end}")
    sys.stderr.flush()
