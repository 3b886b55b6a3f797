"""Leftovers: everything in a Region that carries our mark, whether it is safe to end, and its end, confirmed by state.

No local state is needed. What a registry knows of the runs is handed in, and only ever makes the judgement more careful
or more certain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from botocore.exceptions import ClientError

from cloudtrain.core.errors import CloudtrainError, ConnectionFailed
from cloudtrain.core.events import Emit, Event, Noted, StepDone, StepProgress, StepStarted
from cloudtrain.core.text import time_of_day
from cloudtrain.provider.ec2 import network, tags, trust
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end.release import terminate
from cloudtrain.provider.ec2.instances import ENDED, Item, inventory, state_of
from cloudtrain.provider.ec2.offer.prices import load
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import FOREIGN, Failure, code_of, failure_of, translate, translated

DAYS_A_MONTH = 30
PARALLEL = 8
# A machine has this long after the end of its lease to power itself off, and to park if it has something to lose.
OVERDUE_S = 600.0
# Instances that are up or coming up, and those that are parked: their disk alone is billed.
_PARKED = ("stopping", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a registry knows of a run.

    Attributes:
        tokens: marks of its launch attempts (tag `cloudtrain:token`).
        trained: training has begun, so its machine may hold what exists nowhere else.
        pulled: all that it made is on this computer, verified.
        ended: its story is over.
        busy: a command is acting on it now.
        kept_until: unix seconds until which its machine is kept on request, though the run is over; None: it is not.
    """

    run: str
    tokens: frozenset[str] = frozenset()
    trained: bool = False
    pulled: bool = False
    ended: bool = False
    busy: bool = False
    kept_until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One thing of ours in the account.

    Attributes:
        known: what the registry knows of its run; None: nothing.
        usd_per_hour: while it runs, with address and disk; of a spot instance at most. None: nothing, or not known.
        usd_per_month: of its disk for 30 days, which is all that a parked instance costs; None: no disk.
        safe: ending it loses nothing.
        why: the reason for that judgement, in words.
        loss: what is lost with it, human-readable; None: nothing.
        others: its mark is another person's, and no run of the registry has launched it.
    """

    item: Item
    region: str
    age_s: float | None = None
    usd_per_hour: float | None = None
    usd_per_month: float | None = None
    known: Known | None = None
    safe: bool = False
    why: str = ""
    loss: str | None = None
    others: bool = False

    @property
    def billed(self) -> bool:
        """Whether it costs anything."""
        return self.item.kind != "security group"

    @property
    def parked(self) -> bool:
        """Whether it is an instance that is stopped: its disk alone is billed."""
        return self.item.kind == "instance" and self.item.state in _PARKED


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one leftover.

    Attributes:
        gone: EC2 itself says so.
        told: its last known state, or why it is still there, in words.
    """

    leftover: Leftover
    gone: bool
    told: str
    error: CloudtrainError | None = None

    @property
    def may_cost(self) -> bool:
        """Whether it may still be billed."""
        return not self.gone and self.leftover.billed


def find(
    clients: Clients,
    known: Iterable[Known],
    now: float,
    *,
    mine: frozenset[str] | None = None,
    anyone: bool = False,
) -> list[Leftover]:
    """What of ours exists in the Region of `clients`, judged: instances first, then volumes, then security groups.

    Args:
        now: unix seconds.
        mine: marks of the caller (`tags.owners_of`); None: everything is taken for the caller's.
        anyone: what is another's is judged like one's own; else it is never safe to end.

    Raises:
        SignInError, ConnectionFailed: the Region could not be asked.
    """
    by_token = {token: run for run in known for token in run.tokens}
    items = [item for item in inventory(clients) if item.state not in ENDED]
    housed: dict[str, bool] = {}
    table = load(None if clients.loopback else clients.region)
    found = []
    for item in items:
        run = by_token.get(item.token)
        # Of a machine that was taken over, the tags may name the run before for a moment.
        item = replace(item, run=run.run) if run is not None else item
        others = run is None and tags.is_others(item.owner, mine)
        safe, why, loss = judge(item, run, housed, now)
        if others and not anyone:
            safe, why = False, f"another's, owner {item.owner}: --owner any judges it, too"
        if item.kind == "instance":
            housed[item.token] = housed.get(item.token, True) and safe
        found.append(
            Leftover(
                item=item,
                region=clients.region,
                age_s=None if item.created_at is None else max(0.0, now - item.created_at),
                usd_per_hour=item.hourly(table, clients.region),
                usd_per_month=item.size_gb * table.gp3_gb_month if item.size_gb else None,
                known=run,
                safe=safe,
                why=why,
                loss=loss,
                others=others,
            )
        )
    return found


