"""A running region: what its parts share, the timed states of its instances, and the machine under each."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloudtrain.emulator.aws.replies import ApiError
from cloudtrain.emulator.faults import Faults
from cloudtrain.emulator.machine.machine import Machine, Surroundings
from cloudtrain.emulator.machine.systemd import end_tasks

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
PORT_TAG = "emulator:ssh-port"
USER_INITIATED = ("Client.UserInitiatedShutdown", "User initiated shutdown")
INSTANCE_INITIATED = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
SPOT_TERMINATION = ("Server.SpotInstanceTermination", "Spot instance termination")
INTERNAL = ("Server.InternalError", "Internal error on launch")


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
    lives: TimedLifecycle = field(init=False)
    opened: float = 0.0
    replayed: threading.local = field(default_factory=threading.local)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do `act` in the event loop, now or after a while; forgotten when the region closes."""
        if seconds <= 0:
            self.loop.call_soon_threadsafe(act)
        else:
            self.loop.call_soon_threadsafe(lambda: self.loop.call_later(seconds, act))


class TimedLifecycle:
    """Moves instances through their states: what EC2 does between two API calls.

    Entered from API threads under the region's lock; acts in its loop.

    Attributes:
        machines: by the id of the instance.
    """

    def __init__(self, core: Core, changed: Callable[[], None]) -> None:
        self._core = core
        self._changed = changed
        self.machines: dict[str, Machine] = {}
        self._ends: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    # -- from the API -------------------------------------------------------------------------------------------------

    def launched(self, instance: Any) -> None:
        """A new instance is pending."""
        instance.born = time.monotonic()
        self._enter(instance, "pending")
        refused = self._core.faults.take("refused-pending")
        if refused or self._core.faults.take("dies-pending"):
            why = (refused.values[0], f"{refused.values[0]}: Client error on launch") if refused else INTERNAL
            self._core.later(self._core.timing.pending_s, lambda: self.terminate(instance, why))
        elif not self._core.faults.take("stays-pending"):
            self._then_running(instance)

    def start(self, instance: Any) -> None:
        """StartInstances.

        Raises:
            ApiError: the instance cannot be started in its state.
        """
        if instance.state in ("running", "pending"):
            return
        if instance.state != "stopped":
            raise _wrong_state(instance, "started")
        instance.set_reason(None)
        instance.launch_time = datetime.now(UTC)
        self._enter(instance, "pending")
        self._then_running(instance)

    def stop(self, instance: Any, why: tuple[str, str] = USER_INITIATED) -> None:
        """StopInstances, or a shutdown from within.

        Raises:
            ApiError: the instance cannot be stopped in its state, or is a one-time spot instance.
        """
        if instance.state in ("stopping", "stopped"):
            return
        if instance.state != "running":
            raise _wrong_state(instance, "stopped")
        if instance.lifecycle == "spot":
            raise ApiError(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time Spot "
                "Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
            )
        self._enter(instance, "stopping", why)
        self._spawn(self._down(instance, "stopped", self._core.timing.stopping_s))

    def terminate(self, instance: Any, why: tuple[str, str] = USER_INITIATED) -> None:
        """TerminateInstances, or whatever else ends an instance. Safe to repeat."""
        with self._core.lock:
            if instance.state in ("shutting-down", "terminated"):
                return
            self._enter(instance, "shutting-down", why)
        self._spawn(self._down(instance, "terminated", self._core.timing.shutting_down_s))

    def reboot(self, instance: Any) -> None:
        """RebootInstances: the state stays running."""
        if instance.state != "running":
            raise _wrong_state(instance, "rebooted")
        self._spawn(self._reboot(instance))

    def let_in(self, instance_id: str, key: str) -> None:
        """EC2 Instance Connect: the machine accepts `key` for 60 s.

        Raises:
            ApiError: it is not running.
        """
        machine = self.machines.get(instance_id)
        if machine is None or machine.sshd is None:
            raise ApiError("EC2InstanceNotFoundException", f"{instance_id} is not running.", 404)
        machine.sshd.let_in(key, 60.0)

    def console(self, instance: Any) -> str:
        """Console output so far."""
        machine = self.machines.get(instance.id)
        return machine.console if machine else ""

    # -- in the event loop --------------------------------------------------------------------------------------------

    def _then_running(self, instance: Any) -> None:
        epoch = instance.epoch
        self._core.later(self._core.timing.pending_s, lambda: self._running(instance, epoch))

    def _running(self, instance: Any, epoch: int) -> None:
        with self._core.lock:
            if instance.epoch != epoch or self._closed:
                return
            machine = self.machines.get(instance.id)
            if machine is None:
                machine = self.machines[instance.id] = Machine(self._surroundings(instance))
            address, port = machine.reserve()
            instance.wants_address &= self._core.faults.find("no-public-ip") is None
            instance.set_address(address)
            instance.add_tags({PORT_TAG: str(port)})
            self._enter(instance, "running")
            epoch = instance.epoch
        machine.start()
        self._plan_mishaps(instance, epoch)

    def _plan_mishaps(self, instance: Any, epoch: int) -> None:
        faults = self._core.faults

        def while_it_lasts(act: Callable[[], object]) -> Callable[[], None]:
            def guarded() -> None:
                if instance.epoch == epoch:
                    act()

            return guarded

        if fault := faults.find("terminated"):
            self._core.later(fault.number(0, 0), while_it_lasts(lambda: self.terminate(instance)))
        if fault := faults.take("reboot"):
            self._core.later(fault.number(0, 0), while_it_lasts(lambda: self.reboot(instance)))
        if instance.lifecycle == "spot" and (fault := faults.take("spot-notice")):
            lead = fault.number(1, self._core.timing.spot_lead_s)
            self._core.later(fault.number(0, 0), while_it_lasts(lambda: self._notice(instance, lead, while_it_lasts)))

    def _notice(self, instance: Any, lead: float, guard: Callable[[Callable[[], object]], Callable[[], None]]) -> None:
        self._ends[instance.id] = time.time() + lead
        self._core.later(lead, guard(lambda: self.terminate(instance, SPOT_TERMINATION)))

    def _enter(self, instance: Any, state: str, why: tuple[str, str] | None = None) -> None:
        with self._core.lock:
            instance.epoch += 1
            instance._state.name, instance._state.code = state, STATES[state]
            instance.history.append((state, time.time()))
            instance.marks |= instance.ec2_backend.tags.get(instance.id, {})
            if why is not None:
                instance.set_reason(why)
        self._changed()

    def _spawn(self, act: Coroutine[Any, Any, None]) -> None:
        def begin() -> None:
            if self._closed:
                act.close()
                return
            task = self._core.loop.create_task(act)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._core.loop.call_soon_threadsafe(begin)

    async def _down(self, instance: Any, state: str, at_least: float) -> None:
        epoch, machine = instance.epoch, self.machines.get(instance.id)
        pause = asyncio.create_task(asyncio.sleep(at_least))
        if machine is not None:
            await machine.go_down()
        await pause
        with self._core.lock:
            if instance.epoch != epoch:
                return
            instance.set_address(None)
            instance.drop_tag(PORT_TAG)
            if state == "terminated":
                keep_disk = any(not block.delete_on_termination for _, block in instance.get_block_device_mapping)
                instance.release()
                if machine is not None and not keep_disk:
                    machine.destroy_disk()
                self._ends.pop(instance.id, None)
                self._core.later(self._core.timing.tags_fade_s, instance.fade)
                self._core.later(self._core.timing.forget_s, lambda: self._forget(instance))
        self._enter(instance, state)

    def _forget(self, instance: Any) -> None:
        with self._core.lock:
            instance.vanish()
            self.machines.pop(instance.id, None)
        self._changed()

    async def _reboot(self, instance: Any) -> None:
        machine = self.machines.get(instance.id)
        if machine is None or machine.sshd is None:
            return
        port = machine.sshd.port
        await machine.go_down()
        if instance.state == "running":
            machine.reserve(port=port)
            machine.start()

    def _power(self, instance: Any) -> None:
        """The machine powers itself off; called in the event loop."""
        if instance.state != "running":
            return
        if instance.lifecycle == "spot" or instance.instance_initiated_shutdown_behavior == "terminate":
            self.terminate(instance, INSTANCE_INITIATED)
        else:
            with self._core.lock:
                self.stop(instance, INSTANCE_INITIATED)

    async def close(self) -> None:
        """Take every machine down at once; the region ends. Nothing starts any more from here on."""
        self._closed = True
        await end_tasks(list(self._tasks))
        for machine in list(self.machines.values()):
            with contextlib.suppress(TimeoutError):
                await machine.go_down(grace=0)
            machine.destroy_disk()
        # What is left are sessions that waited for a program which outlived their connection.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=5.0)

    def _surroundings(self, instance: Any) -> Surroundings:
        core = self._core
        return Surroundings(
            id=instance.id,
            mark=f"{core.mark}/{instance.id}",
            root=core.folder / "machines" / instance.id,
            user=instance.login_user,
            user_data=instance.user_data_bytes,
            key_pair=instance.key_material(),
            pages=lambda: self._pages(instance),
            tokens_required=lambda: bool(instance.metadata_options.http_tokens == "required"),
            admits=lambda peer: self._admits(instance, peer),
            power=lambda: self._power(instance),
            extra=core.extra,
            faults=core.faults,
            boot_s=core.timing.boot_s,
            grace_s=core.timing.grace_s,
        )

    def _admits(self, instance: Any, peer: str) -> bool:
        moved = self._core.faults.find("caller-moves")
        if moved is not None and time.monotonic() - self._core.opened > moved.number(0, 0):
            peer = "203.0.113.7"
        return bool(instance.admits(peer, 22))

    def _pages(self, instance: Any) -> Mapping[str, str]:
        pages = {
            "meta-data/instance-id": instance.id,
            "meta-data/instance-type": instance.instance_type,
            "meta-data/ami-id": instance.image_id,
            "meta-data/instance-life-cycle": "spot" if instance.lifecycle == "spot" else "on-demand",
            "meta-data/local-ipv4": instance.private_ip or "",
            "meta-data/placement/availability-zone": instance.availability_zone,
            "meta-data/placement/region": instance.ec2_backend.region_name,
        }
        if instance.public_ip:
            pages["meta-data/public-ipv4"] = instance.public_ip
        if data := instance.user_data_bytes():
            pages["user-data"] = data.decode(errors="replace")
        if end := self._ends.get(instance.id):
            at = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            pages["meta-data/spot/instance-action"] = f'{{"action": "terminate", "time": "{at}"}}'
            pages["meta-data/spot/termination-time"] = at
            told = (datetime.fromtimestamp(end, UTC) - timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")
            pages["meta-data/events/recommendations/rebalance"] = f'{{"noticeTime": "{told}"}}'
        return pages


def _wrong_state(instance: Any, done: str) -> ApiError:
    return ApiError(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {done} (it is {instance.state}).",
    )
