"""The `cloudtrain` command."""

from __future__ import annotations

import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and leave with the documented exit code."""
    if sys.argv[1:] == ["--version"]:
        # Answered before any import: scripts ask for it a lot.
        from cloudtrain.core.version import __version__

        with suppress(OSError, AttributeError):  # closed, or it takes nothing: `run` says so
            sys.stdout.write(f"cloudtrain {__version__}\n")
            sys.stdout.flush()
            return
    from cloudtrain.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
