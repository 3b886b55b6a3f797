"""`python -m cloudtrain.emulator serve --folder DIR`: a region as a process of its own, ending by itself when idle."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.emulator import faults
from cloudtrain.emulator.aws.core import Timing

MOST_QUIET_S = 24 * 3600.0
"""A parked instance keeps its region alive, but not for longer than this without a call."""


def main(argv: list[str] | None = None) -> int:
    """Run one command of the emulator; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cloudtrain.emulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve a region until it is stopped or idle")
    serve.add_argument("--folder", type=Path, required=True, help="where its machines and its record live")
    serve.add_argument("--region", default="us-east-1", help="AWS Region")
    serve.add_argument("--fault", action="append", default=[], help="a fault, see `faults`; may be repeated")
    serve.add_argument("--data", type=Path, help="folder told to the machines as CLOUDTRAIN_DATA")
    serve.add_argument("--pending", type=float, default=Timing().pending_s, help="seconds from launch to running")
    serve.add_argument("--boot", type=float, default=Timing().boot_s, help="seconds from running to sshd")
    serve.add_argument("--idle", type=float, default=300.0, help="seconds without instances and calls until it ends")
    commands.add_parser("faults", help="list the faults")
    options = parser.parse_args(argv)
    if options.command == "faults":
        for written, meaning, matrix in faults.describe():
            rows = f" [{', '.join(map(str, matrix))}]" if matrix else ""
            sys.stdout.write(f"{written:44} {meaning}{rows}\n")
        return 0
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    from cloudtrain.emulator.region import Region

    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        region = Region(
            options.folder,
            script=options.fault,
            timing=Timing(pending_s=options.pending, boot_s=options.boot),
            data=options.data,
            name=options.region,
        )
        with region:
            sys.stdout.write(f"region at {region.endpoint_url}\n")
            sys.stdout.flush()
            while not (ending.is_set() or region.idle_for > options.idle or region.quiet_for > MOST_QUIET_S):
                if region.wait_until_stopped(0.2):
                    break
    except CloudtrainError as error:
        sys.stderr.write(f"error: {error.message}\n{error.hint or ''}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
