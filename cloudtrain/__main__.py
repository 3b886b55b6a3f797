"""The `cloudtrain` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with the documented exit code."""
    if sys.argv[1:] == ["--version"]:
        # Answered before any import: scripts ask for it a lot.
        from cloudtrain.core.version import __version__

        sys.stdout.write(f"cloudtrain {__version__}\n")
        return
    from cloudtrain.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
