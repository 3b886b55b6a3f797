"""The part of systemd that a lease needs, on a machine that has none: units, timers, and what `systemctl` answers.

What cloudtrain never asks of a real machine is refused.
"""

from __future__ import annotations

import asyncio
import configparser
import math
import shlex
import time
from collections.abc import Awaitable, Callable, Collection
from configparser import RawConfigParser as Unit
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_CALENDAR = "%Y-%m-%d %H:%M:%S UTC"
_UNREADABLE = (configparser.Error, ValueError, OSError)

Answer = tuple[int, str]


def calendar(text: str) -> float:
    """Unix time of an absolute `OnCalendar`. As in systemd 252, a `T` or a `Z` in it is refused.

    Raises:
        ValueError: it is not an absolute time in UTC.
    """
    return datetime.strptime(text, _CALENDAR).replace(tzinfo=UTC).timestamp()


def read_unit(path: Path) -> Unit:
    """Parse a unit file; of a key that stands there twice the last value counts.

    Raises:
        configparser.Error, ValueError, OSError: it is not one, or cannot be read.
    """
    unit = Unit(strict=False, delimiters=("=",), interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text(encoding="utf-8"), source=path.name)
    return unit


@dataclass(eq=False)
class Systemd:
    """The init system of one machine; lives in the machine's event loop.

    Args:
        root: the machine's file system; units lie in `etc/systemd/system` below it.
        execute: runs the command of a service as root and gives its exit status.
        power: told to power the machine off.
        reload_ssh: told to read the host keys again.
        log: adds a line to the journal.
        inhibited: whether something on the machine, as a package manager does, holds up a plain poweroff.
    """

    root: Path
    execute: Callable[[list[str]], Awaitable[int]]
    power: Callable[[], None]
    reload_ssh: Callable[[], None]
    log: Callable[[str], None]
    inhibited: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._booted = time.monotonic()
        self._folder = self.root / "etc" / "systemd" / "system"
        self._loaded: dict[str, Unit] = {}
        self._timers: dict[str, tuple[asyncio.Task[None], float]] = {}
        self._services: dict[str, asyncio.Task[None]] = {}

    def boot(self) -> None:
        """Load the units and start those that are enabled."""
        self._daemon_reload()
        for link in sorted(self._folder.glob("*.wants/*")):
            if link.name in self._loaded:
                self._start(link.name)

    async def stop_all(self) -> None:
        """Forget every timer and service; the machine goes down."""
        tasks = {*(task for task, _ in self._timers.values()), *self._services.values()} - {asyncio.current_task()}
        self._timers.clear()
        self._services.clear()
        await end_tasks(tasks)

    def timers(self) -> dict[str, float]:
        """Unix times at which those active timers elapse that go by the calendar and have not yet."""
        return {name: at for name, (_, at) in self._timers.items() if at < math.inf}

    def systemctl(self, words: list[str]) -> Answer:
        """What `systemctl WORDS` does: exit status and text."""
        # `--quiet` and `--no-block` change nothing that anybody here would notice.
        match [word for word in words if word not in ("--quiet", "--no-block")]:
            case ["poweroff"] if self.inhibited():
                self.log("systemd: poweroff refused: inhibited")
                return 1, "Call to PowerOff failed: Access denied\n"
            case ["poweroff"] | ["--check-inhibitors=no" | "--force", "poweroff"] | ["--force", "--force", "poweroff"]:
                self.log("systemd: poweroff requested")
                self.power()
            case ["daemon-reload"]:
                self._daemon_reload()
            case ["reload", "ssh" | "sshd"]:
                self.reload_ssh()
            case ["is-active", name]:
                return (0, "active\n") if self._active(name) else (3, "inactive\n")
            case ["enable" | "start" | "restart" as verb, _, *_] as named:
                return max(self._enable(name) if verb == "enable" else self._begin(verb, name) for name in named[1:])
            case _:
                return 1, f"an emulated machine does not understand: {shlex.join(words)}\n"
        return 0, ""

    def _daemon_reload(self) -> None:
        self._loaded.clear()
        for path in sorted([*self._folder.glob("*.service"), *self._folder.glob("*.timer")]):
            try:
                self._loaded[path.name] = read_unit(path)
            except _UNREADABLE as error:
                self.log(f"systemd: {path.name}: {error}")

    def _enable(self, name: str) -> Answer:
        try:
            wanted = read_unit(self._folder / name).get("Install", "WantedBy", fallback="")
        except _UNREADABLE as error:
            return 1, f"Failed to enable unit: {error}\n"
        for target in wanted.split():
            wants = self._folder / f"{target}.wants"
            wants.mkdir(exist_ok=True)
            (wants / name).write_text(name, encoding="utf-8")
        return 0, ""

    def _active(self, name: str) -> bool:
        service = self._services.get(name)
        return name in self._timers or (service is not None and not service.done())

    def _begin(self, verb: str, name: str) -> Answer:
        if name not in self._loaded:
            return 5, f"Failed to {verb} {name}: Unit {name} not found.\n"
        return self._start(name, anew=verb == "restart")

    def _start(self, name: str, *, anew: bool = False) -> Answer:
        if self._active(name) and not anew:
            return 0, ""
        if name.endswith(".service"):
            if name in self._services:
                self._services.pop(name).cancel()
            self._services[name] = asyncio.create_task(self._run(name))
            return 0, ""
        if name in self._timers:
            self._timers.pop(name)[0].cancel()
        unit = self._loaded[name]
        if unit.has_option("Timer", "OnUnitInactiveSec"):
            since_boot = unit.getfloat("Timer", "OnBootSec", fallback=0.0)
            again = unit.getfloat("Timer", "OnUnitInactiveSec")
            self._timers[name] = (asyncio.create_task(self._revive(name, since_boot, again)), math.inf)
            return 0, ""
        try:
            at = calendar(unit.get("Timer", "OnCalendar", fallback=""))
        except ValueError as error:
            return 1, f"Failed to start {name}: Unit {name} has a bad unit file setting: {error}\n"
        began = self._last_run(name) if unit.getboolean("Timer", "Persistent", fallback=False) else time.time()
        # One that is past stays active all the same, without a next time.
        lies_ahead = at >= began
        waits = self._wait(name, at) if lies_ahead else asyncio.sleep(0)
        self._timers[name] = (asyncio.create_task(waits), at if lies_ahead else math.inf)
        self.log(f"systemd: Started {name}, elapses {datetime.fromtimestamp(at, UTC):{_CALENDAR}}")
        return 0, ""

    def _last_run(self, name: str) -> float:
        """When a persistent timer ran last: as on real machines, its very first start counts as having run."""
        stamp = self.root / "var" / "lib" / "systemd" / "timers" / f"stamp-{name}"
        if not stamp.exists():
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()
            return time.time()
        return stamp.stat().st_mtime

    async def _wait(self, name: str, at: float) -> None:
        # By the wall clock in short steps: a computer that slept must fire at once when it wakes.
        while (left := at - time.time()) > 0:
            await asyncio.sleep(min(left, 1.0))
        self._timers[name] = (self._timers[name][0], math.inf)
        self._trigger(name)

    async def _revive(self, name: str, since_boot: float, again: float) -> None:
        """Start the timer's service so long after boot, and whenever it has been inactive for so long."""
        await asyncio.sleep(max(0.0, self._booted + since_boot - time.monotonic()))
        while True:
            if not self._active(_service_of(name)):
                self._trigger(name)
            await asyncio.sleep(again)

    def _trigger(self, name: str) -> None:
        service = _service_of(name)
        if service in self._loaded:
            self.log(f"systemd: {name} elapsed, starting {service}")
            self._start(service)
        else:
            self.log(f"systemd: {name} elapsed: Unit {service} not found")

    async def _run(self, name: str) -> None:
        unit = self._loaded[name]
        while True:
            if code := await self.execute(shlex.split(unit.get("Service", "ExecStart", fallback="false"))):
                self.log(f"systemd: {name}: main process exited, status={code}")
            if unit.get("Service", "Restart", fallback="no") != "always":
                return
            await asyncio.sleep(unit.getfloat("Service", "RestartSec", fallback=0.1))


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` until all have ended, for 10 s at most.

    Told more than once: a cancellation that meets a task in the moment its wait ends can be lost, and one that meets a
    program in the moment of its start waits for that program to end.
    """
    for _ in range(40):
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if not left:
            break
        await asyncio.wait(left, timeout=0.25)
    await asyncio.gather(*(task for task in tasks if task.done()), return_exceptions=True)


def _service_of(timer: str) -> str:
    """The service that a timer starts: the one of its name."""
    return timer.removesuffix(".timer") + ".service"
