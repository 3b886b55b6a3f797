"""One user with an empty home in front of an emulated region in which something goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtrain.emulator.faults import Fault, Faults
from cloudtrain.emulator.region import Region
from cloudtrain.run_folder.files import files_of_attempts
from cloudtrain.store import Run, Store
from tests import commands
from tests.region.whole_path.place import Place

if TYPE_CHECKING:
    from cloudtrain.emulator.machine.machine import Machine

NAME = "calm-otter"
JOBS = Path(__file__).with_name("jobs")
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][0-9A-B]|\r")


class Struck(Faults):
    """Faults that remember which of them was ever met."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[str] = set()

    def _find(self, name: str, action: str | None) -> Fault | None:
        found = super()._find(name, action)
        if found is not None:
            self.met.add(found.text)
        return found

    def no_capacity(self, zone: str, instance_type: str) -> bool:
        """As in `Faults`."""
        full = super().no_capacity(zone, instance_type)
        if full:
            self.met.update(fault.text for fault in self._faults if fault.kind.name == "capacity")
        return full


class KeptLogs:
    """The host's own logs, read at the moment at which a machine's disk is deleted."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[bytes, dict[str, Any]]] = {}
        from cloudtrain.emulator.machine.machine import Machine

        self._machines, self._destroy = Machine, Machine.destroy_disk

    def __enter__(self) -> KeptLogs:
        kept = self

        def destroy(machine: Machine) -> None:
            kept.read(machine.home)
            kept._destroy(machine)

        self._machines.destroy_disk = destroy  # type: ignore[method-assign]
        return self

    def __exit__(self, *exit_info: object) -> None:
        self._machines.destroy_disk = self._destroy  # type: ignore[method-assign]

    def read(self, home: Path) -> None:
        """Take what the runs of this machine have."""
        for log in home.glob("cloudtrain/runs/*/console.log"):
            record: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                record = json.loads((log.parent / "exit.json").read_bytes())
            self.found[str(log)] = (log.read_bytes(), record)


@dataclass
class Scene:
    """What a case plays on.

    Attributes:
        screen: everything that the commands have printed so far.
        last, code: what the last one that has ended has printed, and its exit code.
    """

    region: Region
    place: Place
    logs: KeptLogs
    hurried: bool = False
    screen: str = ""
    last: str = ""
    code: int | None = None
    _wanted: list[str] = field(default_factory=list)
    _calls_before: int = 0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._calls_before = len(self.region.calls())

    # -- the fault -----------------------------------------------------------------------------------------------------

    def inject(self, *script: str) -> None:
        """Have further faults strike from now on; a case in which one does not has proved nothing."""
        self.region.inject(*script)
        self._wanted += [text.strip() for entry in script for text in entry.split(",")]

    def unstruck(self) -> list[str]:
        """Ordered faults that nothing has met."""
        faults = self.region.faults
        assert isinstance(faults, Struck)
        return [text for text in self._wanted if text not in faults.met]

    def relayed(self) -> None:
        """From now on connections go through the relay, so that a later fault of the link meets those that are there.

        By a fault of it that never strikes: nothing here sends a terabyte.
        """
        self.region.inject("reset-push:1000000MB")

    # -- the user ------------------------------------------------------------------------------------------------------

    def cli(self, *argv: str, timeout: float = 100) -> str:
        """`cloudtrain ARGV` to its end; what it printed."""
        with self.started(*argv) as command:
            command.wait(timeout)
        return command.said

    def toy(self, *args: str, flags: tuple[str, ...] = (), job: Path | None = None) -> list[str]:
        """The command that runs the toy job, or another one; `args` go to the job."""
        told = self.place.toy(NAME, *args, flags=flags)
        if job is not None:
            told[told.index("--job") + 1] = str(job)
        return told

    def run(self, *args: str, flags: tuple[str, ...] = (), job: Path | None = None, timeout: float = 100) -> str:
        """`cloudtrain run` with that job, to its end."""
        return self.cli(*self.toy(*args, flags=flags, job=job), timeout=timeout)

    @property
    def program(self) -> str:
        """The module that is the command."""
        return "tests.region.faults.hurried" if self.hurried else "cloudtrain"

    @contextlib.contextmanager
    def started(self, *argv: str) -> Iterator[Command]:
        """`cloudtrain ARGV` as a process that goes on, and that has ended when the block ends."""
        path = self.place.home.parent / f"screen-{time.monotonic_ns()}"
        with path.open("wb") as screen:
            process = commands.start(
                *argv,
                module=self.program,
                cwd=self.place.cwd,
                env=self.place.env(),
                stdout=screen,
                stderr=subprocess.STDOUT,
            )
        command = Command(process, path)
        try:
            yield command
            command.wait(100)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(30)
            self.shown(command.said, process.returncode)

    def shown(self, text: str, code: int) -> None:
        """Take what a command has printed, and how it ended."""
        self.screen += text
        self.last = text
        self.code = code
        # The job's own is its user's business.
        assert not re.search(r'Traceback(.|\n)*File "[^"]*/cloudtrain/[a-z_0-9/]+\.py"', text), text

    def typed(self, argv: list[str], answers: list[tuple[str, str | int]], timeout: float = 100) -> None:
        """`cloudtrain ARGV` on a terminal.

        Args:
            answers: once these words are on the screen, that is typed, or that signal sent as the terminal does.
        """
        parent, child = pty.openpty()
        process = commands.start(
            *argv,
            module=self.program,
            cwd=self.place.cwd,
            env={**self.place.env(), "TERM": "xterm", "COLUMNS": "400", "LINES": "50"},
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        seen, waiting, deadline = b"", list(answers), time.monotonic() + timeout
        told = ""
        from_here = 0
        try:
            while time.monotonic() < deadline:
                if select.select([parent], [], [], 0.1)[0]:
                    try:
                        piece = os.read(parent, 65536)
                    except OSError:
                        break
                    if not piece:
                        break
                    seen += piece
                told = _ESCAPES.sub("", seen.decode(errors="replace"))
                if waiting and waiting[0][0] in told[from_here:]:
                    from_here = len(told)
                    _, what = waiting.pop(0)
                    if isinstance(what, int):
                        process.send_signal(what)
                    else:
                        os.write(parent, what.encode())
            process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)
            os.close(parent)
        assert not waiting, f"never on the screen: {waiting[0][0]!r}\n{told}"
        self.shown(told, process.returncode)

    def until(self, what: Callable[[], Any], seconds: float = 60) -> None:
        """Wait until `what()`."""
        self.place.wait_for(lambda: bool(what()), seconds)

    def here(self, size: int = 1) -> bool:
        """Whether so many bytes of the log have arrived."""
        log = self.log
        return log.exists() and log.stat().st_size >= size

    # -- what is there -------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.place.folder(NAME)

    @property
    def log(self) -> Path:
        return self.folder / "console.log"

    @property
    def row(self) -> Run:
        """What the registry says of the run."""
        return Store(self.place.home / "state" / "registry.sqlite").get(NAME)

    def calls(self, action: str | None = None) -> list[dict[str, Any]]:
        """AWS calls of this case."""
        found = self.region.calls()[self._calls_before :]
        return [call for call in found if action in (None, call["action"])]

    def machine(self) -> Machine:
        """The one machine of this case that lives."""
        live = {row["id"] for row in self.region.inventory()["instances"]}
        (machine,) = [one for key, one in self.region.core.lives.machines.items() if key in live]
        return machine

    def instance(self) -> Any:
        """EC2's own record of the one instance of this case that lives."""
        from moto.ec2.models import ec2_backends

        found = ec2_backends[self.region.account][self.region.name].all_instances()
        (instance,) = [one for one in found if one.state != "terminated"]
        return instance

    @property
    def seconds(self) -> float:
        """How long the case has taken."""
        return time.monotonic() - self._began

    def check_log(self, how: str) -> None:
        """Hold the log here against the host's own file.

        Args:
            how: as in `Case.log`.
        """
        for machine in list(self.region.core.lives.machines.values()):
            self.logs.read(machine.home)
        on_hosts = {key: kept for key, kept in self.logs.found.items() if str(self.region.folder) in key}
        if not how:
            assert not on_hosts, "something has trained"
            return
        ours = files_of_attempts(self.folder, "console.log")
        if how == "any":
            return
        assert len(on_hosts) == len(ours), f"{len(on_hosts)} machines have trained, {len(ours)} logs are here"
        for path, (theirs, record) in zip(ours, on_hosts.values(), strict=True):
            data = path.read_bytes() if path.exists() else b""
            if how == "part":
                assert theirs.startswith(data), f"{len(data)} bytes here are not the host's first"
                continue
            digest = hashlib.sha256(data).hexdigest()
            assert digest == hashlib.sha256(theirs).hexdigest(), f"{len(data)} bytes here, {len(theirs)} on the host"
            assert record.get("log_sha256") == digest and record["log_bytes"] == len(data)


class Command:
    """A command that goes on."""

    def __init__(self, process: commands.AnyCommand, path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._path.read_bytes().decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Until it has ended; its exit code.

        Raises:
            AssertionError: it has not within `timeout` seconds.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on after {timeout:.0f} s:\n{self.said}") from None


def after(seconds: float, act: Callable[[], object]) -> threading.Timer:
    """Do `act` in a while, beside what goes on; it has begun."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