def judge(item: Item, run: Known | None, housed: Mapping[str, bool], now: float) -> tuple[bool, str, str | None]:
    """Whether ending `item` loses nothing, why, and what is lost otherwise.

    Args:
        housed: tokens of the instances that exist, and whether ending those loses nothing.
    """
    name = item.run or item.id
    if run is not None and run.busy:
        return False, f"another command is acting on {name}", f"what {name} is doing" if run.trained else None
    if item.kind == "security group":
        if item.token in housed:
            return housed[item.token], "it goes with its instance", None
        return True, "no instance uses it", None
    if item.kind == "volume" and item.state != "available":
        return False, f"it is {item.state}, held by a machine that is not ours", f"what is on {item.id}"
    over = item.expires_at is not None and item.expires_at + OVERDUE_S <= now
    if run is not None:
        return _judge_known(item, run, name, over, now)
    if item.kind == "volume":
        if over and item.token not in housed:
            return True, "its run is over, no instance holds it", None
        return False, "no instance holds it, and its run is not known here", f"what is on {item.id}"
    return _judge_unknown(item, name, over)


def _judge_known(item: Item, run: Known, name: str, over: bool, now: float) -> tuple[bool, str, str | None]:
    """`judge` for the machine or volume of a run in the registry; `over`: its lease is."""
    if run.kept_until is not None and now < run.kept_until:
        at = time_of_day(run.kept_until, now)
        what = f"what was changed on it since {name} was pulled"
        return False, f"kept until {at} as you asked: cloudtrain stop {name} ends it now", what
    if run.ended and run.pulled:
        return True, "its run is over and pulled", None
    if not run.trained:
        return True, "its run ended before training began" if run.ended else "its run never began to train", None
    if run.pulled:
        return True, "its results are pulled", None
    how = "is parked" if item.state in _PARKED else "has trained" if over else "trains"
    return False, f"{name} {how} and is not pulled: cloudtrain pull {name}", f"the results of {name}"


def _judge_unknown(item: Item, name: str, over: bool) -> tuple[bool, str, str | None]:
    """`judge` for an instance whose run no registry here knows; `over`: its lease is."""
    if item.state in _PARKED:
        told = f"parked with its disk; not known here: cloudtrain adopt {item.id}"
        return False, told, f"the results of {name}, unless pulled elsewhere"
    if over:
        return True, "its lease is over", None
    return False, f"it may be training; not known here: cloudtrain adopt {item.id}", f"what {name} has trained"


