"""Frames and answers of the supervisor, whatever comes."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core.errors import ArtifactRefused, Busy, CloudtrainError, ConnectionFailed
from cloudtrain.core.text import screen_safe
from cloudtrain.transfer.first_line import FirstLine, OurStream
from cloudtrain.transfer.frames import Beat, End, EventsFrame, ExitRecord, Frame, FrameParser, LogFrame, Notice, Shrunk
from cloudtrain.transfer.program import IMPORTED
from cloudtrain.transfer.supervisor import Following, Supervisor
from cloudtrain.transport.base import Completed, Stream, Transport

# --- frames ----------------------------------------------------------------------------------------------------------

record = st.builds(
    ExitRecord,
    code=st.integers(-64, 255),
    signal=st.none() | st.integers(1, 64),
    at=st.floats(0, 2e9),
    log_bytes=st.integers(0, 2**40),
    log_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    events_bytes=st.integers(0, 2**40),
    stop=st.none() | st.sampled_from(["user", "deadline"]),
    events_sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
)
size = st.integers(0, 2**50)
frame: st.SearchStrategy[Frame] = st.one_of(
    st.builds(LogFrame, size, st.binary(min_size=1, max_size=300)),
    st.builds(EventsFrame, size, st.binary(min_size=1, max_size=300)),
    st.builds(Beat, st.floats(0, 2e9), size, size),
    st.builds(Shrunk, st.sampled_from(["console.log", "events.jsonl"]), size),
    st.builds(Notice, st.sampled_from(["spot", "rebalance"]), st.floats(0, 2e9), st.none() | st.floats(0, 2e9)),
    st.builds(End, st.sampled_from(["exited", "lost", "absent"]), st.none() | record, size, size),
)


def encode(value: Frame) -> bytes:
    """As docs/protocol.md, "Frames", writes frames."""
    payload = b""
    match value:
        case LogFrame(offset, data):
            head: dict[str, Any] = {"k": "log", "o": offset, "n": len(data)}
            payload = data
        case EventsFrame(offset, data):
            head = {"k": "events", "o": offset, "n": len(data)}
            payload = data
        case Beat(t, log, events):
            head = {"k": "beat", "t": t, "log": log, "events": events}
        case Shrunk(file, to):
            head = {"k": "shrunk", "file": file, "size": to}
        case Notice(kind, t, ends):
            head = {"k": "notice", "kind": kind, "t": t, "ends": ends}
        case End(state, ending, log, events):
            told = {"v": 1, **asdict(ending)} if ending else None
            head = {"k": "end", "state": state, "exit": told, "log": log, "events": events}
    return json.dumps(head).encode() + b"\n" + payload


@pytest.mark.parametrize("ends", [None, -1.0, 1e300, float("nan")])
def test_a_notice_reads_well_whatever_time_it_names(ends: float | None) -> None:
    (told,) = FrameParser().feed(encode(Notice("spot", 0.0, ends)))
    assert isinstance(told, Notice) and told.ends is None
    assert told.text() == "EC2 takes this spot instance back soon; the job is told to save"


def test_a_notice_of_a_kind_that_is_not_known_is_passed_over() -> None:
    assert FrameParser().feed(b'{"k": "notice", "kind": "\\u001b[2J", "t": 0, "ends": null}\n') == []


class Pieces(Stream):
    """A program's output as it comes, and its end."""

    def __init__(self, pieces: Iterable[bytes], code: int = 0) -> None:
        self.pieces, self.done = iter(pieces), Completed(code, b"", b"")

    def read(self, timeout: float) -> bytes:
        return next(self.pieces, b"")

    def finish(self, timeout: float) -> Completed:
        return self.done

    def close(self) -> None:
        pass


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut in these places; nothing is empty, for that would be its end."""
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(frame, max_size=12), st.lists(st.integers(0, 5000), max_size=30), st.binary(max_size=300))
def test_any_cut_of_the_stream_gives_the_same_frames(frames: list[Frame], cuts: list[int], greeting: bytes) -> None:
    """Whatever a login prints before the first line."""
    first = FirstLine()
    whole = greeting + first.line + b"".join(encode(value) for value in frames)
    stream, parser, got = OurStream(Pieces(pieces(whole, cuts)), first, "nothing"), FrameParser(), []
    while data := stream.read(1.0):
        got += parser.feed(data)
    assert got == frames and stream.finish(1.0).exit_code == 0


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=5), st.sampled_from([0, 1, 2, 127, -9]))
def test_without_the_first_line_nothing_is_taken_for_ours(said: bytes, cuts: list[int], code: int) -> None:
    first = FirstLine()
    stream = OurStream(Pieces(pieces(said, cuts), code), first, "nothing")
    assert stream.read(1.0) == b""
    if not said and code not in (0, 1):
        assert stream.finish(1.0) == Completed(code, b"", b"")  # as a shell says that there is no such program
        return
    with pytest.raises(ConnectionFailed) as caught:
        stream.finish(1.0)
    assert caught.value.code == "login_shell" and ".bashrc" in str(caught.value.hint)
    assert caught.value.message == screen_safe(caught.value.message) and len(caught.value.message) < 400


def test_a_flood_before_the_first_line_is_not_read_to_its_end() -> None:
    first = FirstLine()
    stream = OurStream(Pieces(itertools.repeat(b"spam " * 1000)), first, "nothing")
    with pytest.raises(ConnectionFailed, match=r"spam spam.*\.\.\."):
        stream.read(1.0)


def test_a_shell_that_echoes_its_command_does_not_print_the_first_line() -> None:
    first = FirstLine()
    done = Completed(0, shlex.join(["python3", "-c", IMPORTED, "poll", first.argument]).encode() + b"\n", b"")
    with pytest.raises(ConnectionFailed) as caught:
        first.answer(done, "nothing")
    assert caught.value.code == "login_shell"


class Late(Pieces):
    """A stream whose first piece comes after `late` waits, in each of which the link brings `others` more bytes."""

    def __init__(self, late: int, others: int) -> None:
        super().__init__([encode(Beat(1.0, 0, 0))])
        self.late, self.others, self.came = late, others, 0

    def read(self, timeout: float) -> bytes:
        if self.late:
            self.late, self.came = self.late - 1, self.came + self.others
            raise TimeoutError
        return super().read(timeout)

    def link_came(self) -> int:
        return self.came


@pytest.mark.parametrize(("late", "others", "heard"), [(20, 8000, True), (1, 200, False), (1000, 8000, False)])
def test_a_heartbeat_behind_other_bytes_on_a_slow_link_is_waited_for(late: int, others: int, heard: bool) -> None:
    got: list[Frame] = []
    with pytest.raises(ConnectionFailed) as caught:
        got.extend(Following(Late(late, others), beat=4.0))
    assert (got == [Beat(1.0, 0, 0)]) == heard == (caught.value.code != "silent")


@given(st.lists(frame, min_size=1, max_size=5), st.integers(1, 10_000))
def test_a_frame_that_is_cut_is_never_delivered(frames: list[Frame], missing: int) -> None:
    stream = b"".join(encode(value) for value in frames)
    got = FrameParser().feed(stream[: max(0, len(stream) - missing)])
    assert got == frames[: len(got)]
    assert len(got) < len(frames)


@given(st.binary(max_size=2000))
def test_nothing_but_frames_or_a_clear_error_comes_of_garbage(garbage: bytes) -> None:
    parser = FrameParser()
    try:
        parser.feed(encode(Beat(1.0, 2, 3)) + garbage + b"\n")
    except ConnectionFailed as error:
        assert error.code == "protocol"


def test_frames_of_a_later_version_are_passed_over() -> None:
    stream = b'{"k": "weather", "n": 3}\nxyz' + encode(Beat(1.0, 2, 3))
    assert FrameParser().feed(stream) == [Beat(1.0, 2, 3)]


def test_another_line_among_the_frames_is_refused() -> None:
    with pytest.raises(ConnectionFailed, match="something other than what was asked for"):
        FrameParser().feed(b"Welcome!\n" + encode(Beat(1.0, 2, 3)))


@pytest.mark.parametrize(
    "head", [b'{"k": "log", "o": 0, "n": -1}', b'{"k": "log", "o": 0, "n": 9999999999}', b'{"k":"beat"}']
)
def test_impossible_heads_are_refused(head: bytes) -> None:
    with pytest.raises(ConnectionFailed):
        FrameParser().feed(encode(Beat(1.0, 2, 3)) + head + b"\n" + b"x" * 10)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(ConnectionFailed):
        FrameParser().feed(b"x" * 100_000)


class Canned(Transport):
    """Answers with what it was given: stands for hosts that misbehave, and whose login greets."""

    before = b'Welcome!\n{"ok": true}\n\x1b]0;host\x07'

    def __init__(self, stdout: bytes = b"", exit_code: int = 1, stderr: bytes = b"") -> None:
        self.done = Completed(exit_code, stdout, stderr)

    def run(self, argv: Sequence[str], *, awaits: bytes = b"", **more: Any) -> Completed:
        first = argv[-1][::-1].encode() + b"\n"
        assert awaits == b"", "a verb that sends nothing waits for nothing"
        return replace(self.done, stdout=self.before + first + self.done.stdout)

    def stream(self, argv: Sequence[str]) -> Stream:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("disk_full", ConnectionFailed),
        ("not_writable", ConnectionFailed),
        ("tree_busy", Busy),
        ("refused", ArtifactRefused),
        ("start_failed", ConnectionFailed),
        ("something new", ConnectionFailed),
    ],
)
def test_each_code_has_its_error(code: str, kind: type[CloudtrainError]) -> None:
    answer = json.dumps({"ok": False, "code": code, "message": "why"}).encode() + b"\n"
    with pytest.raises(kind) as caught:
        Supervisor(Canned(answer), "python3", "r", ".").poll()
    assert caught.value.message == "why"
    assert caught.value.hint
    assert caught.value.consequence


@pytest.mark.parametrize("stdout", [b"", b"Killed\n", b"[1]\n", b'{"state": "running"}\n', b"\xff\xfe"])
def test_no_answer_is_an_error(stdout: bytes) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        Supervisor(Canned(stdout, 0), "python3", "r", ".").manifest()
    assert caught.value.code == "no_answer"
