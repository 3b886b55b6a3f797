"""The part of systemd that a lease needs, on a machine that has none: units, timers, and what `systemctl` answers."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import re
import shlex
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_SECONDS = {1: "s sec second seconds", 60: "m min minute minutes", 3600: "h hr hour hours", 86400: "d day days"}
_UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3} | {name: float(n) for n, names in _SECONDS.items() for name in names.split()}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")
_CALENDAR = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d(?::\d\d)?))?(?: UTC)?")

Exec = Callable[[list[str]], Awaitable[int]]
Answer = tuple[int, str]


def span(text: str) -> float:
    """Seconds of a systemd time span such as `90`, `5min 20s` or `2h`.

    Raises:
        ValueError: it is not one.
    """
    position, total, text = 0, 0.0, text.strip()
    while position < len(text):
        match = _SPAN.match(text, position)
        if not match or match[2] not in _UNITS:
            raise ValueError(f"{text!r} is not a time span")
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not text:
        raise ValueError("an empty time span")
    return total


def calendar(text: str) -> float:
    """Unix time of an absolute `OnCalendar`. As in systemd 252, a `T` or a `Z` in it is refused.

    Raises:
        ValueError: it is not an absolute time in UTC.
    """
    match = _CALENDAR.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not an absolute calendar time")
    return datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00:00'}").replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as last loaded: its sections, each a mapping of the last value of every key."""

    name: str
    sections: dict[str, dict[str, str]]

    def get(self, section: str, key: str, default: str = "") -> str:
        """The value of `key`, or `default`."""
        return self.sections.get(section, {}).get(key, default)


