"""The stream of `follow` as frames (docs/protocol.md, "Frames"): bytes in, typed values out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudtrain.core.errors import ConnectionFailed

_LONGEST_HEAD = 64 * 1024
_LONGEST_PAYLOAD = 4 * 1024 * 1024
# Of the year 9999: no later moment can be shown.
_LAST_SECOND = 253_402_300_800


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a job ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        at: unix seconds.
        log_bytes, log_sha256, events_bytes: of the complete `console.log` and `events.jsonl`.
        events_sha256: None: an earlier supervisor's record.
        stop: why it was told to end ("user", "deadline", ...); None: it ended by itself.
        signal_name: as its system calls `signal`: "SIGKILL"; None: not known.
        oom_kills: how many processes the kernel there ended for lack of memory while it ran; None: not known.
    """

    code: int
    signal: int | None
    at: float
    log_bytes: int
    log_sha256: str
    events_bytes: int
    stop: str | None
    events_sha256: str | None = None
    signal_name: str | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True)
class LogFrame:
    """Bytes of `console.log` from `offset` on."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class EventsFrame:
    """Whole lines of `events.jsonl` from `offset` on."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Beat:
    """Sign of life: the host's clock in unix seconds, and the sizes of both files there."""

    t: float
    log: int
    events: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """`file` on the host is shorter than what was asked for or sent; the stream goes on at `size`."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Notice:
    """EC2 announced something about the machine.

    Attributes:
        kind: "spot" (it is taken back, the job is being told) or "rebalance" (that has become likelier).
        t: unix seconds at which it was heard.
        ends: unix seconds at which the machine goes, None where not known.
    """

    kind: str
    t: float
    ends: float | None

    def text(self) -> str:
        """For people, one line."""
        if self.kind == "spot":
            at = f" at {datetime.fromtimestamp(self.ends, UTC):%H:%M:%S} UTC" if self.ends is not None else " soon"
            return f"EC2 takes this spot instance back{at}; the job is told to save"
        return "EC2 says that this spot instance may be taken back soon; the job goes on"


@dataclass(frozen=True, slots=True)
class GpuFrame:
    """How busy each GPU of the host is: share of the last seconds in percent, MiB in use, MiB that it has."""

    gpus: tuple[tuple[int | None, int | None, int | None], ...]


@dataclass(frozen=True, slots=True)
class End:
    """The run is not running (any more), and everything it wrote has been sent."""

    state: str
    exit: ExitRecord | None
    log: int
    events: int


Frame = LogFrame | EventsFrame | Beat | Shrunk | Notice | GpuFrame | End


class FrameParser:
    """Turns the byte stream of `follow` into frames, however it was cut into pieces. Pure."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Mapping[str, Any] | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            ConnectionFailed: this is no stream of frames.
        """
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        while True:
            if self._head is None:
                end = self._buffer.find(b"\n", position)
                if end < 0:
                    break
                self._head = self._parse_head(bytes(self._buffer[position:end]))
                position = end + 1
                continue
            size = self._head.get("n", 0)
            if len(self._buffer) - position < size:
                break
            frame = _frame(self._head, bytes(self._buffer[position : position + size]))
            position += size
            self._head = None
            if frame is not None:
                frames.append(frame)
        del self._buffer[:position]
        if self._head is None and len(self._buffer) > _LONGEST_HEAD:
            raise _not_frames(bytes(self._buffer[:200]))
        return frames

    @staticmethod
    def _parse_head(line: bytes) -> Mapping[str, Any]:
        try:
            head = json.loads(line)
        except ValueError:
            head = None
        size = head.get("n", 0) if isinstance(head, dict) and "k" in head else None
        if type(size) is int and 0 <= size <= _LONGEST_PAYLOAD:
            return dict(head)
        raise _not_frames(line[:200])


def _frame(head: Mapping[str, Any], payload: bytes) -> Frame | None:
    try:
        match head["k"]:
            case "log":
                return LogFrame(int(head["o"]), payload)
            case "events":
                return EventsFrame(int(head["o"]), payload)
            case "beat":
                return Beat(float(head["t"]), int(head["log"]), int(head["events"]))
            case "shrunk":
                return Shrunk(str(head["file"]), int(head["size"]))
            case "notice" if head["kind"] in ("spot", "rebalance"):
                ends = head["ends"]
                known = ends is not None and 0 <= float(ends) < _LAST_SECOND
                return Notice(head["kind"], float(head["t"]), float(ends) if known else None)
            case "gpu":
                return GpuFrame(tuple((gpu["busy"], gpu["used_mib"], gpu["total_mib"]) for gpu in head["gpus"]))
            case "end":
                return End(str(head["state"]), exit_record(head["exit"]), int(head["log"]), int(head["events"]))
            case _:
                return None  # Of a later version.
    except (KeyError, TypeError, ValueError) as error:
        raise _not_frames(json.dumps(head).encode()[:200]) from error


def _not_frames(said: bytes) -> ConnectionFailed:
    return ConnectionFailed(
        "the host sent something else than the log",
        consequence="the run goes on, its log and results stay on the host",
        code="protocol",
        detail=said.decode("utf-8", "replace"),
    )


def exit_record(value: Mapping[str, Any] | None) -> ExitRecord | None:
    """The `exit` of an answer or a frame, typed.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if value is None:
        return None
    name, oom_kills = value.get("signal_name"), value.get("oom_kills")
    return ExitRecord(
        code=int(value["code"]),
        signal=value["signal"],
        at=float(value["at"]),
        log_bytes=int(value["log_bytes"]),
        log_sha256=str(value["log_sha256"]),
        events_bytes=int(value["events_bytes"]),
        stop=value["stop"],
        events_sha256=value.get("events_sha256"),
        signal_name=name if isinstance(name, str) and re.fullmatch("SIG[A-Z0-9]{2,10}", name) else None,
        oom_kills=oom_kills if type(oom_kills) is int else None,
    )
