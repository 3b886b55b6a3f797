"""Crash points: the moments at which a killed command must leave nothing lost and nothing billed unseen.

`CLOUDTRAIN_CRASH_AT=K3` in the environment makes the process kill itself as by `kill -9` when it comes to K3,
`CLOUDTRAIN_CRASH_AT=K5:2` when it comes there for the second time. Nothing is cleaned up, flushed or said. Without the
variable a point costs one look-up in the environment.

It ships in the product and not in its tests: what is killed must be the very program that users have, installed as they
have it, from its first import on. A copy with other code in it would prove something about the copy. Anybody can so
check the promise on an account of their own, too: `cloudtrain clean` must find whatever the killed command left.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cloudtrain.core.errors import UsageError

VARIABLE = "CLOUDTRAIN_CRASH_AT"


@dataclass(frozen=True, slots=True)
class Point:
    """One crash point.

    Attributes:
        done: what has just happened when a command comes to it.
        passages: what distinguishes several passages of one launch, in order; one if it is empty.
        after_s: seconds from the passage to the end, for a point that lies inside a call.
    """

    done: str
    passages: tuple[str, ...] = ()
    after_s: float = 0.0


POINTS: Mapping[str, Point] = MappingProxyType(
    {
        "K0": Point("the run has its name, nothing else exists"),
        "K1": Point(
            "the intent is on the disk",
            ("who the attempt is, when it ends, what it trusts", "the whole launch request"),
        ),
        "K2": Point("the security group exists, its id is not on the disk"),
        "K3": Point("the launch request is sent, its answer has not come", after_s=0.5),
        "K4": Point("the answer has come, the instance's id is not on the disk"),
        "K5": Point("the instance's id is on the disk, it boots", ("told by the launch", "told by EC2: it runs")),
        "K6": Point("the job has started", ("the registry does not know it yet", "the registry knows it")),
        "K7": Point("the results are here, verified"),
        "K8": Point("the instance was told to end, that it did is not confirmed"),
        "K9": Point("a kept machine is to be taken over, its keys are copied"),
        "K10": Point("the registry has given it to the new run, nothing on it has changed"),
        "K11": Point("its tags name the new run and its end, its own timer has the old end"),
    }
)

_passed: dict[str, int] = {}


def point(name: str) -> None:
    """The command is at crash point `name`; it ends here if the environment says so.

    Raises:
        UsageError: the environment names a point that there is not.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    target, _, nth = wanted.partition(":")
    if target not in POINTS or not (nth or "1").isdigit():
        raise UsageError(
            f"{VARIABLE}={wanted} names no crash point",
            hint=f"unset {VARIABLE}, or one of: {', '.join(POINTS)}, each with :N for the N-th passage",
            consequence="this command did nothing more",
            code="bad_crash_point",
        )
    if target != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] != int(nth or 1):
        return
    after_s = POINTS[name].after_s
    if not after_s:
        _end()
    clock = threading.Timer(after_s, _end)
    clock.daemon = True
    clock.start()


def _end() -> None:
    """End this process at once, as by `kill -9`."""
    # Windows has no such signal: there SIGTERM is TerminateProcess, which is as sudden.
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    os._exit(137)