def end(
    chosen: Sequence[Leftover],
    clients: Clients,
    emit: Emit,
    pace: Pace,
    *,
    told: Callable[[Ended], None] = lambda one: None,
) -> list[Ended]:
    """End `chosen`, all of the Region of `clients`. One failure does not stop the rest.

    Instances end side by side, and before what they hold.

    Args:
        told: called with each as soon as its fate is known; never by two threads at once.
    """
    lock = threading.Lock()

    def safely(event: Event) -> None:
        with lock:
            emit(event)

    def one(leftover: Leftover) -> Ended:
        began = time.monotonic()
        safely(StepStarted("end", f"{leftover.item.kind} {leftover.item.id}", pace.end))
        try:
            gone, state = _end_one(leftover, clients, safely, pace)
            ended = Ended(leftover, gone, state)
        except CloudtrainError as error:
            ended = Ended(leftover, False, error.message, error)
        with lock:
            if ended.gone:
                emit(
                    StepDone("end", f"{leftover.item.kind} {leftover.item.id}: {ended.told}", time.monotonic() - began)
                )
            told(ended)
        return ended

    # Made before the threads share it: the SDK's sessions are not safe to make clients in side by side.
    _ = clients.ec2
    ended: list[Ended] = []
    for kind in ("instance", "volume", "security group"):
        these = [leftover for leftover in chosen if leftover.item.kind == kind]
        # What a machine that goes on holds is not waited for.
        held = {o.leftover.item.token for o in ended if not o.gone and o.leftover.item.kind == "instance"} - {""}
        for leftover in [other for other in these if other.item.token in held]:
            these.remove(leftover)
            ended.append(Ended(leftover, False, "its instance goes on and uses it"))
            told(ended[-1])
        if these:
            with ThreadPoolExecutor(PARALLEL) as pool:
                try:
                    ended += pool.map(one, these)
                except BaseException:
                    safely(Noted("interrupted; waiting for what EC2 was told to end. Ctrl-C again leaves at once"))
                    raise
    for run in {
        o.leftover.known.run for o in ended if o.gone and o.leftover.known and o.leftover.item.kind == "instance"
    }:
        trust.forget(run)
    return ended


def _end_one(leftover: Leftover, clients: Clients, emit: Emit, pace: Pace) -> tuple[bool, str]:
    item = leftover.item
    match item.kind:
        case "instance":
            last = terminate(clients, item.id, emit, pace, launched_at=item.created_at)
            return True, state_of(last) if last else "EC2 no longer knows it"
        case "volume":
            return _delete_volume(clients, item, emit, pace)
    gone = network.delete_group(clients, item.id, pace)
    return gone, "deleted" if gone else f"something still uses it after {pace.group:.0f} s; it costs nothing"


def _delete_volume(clients: Clients, item: Item, emit: Emit, pace: Pace) -> tuple[bool, str]:
    """Delete a volume, waiting for the instance that held it to let go, until EC2 does not list it any more."""
    what = f"delete {item.id}"
    for gone in pace.polls(pace.group):
        try:
            clients.ec2.delete_volume(VolumeId=item.id)
            break
        except FOREIGN as error:
            if failure_of(error) is Failure.ABSENT:
                return True, "deleted"
            if code_of(error) not in ("VolumeInUse", "IncorrectState"):
                raise translate(error, what, profile=clients.profile, consequence="it is still billed") from error
            emit(StepProgress("end", f"{item.id} is still held", done=gone, total=pace.group, unit="s"))
    else:
        return False, f"still held after {pace.group:.0f} s"
    state = "deleting"
    for _ in pace.polls(pace.group):
        with translated(f"look up {item.id}", profile=clients.profile, consequence="it may still be billed"):
            try:
                volumes = clients.ec2.describe_volumes(VolumeIds=[item.id])["Volumes"]
            except ClientError as error:
                if failure_of(error) is Failure.ABSENT:
                    return True, "deleted"
                raise
        state = str(volumes[0].get("State", "")) if volumes else "deleted"
        # A volume that is being deleted is not billed any more, and cannot come back.
        if state in ("deleting", "deleted"):
            return True, "deleted"
    raise ConnectionFailed(f"{item.id} is still {state} after {pace.group:.0f} s", code="not_deleted")


def regions(clients: Clients) -> list[str]:
    """The Regions that the account has enabled.

    Raises:
        SignInError, ConnectionFailed: they could not be listed.
    """
    with translated("list the Regions", profile=clients.profile, consequence="nothing was changed"):
        answer = clients.ec2.describe_regions(
            Filters=[{"Name": "opt-in-status", "Values": ["opt-in-not-required", "opted-in"]}]
        )
    return sorted(str(row["RegionName"]) for row in answer["Regions"])