def read_unit(path: Path) -> Unit:
    """Parse a unit file.

    Raises:
        ValueError: it is not one.
    """
    parser = configparser.RawConfigParser(
        strict=False, delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except configparser.Error as error:
        raise ValueError(f"{path.name}: {error}") from error
    return Unit(path.name, {section: dict(parser.items(section)) for section in parser.sections()})


class Systemd:
    """The init system of one machine; lives in the machine's event loop.

    Args:
        root: the machine's file system; units lie in `etc/systemd/system` below it.
        execute: runs the command of a service as root and gives its exit status.
        power: told "poweroff", "reboot" or "halt".
        reload_ssh: told to read the host keys again.
        log: adds a line to the journal.
    """

    def __init__(
        self,
        root: Path,
        *,
        execute: Exec,
        power: Callable[[str], None],
        reload_ssh: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._folder = root / "etc" / "systemd" / "system"
        self._execute = execute
        self._power = power
        self._reload_ssh = reload_ssh
        self._log = log
        self._loaded: dict[str, Unit] = {}
        self._timers: dict[str, tuple[asyncio.Task[None], float]] = {}
        self._services: dict[str, asyncio.Task[int]] = {}
        self._failed: set[str] = set()

    def daemon_reload(self) -> None:
        """Read all unit files."""
        self._loaded.clear()
        for path in sorted(self._folder.glob("*.*")) if self._folder.is_dir() else ():
            if path.is_file():
                try:
                    self._loaded[path.name] = read_unit(path)
                except (ValueError, OSError) as error:
                    self._log(f"systemd: {error}")

    def boot(self) -> None:
        """Load the units and start those that are enabled."""
        self.daemon_reload()
        for link in sorted(self._folder.glob("*.wants/*")) if self._folder.is_dir() else ():
            if link.name in self._loaded and not self._active(link.name):
                self._start(link.name)

    async def stop_all(self) -> None:
        """Forget every timer and service; the machine goes down."""
        tasks = [task for task, _ in self._timers.values()] + list(self._services.values())
        self._timers.clear()
        self._services.clear()
        current = asyncio.current_task()
        for task in tasks:
            if task is not current:
                task.cancel()
        for task in tasks:
            if task is not current:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def timers(self) -> dict[str, float]:
        """Unix times at which active timers elapse."""
        return {name: at for name, (_, at) in self._timers.items()}

    def systemctl(self, words: list[str]) -> Answer:
        """What `systemctl WORDS` does: exit status and text."""
        flags = {w for w in words if w.startswith("-")}
        verb, *names = [w for w in words if not w.startswith("-")] or ["list-units"]
        if verb in ("poweroff", "reboot", "halt", "shutdown"):
            return self._go_down(verb, flags, names)
        if verb == "daemon-reload":
            self.daemon_reload()
            return 0, ""
        if verb == "list-timers":
            return 0, "".join(
                f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC {name}\n"
                for name, at in self.timers().items()
            )
        if verb == "is-system-running":
            return 0, "running\n"
        names = [n if "." in n else f"{n}.service" for n in names]
        if not names:
            return 1, "Too few arguments.\n"
        code, text = 0, ""
        for name in names:
            step, line = self._one(verb, name, flags)
            code, text = code or step, text + line
        return code, text

    def _one(self, verb: str, name: str, flags: set[str]) -> Answer:
        if name in ("ssh.service", "sshd.service", "ssh.socket"):
            if verb in ("reload", "restart", "reload-or-restart", "try-reload-or-restart"):
                self._reload_ssh()
            return 0, "active\n" if verb == "is-active" else ""
        if verb == "is-active":
            active = self._active(name)
            return (0, "active\n") if active else (3, "failed\n" if name in self._failed else "inactive\n")
        if verb == "is-enabled":
            return (0, "enabled\n") if any(self._folder.glob(f"*.wants/{name}")) else (1, "disabled\n")
        unit = self._loaded.get(name)
        if verb in ("enable", "disable"):
            return self._enable(verb, name, flags)
        if verb == "cat":
            path = self._folder / name
            return (0, path.read_text(encoding="utf-8")) if path.is_file() else (1, f"No files found for {name}.\n")
        if unit is None:
            return 5, f"Failed to {verb} {name}: Unit {name} not found.\n"
        if verb == "start":
            return self._start(name)
        if verb == "stop":
            self._stop(name)
            return 0, ""
        if verb in ("restart", "reload-or-restart", "try-restart"):
            self._stop(name)
            return self._start(name)
        if verb in ("status", "show"):
            return (0 if self._active(name) else 3), f"{name} active={'active' if self._active(name) else 'inactive'}\n"
        if verb == "reset-failed":
            self._failed.discard(name)
            return 0, ""
        return 1, f"Unknown command verb {verb}.\n"

    def _enable(self, verb: str, name: str, flags: set[str]) -> Answer:
        if verb == "disable":
            for link in self._folder.glob(f"*.wants/{name}"):
                link.unlink()
            if "--now" in flags:
                self._stop(name)
            return 0, ""
        try:
            unit = read_unit(self._folder / name)
        except FileNotFoundError:
            return 1, f"Failed to enable unit: Unit file {name} does not exist.\n"
        except ValueError as error:
            return 1, f"Failed to enable unit: {error}\n"
        wanted = unit.get("Install", "WantedBy").split()
        if not wanted:
            return 0, "The unit files have no installation config (WantedBy=, RequiredBy=, ...).\n"
        for target in wanted:
            wants = self._folder / f"{target}.wants"
            wants.mkdir(parents=True, exist_ok=True)
            (wants / name).write_text(name, encoding="utf-8")
        if "--now" in flags:
            self.daemon_reload()
            return self._start(name)
        return 0, ""

    def _active(self, name: str) -> bool:
        service = self._services.get(name)
        return name in self._timers or (service is not None and not service.done())

    def _stop(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name)[0].cancel()
        if name in self._services:
            self._services.pop(name).cancel()

    def _start(self, name: str) -> Answer:
        if self._active(name):
            return 0, ""
        unit = self._loaded[name]
        self._failed.discard(name)
        if name.endswith(".timer"):
            try:
                at = _elapses(unit, time.time())
            except ValueError as error:
                self._failed.add(name)
                return 1, f"Failed to start {name}: Unit {name} has a bad unit file setting: {error}\n"
            if at is not None:
                self._log(f"systemd: Started {name}, elapses {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC")
                self._timers[name] = (asyncio.create_task(self._wait(name, at)), at)
            return 0, ""
        self._services[name] = asyncio.create_task(self._run(unit))
        return 0, ""

    async def _wait(self, name: str, at: float) -> None:
        # By the wall clock in short steps: a computer that slept must fire at once when it wakes.
        while (left := at - time.time()) > 0:
            await asyncio.sleep(min(left, 1.0))
        self._timers.pop(name, None)
        target = self._loaded[name].get("Timer", "Unit") or name.removesuffix(".timer") + ".service"
        self._log(f"systemd: {name} elapsed, starting {target}")
        if target in self._loaded:
            self._start(target)
        else:
            self._log(f"systemd: {name}: Unit {target} not found")

    async def _run(self, unit: Unit) -> int:
        try:
            argv = shlex.split(unit.get("Service", "ExecStart").lstrip("-@:+!"))
        except ValueError as error:
            argv = []
            self._log(f"systemd: {unit.name}: {error}")
        code = await self._execute(argv) if argv else 203
        if code:
            self._failed.add(unit.name)
            self._log(f"systemd: {unit.name}: main process exited, status={code}")
        return code

    def _go_down(self, verb: str, flags: set[str], names: list[str]) -> Answer:
        if verb == "shutdown":
            if "-c" in flags:
                return 0, ""
            when = names[0] if names else "+1"
            if when not in ("now", "+0"):
                return 1, "shutdown: only `now` is understood here; use a timer that runs `systemctl poweroff`\n"
            verb = "reboot" if "-r" in flags else "poweroff"
        self._log(f"systemd: {verb} requested")
        self._power(verb)
        return 0, ""


def _elapses(unit: Unit, now: float) -> float | None:
    """When a timer started now elapses next: Unix time, or None for never.

    Raises:
        ValueError: a setting is not understood.
    """
    times = []
    if text := unit.get("Timer", "OnCalendar"):
        at = calendar(text)
        persistent = unit.get("Timer", "Persistent").lower() in ("true", "yes", "on", "1")
        if at >= now or persistent:
            times.append(at)
    for key in ("OnActiveSec", "OnBootSec", "OnStartupSec"):
        if text := unit.get("Timer", key):
            times.append(now + span(text))
    return min(times, default=None)
