"""What the parts of a running region share: its settings, its lock, its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloudtrain.emulator.faults import Faults
from cloudtrain.emulator.machine.machine import Machine


class Lifecycle(Protocol):
    """The timed states of instances, as EC2's calls see them; what each raises stands in `lifecycle.TimedLifecycle`.

    Attributes:
        machines: by the id of the instance.
    """

    machines: dict[str, Machine]

    def launched(self, instance: Any) -> None:
        """A new instance is pending."""

    def start(self, instance: Any) -> None:
        """StartInstances."""

    def stop(self, instance: Any) -> None:
        """StopInstances."""

    def terminate(self, instance: Any) -> None:
        """TerminateInstances."""

    def reboot(self, instance: Any) -> None:
        """RebootInstances."""

    def let_in(self, instance_id: str, key: str) -> None:
        """EC2 Instance Connect."""

    def console(self, instance: Any) -> str:
        """Console output so far."""

    async def close(self) -> None:
        """Take every machine down at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things take, in seconds. EC2 itself: 5 to 10 s pending, 40 to 150 s until sshd of a GPU image answers.

    Attributes:
        pending_s: launch or start until running; `boot_s`: running until sshd listens.
        stopping_s, shutting_down_s: at least; a program that ignores SIGTERM adds `grace_s`.
        forget_s: how long a terminated instance can be described; `tags_fade_s`: how long it keeps its tags.
        spot_lead_s: from a spot notice to the end.
    """

    pending_s: float = 0.2
    boot_s: float = 0.2
    stopping_s: float = 0.2
    shutting_down_s: float = 0.2
    grace_s: float = 2.0
    forget_s: float = 3600.0
    tags_fade_s: float = 1800.0
    spot_lead_s: float = 120.0


@dataclass(slots=True)
class Core:
    """The region as its own parts see it.

    Attributes:
        account: AWS account number, one for each region object, so that several can share moto's global state.
        mark: start of the mark that every process of its machines carries.
        lock: held while moto's state is read or changed by more than one step.
        lives: the timed states and the machines.
    """

    folder: Path
    account: str
    mark: str
    faults: Faults
    timing: Timing
    quotas: dict[str, float]
    extra: Mapping[str, str]
    loop: asyncio.AbstractEventLoop
    lock: threading.RLock = field(default_factory=threading.RLock)
    tokens: dict[tuple[str, str, str | None], tuple[str, Any]] = field(default_factory=dict)
    lives: Lifecycle = field(init=False)
    opened: float = 0.0
    replayed: threading.local = field(default_factory=threading.local)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do `act` in the event loop, now or after a while; forgotten when the region closes."""
        if seconds <= 0:
            self.loop.call_soon_threadsafe(act)
        else:
            self.loop.call_soon_threadsafe(lambda: self.loop.call_later(seconds, act))
