"""Print the table."""

from __future__ import annotations

import sys

from tests.hostile import PARSERS, attacked


def main() -> None:
    """Try every parser."""
    print("| parser | inputs | not handled |\n| - | - | - |")
    for parser in PARSERS:
        tried, failed = attacked(parser, int(sys.argv[1]))
        print(f"| {parser} | {tried:,} | {failed} |", flush=True)


if __name__ == "__main__":
    main()
