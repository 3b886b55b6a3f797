"""What many small results cost: .venv/bin/python scripts/bench_results.py [--rounds N] [--write]

Results of a run come from a real `sshd` on this computer behind a relay with 100 ms of round trip time, side by side
with `tar` over OpenSSH on an open connection. Ours is manifest, transfer, hashes on both ends, fsync and rename. Beside
it stands how long a host takes to look at large ones, at first and again.

`--write` puts the table into docs/benchmarks.md. The exit code is 1 if the goal is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _benchmarks import circumstances, table, write_section
from _terminal import ROOT, entry, say

GOAL = 3.0
FILES, BYTES = 1000, 10_000
LARGE = 1 << 20
LOOK_GOAL = 0.2
RTT_S = 0.1


def main(arguments: list[str]) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    from tests.host.transport.relay import Relay
    from tests.host.transport.sshd import Sshd
    from tests.program import put_program

    with tempfile.TemporaryDirectory(prefix="ct") as name:
        folder = Path(name)
        run = folder / "host" / "runs" / "bench"
        put_program(run)
        fill(run / "out" / "samples", BYTES)
        large = folder / "host" / "runs" / "large"
        put_program(large)
        fill(large / "out", LARGE)
        with Sshd(folder / "sshd") as sshd, Relay(sshd.port, rtt=RTT_S) as relay:
            rounds = [measure(folder, run, sshd, relay.port, turn) for turn in range(max(1, options.rounds))]
        looks = [look(large) for _ in rounds]
    ours, tar = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other in rounds)
    body = circumstances() + f"\nMedian of {len(rounds)} rounds in rotation; {RTT_S * 1000:.0f} ms round trip time. "
    body += f"Load {os.getloadavg()[0]:.1f} at the end.\n\n"
    row = f"{FILES} files of {BYTES} bytes", f"{ours:.2f} s", f"{tar:.2f} s", f"{ratio:.2f}"
    body += table(
        ("results", "cloudtrain, verified and durable", "tar over ssh", f"ratio (<= {GOAL:g})"),
        [(*row[:3], f"{row[3]}: {'met' if ratio <= GOAL else 'missed'}")],
    )
    first, again = (statistics.median(times) for times in zip(*looks, strict=True))
    part, sizes = again / first, f"{FILES} files of {LARGE >> 20} MiB"
    body += "\n\nWhat the host takes to look at results, in a process of its own.\n\n"
    body += table(
        ("results", "first look, with hashes", "second look", f"part of it (<= {LOOK_GOAL:g})"),
        [(sizes, f"{first:.2f} s", f"{again:.2f} s", f"{part:.2f}: {'met' if part <= LOOK_GOAL else 'missed'}")],
    )
    say(body)
    if options.write:
        write_section("results", body)
    return int(ratio > GOAL or part > LOOK_GOAL)


def fill(folder: Path, size: int) -> None:
    """Put the results there."""
    for number in range(FILES):
        path = folder / f"{number // 100:03d}" / f"{number:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))


def look(run: Path) -> tuple[float, float]:
    """Seconds of the first look at what nobody has hashed, and of the next."""
    (run / "looked.json").unlink(missing_ok=True)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        argv = [sys.executable, "-I", "-S", str(run / "supervise.py"), "manifest", "--run", str(run)]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return times[0], times[1]


def measure(folder: Path, run: Path, sshd: Any, port: int, turn: int) -> tuple[float, float]:
    """Seconds of a pull, and of tar."""
    from cloudtrain.core.events import discard
    from cloudtrain.transfer.pull import pull
    from cloudtrain.transfer.supervisor import Supervisor
    from cloudtrain.transport.ssh import connect

    here, there = folder / f"ours-{turn}", folder / f"tar-{turn}"
    here.mkdir()
    there.mkdir()
    with connect(
        address="127.0.0.1", port=port, user=sshd.user, key=sshd.identity, host_key=sshd.host_key, timeout=20.0
    ) as transport:
        host = Supervisor(transport, sys.executable, str(run), str(folder / "host"))
        began = time.perf_counter()
        pull(host, host.manifest().files, here, emit=discard)
        ours = time.perf_counter() - began
    with shared_connection(folder / f"control-{turn}", sshd, port) as ssh:
        began = time.perf_counter()
        with subprocess.Popen([*ssh, f"tar -C '{run / 'out'}' -cf - ."], stdout=subprocess.PIPE) as packs:
            subprocess.run(["tar", "-C", str(there), "-xf", "-"], stdin=packs.stdout, check=True)
        tar = time.perf_counter() - began
    return ours, tar


@contextmanager
def shared_connection(control: Path, sshd: Any, port: int) -> Iterator[list[str]]:
    """The words before a command that runs over an open connection of OpenSSH."""
    given = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", f"ControlPath={control}")
    options = [word for option in given for word in ("-o", option)]
    ssh = ["ssh", "-F", "none", "-i", str(sshd.identity), "-p", str(port), *options, f"{sshd.user}@127.0.0.1"]
    with subprocess.Popen([*ssh[:-1], "-M", "-N", ssh[-1]]) as held:
        try:
            while not control.exists():
                time.sleep(0.02)
            yield ssh
        finally:
            held.terminate()


if __name__ == "__main__":
    entry(main)
