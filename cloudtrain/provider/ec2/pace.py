"""How long each wait on EC2 may take, and the clock it is measured by."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Deadlines and pauses, all in seconds; tests hand in short ones.

    Attributes:
        poll: between two looks at the same thing, once some have been made; the first come sooner.
        send: for all attempts of one launch request.
        backoff: first pause after a throttled or broken call; doubled each time, with jitter.
        settle: how long a launch whose answer was lost may take to show up by its tags.
        visible: how long a new instance may be unknown to DescribeInstances (EC2 is eventually consistent).
        pending: from the launch to `running`.
        boot: from `running` to the first login. Large images load their disk on first read: 40 to 150 s is usual.
        auth: how long a machine that answers may refuse our key: logins are closed until its boot has finished.
        end: from TerminateInstances to `terminated`.
        group: for the security group to come free after that.
    """

    poll: float = 2.0
    send: float = 240.0
    backoff: float = 1.0
    settle: float = 20.0
    visible: float = 60.0
    pending: float = 300.0
    boot: float = 600.0
    auth: float = 60.0
    end: float = 300.0
    group: float = 120.0
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def booting_within(self, seconds: float) -> Pace:
        """The same, with a boot that takes `seconds` at most; its parts, `pending` and `auth`, no longer either."""
        return replace(self, boot=seconds, pending=min(self.pending, seconds), auth=min(self.auth, seconds))

    def polls(self, within_s: float) -> Iterator[float]:
        """Seconds gone so far: once at once, then after growing pauses while less than `within_s` seconds have gone."""
        began = self.clock()
        pause = min(0.4, self.poll)
        while True:
            yield self.clock() - began
            if self.clock() - began + pause > within_s:
                return
            self.sleep(pause)
            pause = min(pause * 1.4, self.poll)

    def backoffs(self, within_s: float) -> Iterator[int]:
        """Number of the attempt, after ever longer pauses with jitter: two at least, more while `within_s` last."""
        began = self.clock()
        pause = self.backoff
        attempt = 1
        while True:
            yield attempt
            wait = pause * random.uniform(0.5, 1.5)
            if attempt > 1 and self.clock() - began + wait > within_s:
                return
            self.sleep(wait)
            pause = min(pause * 2, 20.0)
            attempt += 1
