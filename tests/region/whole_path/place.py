"""A place where runs train, and the command line as a user has it: real processes, real files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cloudtrain.console.pages import listing
from cloudtrain.store import Store
from tests import commands

if TYPE_CHECKING:  # an extra, and seconds to import
    from cloudtrain.emulator.region import Region

ROOT = Path(__file__).resolve().parents[3]
JOBS = Path(__file__).with_name("jobs")


@dataclass
class Place:
    """One target.

    Attributes:
        flags: what sends a run there.
        home: CLOUDTRAIN_HOME of the commands.
        cwd: where they are typed.
        environment: beside the usual one.
        after: checked after each run has ended.
    """

    name: str
    flags: list[str]
    home: Path
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)
    after: Callable[[], None] = lambda: None

    @classmethod
    def in_account(cls, region: Region, folder: Path) -> Self:
        """One whose account is `region`; it lies below `folder`."""
        (folder / "cwd").mkdir()
        return cls("emulated", ["--instance", "g4dn.xlarge"], folder / "home", folder / "cwd", region.environment())

    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "CLOUDTRAIN_HOME": str(self.home),
            **commands.EXPECTED,
            **self.environment,
        }

    def cli(self, *argv: str, code: int | None = 0, timeout: float = 120) -> subprocess.CompletedProcess[bytes]:
        """Run `cloudtrain ARGV` to its end, and check its exit code unless that is None."""
        done = commands.run(*argv, cwd=self.cwd, env=self.env(), timeout=timeout)
        told = done.stderr.decode(errors="replace")
        assert b"Traceback" not in done.stderr and b"Traceback" not in done.stdout, told
        told = told or done.stdout.decode(errors="replace")[-1000:]  # with --json an error is there
        assert code is None or done.returncode == code, f"exit {done.returncode}, not {code}:\n{told}"
        return done

    @contextlib.contextmanager
    def started(self, *argv: str) -> Iterator[commands.AnyCommand]:
        """`cloudtrain ARGV` as a process that goes on; killed at the end if it still does."""
        process = commands.start(*argv, cwd=self.cwd, env=self.env())
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate(timeout=30)

    def toy(self, name: str, *args: str, flags: tuple[str, ...] = ()) -> list[str]:
        """The command that runs the toy job; `args` go to the job."""
        return ["run", *self.flags, "--job", str(JOBS / "toy"), "--name", name, "--yes", *flags, "--", *args]

    def folder(self, name: str) -> Path:
        return self.cwd / "runs" / name

    def shown(self, name: str) -> dict[str, Any]:
        """What `show --json` says of the run, asked for without a process of its own."""
        return listing.record(Store(self.home / "state" / "registry.sqlite").get(name))

    def wait_for(self, what: Callable[[], bool], seconds: float = 60) -> None:
        """Until `what()`; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)

    def processes(self, name: str) -> dict[int, str]:
        """The run's processes on its host, which is this computer, by the mark in their environment: pid -> command."""
        # Other tests have runs of the same names at the same time; each has its own folder.
        root, found = str(self.home.parent), {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                marks = [part for part in environment if part.startswith(b"CLOUDTRAIN_RUN=")]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                # Its folder there is called after it, on a machine that it shares with the beginning of its id.
                folder = re.compile(rf"/runs/{re.escape(name)}(-[0-9a-f]{{8}})?( |$)")
                told = [*(mark.decode(errors="replace") for mark in marks), command if "_supervise" in command else ""]
                if any(folder.search(one) and root in one for one in told):
                    found[int(entry.name)] = command
        return found

    def supervisor(self, name: str) -> int:
        """Process id of the run's supervisor."""
        return next(pid for pid, command in self.processes(name).items() if "_supervise" in command)

    def cleanup(self) -> None:
        """End what tests of this place have left, by pid."""
        for name in [folder.name for folder in (self.cwd / "runs").glob("*")]:
            for pid in self.processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def left(region: Region) -> dict[str, Any]:
    """What exists in the account, by kind."""
    return {kind: rows for kind, rows in region.inventory().items() if rows}
