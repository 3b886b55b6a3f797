"""The streams of `follow` and `send` as frames (docs/protocol.md, "Frames"): bytes in, typed values out."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudtrain.core.decode import Odd, count, each, fields, json_object, known, made, moment, optional, text, there
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.told import LOG_FILES, ExitRecord

_LONGEST_HEAD = 64 * 1024
_LONGEST_PAYLOAD = 4 * 1024 * 1024


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
        """One human-readable line."""
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


@dataclass(frozen=True, slots=True)
class FileFrame:
    """The next bytes of the file that was asked for as `number`; none: that was all."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Withheld:
    """The file that was asked for as `number` does not come."""

    number: int
    why: str


Frame = LogFrame | EventsFrame | Beat | Shrunk | Notice | GpuFrame | End | FileFrame | Withheld


def packed_names(asked: Sequence[tuple[str, int, int]]) -> str:
    """What `send` is asked for, as a word of its command line."""
    return base64.b64encode(zlib.compress(json.dumps(asked).encode(), 9)).decode()


class FrameParser:
    """Turns such a stream into frames, however it was cut into pieces. Pure."""

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
            size = count(self._head.get("n", 0))
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
        with suppress(Odd):
            head = json_object(line, _LONGEST_HEAD)
            if "k" in head and count(head.get("n", 0)) <= _LONGEST_PAYLOAD:
                return head
        raise _not_frames(line[:200])


def _frame(head: Mapping[str, Any], payload: bytes) -> Frame | None:
    try:
        match head["k"]:
            case "log":
                return LogFrame(count(head.get("o")), payload)
            case "events":
                return EventsFrame(count(head.get("o")), payload)
            case "beat":
                return Beat(moment(head.get("t")), count(head.get("log")), count(head.get("events")))
            case "shrunk":
                return Shrunk(_file(head.get("file")), count(head.get("size")))
            case "notice" if head.get("kind") in ("spot", "rebalance"):
                # A time that is none must not keep anybody from hearing that the machine goes.
                ends = known(head, {"ends": moment}).get("ends")
                return Notice(head["kind"], moment(head.get("t")), ends)
            case "gpu":
                return GpuFrame(tuple(_gpu(gpu) for gpu in each(fields)(head.get("gpus"))))
            case "file":
                return FileFrame(count(head.get("i")), payload)
            case "withheld":
                return Withheld(count(head.get("i")), text(head.get("why"))[:1000])
            case "end":
                ending = exit_record(head.get("exit"))
                return End(text(head.get("state")), ending, count(head.get("log")), count(head.get("events")))
            case _:
                return None  # Of a later version.
    except Odd as error:
        raise _not_frames(repr(head).encode()[:200]) from error


def _file(name: Any) -> str:
    if name not in LOG_FILES:
        raise Odd("not a file that is followed")
    return text(name)


def _gpu(gpu: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    busy, used, total = (optional(count, gpu.get(name)) for name in ("busy", "used_mib", "total_mib"))
    return busy, used, total


def _not_frames(said: bytes) -> ConnectionFailed:
    return ConnectionFailed(
        "the host sent something other than what was asked for",
        consequence="the run goes on, its log and results stay on the host",
        code="protocol",
        detail=said.decode("utf-8", "replace"),
    )


def exit_record(value: Any) -> ExitRecord | None:
    """The `exit` of an answer or a frame, typed.

    Raises:
        Odd: it is none.
    """
    if value is None:
        return None
    told = there(fields(value), "code", "at", "log_bytes", "log_sha256", "events_bytes")
    name, kills = told.get("signal_name"), told.get("oom_kills")
    known_name = name if isinstance(name, str) and re.fullmatch("SIG[A-Z0-9]{2,10}", name) else None
    return made(ExitRecord, {**told, "signal_name": known_name, "oom_kills": kills if type(kills) is int else None})
