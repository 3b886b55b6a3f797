"""The script language of faults: what can go wrong in the emulated region, by name.

    NAME[:VALUE[:VALUE]][@ACTION[:TIMES]]

    capacity:us-east-1a                      RequestLimitExceeded:3@RunInstances
    capacity:*:g4dn.xlarge                   lost-response@RunInstances
    slow-boot:90s                            html500@DescribeInstances:2

Several faults are several texts, or one text with commas. TABLE is the whole language; `describe()` prints it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from cloudtrain.core.errors import UsageError

FOREVER = 1 << 30

_BY_STATUS = {
    400: "VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded SpotMaxPriceTooLow "
    "UnfulfillableCapacity Unsupported InsufficientFreeAddressesInSubnet ReservationCapacityExceeded "
    "IdempotentParameterMismatch InvalidInstanceID.NotFound InvalidAMIID.NotFound InvalidParameterCombination "
    "InvalidParameterValue DependencyViolation IncorrectInstanceState OperationNotPermitted ThrottlingException "
    "ExpiredToken RequestExpired VPCIdNotSpecified VolumeLimitExceeded PendingVerification AccessDeniedException",
    401: "AuthFailure",
    403: "UnauthorizedOperation AccessDenied OptInRequired Blocked SignatureDoesNotMatch",
    429: "TooManyRequestsException",
    500: "InternalError ServerInternal InsufficientInstanceCapacity",
    503: "RequestLimitExceeded Unavailable ServiceUnavailable",
}
STATUS = {code: status for status, codes in _BY_STATUS.items() for code in codes.split()}
"""Error codes that can be ordered by name, with their HTTP status (500 and 503 matter: SDKs retry those)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the language.

    Attributes:
        name: as written.
        values: how its values are written, in words.
        needs, most: how many values it takes; `numbers`: which of them are seconds, bytes or times.
        action: whether `@ACTION` may follow ("may", "must" or "no").
        times: how often it strikes when nothing is said.
        matrix: rows of the fault matrix in docs/faults.md that it plays.
    """

    name: str
    values: str
    meaning: str
    matrix: tuple[int, ...] = ()
    needs: int = 1
    most: int = 1
    numbers: tuple[int, ...] = (0,)
    action: str = "no"
    times: int = FOREVER


_KINDS = (
    Kind("capacity", "ZONE|*[:TYPE]", "no free instance there (InsufficientInstanceCapacity, HTTP 500)", (1, 2),
         most=2, numbers=()),
    Kind("quota", "VCPUS",
         "every GPU quota is so many vCPUs (VcpuLimitExceeded, MaxSpotInstanceCountExceeded)", (3, 4)),
    Kind("error", "CODE[:TIMES]@ACTION",
         "the call is refused with this AWS error; CODE alone is enough", (5, 10, 11, 40),
         most=2, numbers=(1,), action="must"),
    Kind("lost-response", "@ACTION[:TIMES]", "the call takes effect, the connection closes without an answer", (7, 8),
         needs=0, most=0, action="must", times=1),
    Kind("internal-after-effect", "@ACTION[:TIMES]",
         "the call takes effect, the answer is InternalError (HTTP 500)", (6, 8),
         needs=0, most=0, action="must", times=1),
    Kind("html500", "@ACTION[:TIMES]", "the answer is a page of HTML with HTTP 500, without effect", (50,),
         needs=0, most=0, action="must", times=1),
    Kind("slow-api", "SECONDS@ACTION[:TIMES]", "the answer comes after so long", action="may"),
    Kind("not-found", "SECONDS",
         "a new instance cannot be described for so long (InvalidInstanceID.NotFound)", (12,)),
    Kind("dies-pending", "[TIMES]", "an instance goes from pending to terminated", (13,), needs=0, times=1),
    Kind("refused-pending", "CODE[:TIMES]",
         "an instance goes from pending to terminated for this reason of the account (Client.InternalError)", (51,),
         most=2, numbers=(1,), times=1),
    Kind("stays-pending", "[TIMES]", "an instance never leaves pending", (14,), needs=0),
    Kind("slow-boot", "SECONDS", "running, but port 22 is closed for so long", (15,)),
    Kind("no-banner", "[SECONDS]", "port 22 is open and silent, for so long or for ever", (16,), needs=0),
    Kind("auth-refused", "SECONDS", "sshd refuses every key for so long after it listens", (17,)),
    Kind("wrong-host-key", "", "sshd presents a key that nobody told", (18,), needs=0, most=0),
    Kind("host-key-changes-on-reconnect", "",
         "the first login sees the right host key, later ones another", (19,),
         needs=0, most=0),
    Kind("caller-moves", "SECONDS",
         "after so long your connections come from 203.0.113.7, which no rule allows", (20,)),
    Kind("reset-push", "BYTES[:TIMES]", "the connection is reset once you sent so many bytes on it", (21,),
         most=2, numbers=(0, 1), times=1),
    Kind("disk-full", "BYTES",
         "no file on the machine can grow beyond so many bytes (EFBIG; ENOSPC needs root)", (22,)),
    Kind("inhibited", "", "a package manager on the machine holds up `systemctl poweroff` (Access denied)",
         needs=0, most=0),
    Kind("cut", "BYTES[:TIMES]", "the connection is reset once the machine sent so many bytes on it", (23, 37),
         most=2, numbers=(0, 1), times=1),
    Kind("freeze", "SECONDS[:BYTES]", "once BYTES (20000) came from the machine its connection is mute so long",
         (24,), most=2, numbers=(0, 1), times=1),
    Kind("sshd-dies", "SECONDS[:SECONDS]",
         "so long after boot sshd ends, for so long or for ever; programs go on", (33,),
         most=2, numbers=(0, 1)),
    Kind("terminated", "SECONDS", "somebody terminates the instance so long after it runs", (34,)),
    Kind("spot-notice", "SECONDS[:SECONDS[:TIMES]]",
         "so long after it runs a spot instance hears of its end so long (120) on; one instance, or so many",
         (35,), most=3, numbers=(0, 1, 2), times=1),
    Kind("reboot", "SECONDS", "the machine reboots so long after it runs, once", (36,), times=1),
    Kind("clock-skew", "", "your clock is ten minutes behind (RequestExpired, SignatureDoesNotMatch)", (45,),
         needs=0, most=0),
    Kind("ssm-missing", "",
         "from the start there are no Deep Learning parameters (ParameterNotFound)", (46,), needs=0, most=0),
    Kind("ssm-denied", "", "reading parameters is not allowed (AccessDeniedException)", (46,), needs=0, most=0),
    Kind("no-default-vpc", "", "from the start the Region has no default VPC", (48,), needs=0, most=0),
    Kind("no-public-ip", "", "from the start subnets give instances no public address", (48,), needs=0, most=0),
    Kind("tags-demanded", "KEY[:KEY]",
         "an organization's policy denies each launch whose instance, volume or network interface lacks such a tag",
         most=2, numbers=()),
    Kind("default-key", "KEY", "from the start new disks are encrypted with this key",
         numbers=()),
    Kind("expired-token", "[SECONDS]", "credentials expire at once, or after so long", (49,), needs=0),
    Kind("bad-credentials", "", "the access key is unknown to AWS", (45,), needs=0, most=0),
)  # fmt: skip
TABLE: dict[str, Kind] = {kind.name: kind for kind in _KINDS}

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|k|kb|kib|mb|mib|b)?", re.IGNORECASE)
_SCALE = {"": 1, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_SCALE |= {"b": 1, "k": 1e3, "kb": 1e3, "kib": 1024, "mb": 1e6, "mib": 1 << 20}


@dataclass(slots=True)
class Fault:
    """One fault in force; `left` counts down."""

    kind: Kind
    values: tuple[str, ...]
    action: str | None
    left: int
    text: str

    def number(self, index: int, default: float) -> float:
        """The value at `index` in seconds or bytes."""
        return _number(self.values[index]) if index < len(self.values) else default


def describe() -> list[tuple[str, str, tuple[int, ...]]]:
    """The language as rows: how it is written, what it means, rows of the fault matrix."""
    return [(describe_one(kind), kind.meaning, kind.matrix) for kind in TABLE.values()]


def describe_one(kind: Kind) -> str:
    """`kind` as it is written."""
    if kind.values.startswith("["):
        return f"{kind.name}[:{kind.values[1:]}"
    return f"{kind.name}{'' if kind.values.startswith('@') or not kind.values else ':'}{kind.values}"


def parse(texts: Iterable[str]) -> list[Fault]:
    """Faults of a script.

    Raises:
        UsageError: naming the first text that is not one, and what exists.
    """
    return [_parse_one(part.strip()) for text in texts for part in text.split(",") if part.strip()]


def _parse_one(text: str) -> Fault:
    head, at, tail = text.partition("@")
    name, *values = head.split(":")
    action, _, count = tail.partition(":")
    if name in STATUS:
        name, values = "error", [name, *values]
    kind = TABLE.get(name)
    if kind is None:
        raise _refuse(f"there is no fault {name!r}", text)
    if not kind.needs <= len(values) <= kind.most or not all(values):
        raise _refuse(f"the fault {text!r} is not complete: {describe_one(kind)}", text)
    for index in kind.numbers:
        if index < len(values) and not _NUMBER.fullmatch(values[index]) and values[index] != "*":
            raise _refuse(f"{values[index]!r} in {text!r} is not a number: {describe_one(kind)}", text)
    if name == "error" and values[0] not in STATUS:
        raise _refuse(f"{values[0]!r} is not an AWS error known here", text, names=sorted(STATUS))
    if (kind.action == "must" and not action) or (kind.action == "no" and at) or (at and not action):
        raise _refuse(
            f"the fault {text!r} {'names no call' if kind.action != 'no' else 'takes no call'}: {describe_one(kind)}",
            text,
        )
    times = kind.times
    counted = count or _count_value(kind, values)
    if counted:
        if counted != "*" and (not counted.isdigit() or counted == "0"):
            raise _refuse(f"{counted!r} in {text!r} is not a number of times", text)
        times = FOREVER if counted == "*" else int(counted)
    return Fault(kind, tuple(values), action or None, times, text)


def _count_value(kind: Kind, values: list[str]) -> str:
    """The value that says how often, where a kind has one: it is the last."""
    return values[-1] if "TIMES" in kind.values.partition("@")[0] and len(values) == kind.most else ""


def _number(text: str) -> float:
    match = _NUMBER.fullmatch(text)
    return float(match[1]) * _SCALE[(match[2] or "").lower()] if match else float(FOREVER)


def _refuse(message: str, text: str, *, names: list[str] | None = None) -> UsageError:
    return UsageError(
        message,
        hint="one of: " + ", ".join(names or [*TABLE, "or an AWS error such as RequestLimitExceeded:3@RunInstances"]),
        code="bad_fault",
    )


class Faults:
    """The faults in force in a region; safe for threads."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._faults = parse(texts)

    def replace(self, texts: Iterable[str]) -> None:
        """Put other faults in force.

        Raises:
            UsageError: one is not a fault; those in force stay.
        """
        faults = parse(texts)
        with self._lock:
            self._faults = faults

    def add(self, *texts: str) -> None:
        """Put further faults in force.

        Raises:
            UsageError: one is not a fault.
        """
        faults = parse(texts)
        with self._lock:
            self._faults = [*self._faults, *faults]

    def texts(self) -> list[str]:
        """The faults in force that can still strike, as written."""
        with self._lock:
            return [fault.text for fault in self._faults if fault.left]

    def find(self, name: str, action: str | None = None) -> Fault | None:
        """The first fault `name` in force that fits `action`, without counting it."""
        with self._lock:
            return self._find(name, action)

    def take(self, name: str, action: str | None = None) -> Fault | None:
        """The same, and counts it as having struck."""
        with self._lock:
            fault = self._find(name, action)
            if fault is not None:
                fault.left -= 1
            return fault

    def _find(self, name: str, action: str | None) -> Fault | None:
        for fault in self._faults:
            if fault.kind.name == name and fault.left and fault.action in (None, "*", action):
                return fault
        return None

    def no_capacity(self, zone: str, instance_type: str) -> bool:
        """Whether a `capacity` fault covers this type in this zone."""
        with self._lock:
            return any(
                f.kind.name == "capacity"
                and f.values[0] in ("*", zone)
                and (len(f.values) < 2 or f.values[1] in ("*", instance_type))
                for f in self._faults
            )
