"""Tier 1: whatever happens to the stream, the local files become the host's bytes."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch
from cloudtrain.core.events import Event, LogLines, Metric, Noted, Warned
from cloudtrain.core.told import read_events
from cloudtrain.transfer import follow as follow_module
from cloudtrain.transfer.follow import BACKOFF_S, Follower, GrowingFile
from cloudtrain.transfer.frames import Beat, End, EventsFrame, ExitRecord, LogFrame, Shrunk

ENDED = ExitRecord(code=0, signal=None, at=0.0, log_bytes=0, log_sha256="", events_bytes=0, stop=None)


class Host:
    """A host with a finished log and events, whose streams break after so many frames; and the link to it."""

    def __init__(self, log: bytes, events: bytes, breaks: list[int], frame: int = 7) -> None:
        self.log, self.events, self.breaks, self.frame = log, events, list(breaks), frame
        self.connections = 0
        self.frames_made: list[Any] | None = None

    def supervisor(self) -> Host:
        return self

    def drop(self) -> None:
        pass

    @contextmanager
    def follow(self, log: int, events: int) -> Iterator[Iterator[Any]]:
        self.connections += 1
        yield self._frames(log, events)

    def _frames(self, log: int, events: int) -> Iterator[Any]:
        left = self.breaks.pop(0) if self.breaks else None
        frames: list[Any] = [
            LogFrame(at, self.log[at : at + self.frame]) for at in range(log, len(self.log), self.frame)
        ]
        at = events
        for line in self.events[events:].splitlines(keepends=True):
            frames.append(EventsFrame(at, line))
            at += len(line)
        frames += [Beat(0.0, len(self.log), len(self.events)), End("exited", ENDED, len(self.log), len(self.events))]
        for number, frame in enumerate(self.frames_made or frames):
            if left is not None and number >= left:
                raise ConnectionFailed("the link broke")
            yield frame


def follow(folder: Path, host: Host, **options: Any) -> tuple[list[Event], End]:
    seen: list[Event] = []
    follower = Follower(folder, host, seen.append, sleep=lambda _: None, **options)  # type: ignore[arg-type]
    return seen, follower.run()


EVENTS = b"".join(json.dumps({"v": 1, "kind": "epoch", "epoch": n}).encode() + b"\n" for n in range(4))


@settings(deadline=None, max_examples=60)
@given(log=st.binary(max_size=300), breaks=st.lists(st.integers(0, 12), max_size=7), frame=st.integers(1, 40))
def test_every_cut_resumes_to_the_byte(tmp_path_factory: Any, log: bytes, breaks: list[int], frame: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    seen, end = follow(folder, Host(log, EVENTS, breaks, frame))
    assert end.state == "exited"
    assert (folder / "console.log").read_bytes() == log
    assert (folder / "events.jsonl").read_bytes() == EVENTS
    assert b"".join(event.data for event in seen if isinstance(event, LogLines)) == log
    assert [event.values["epoch"] for event in seen if isinstance(event, Metric)] == [0, 1, 2, 3]


def test_a_second_command_takes_up_where_the_files_end(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"0123")
    seen, _ = follow(tmp_path, Host(b"0123456789", b"", []))
    assert b"".join(event.data for event in seen if isinstance(event, LogLines)) == b"456789"
    assert (tmp_path / "console.log").read_bytes() == b"0123456789"


def test_frames_that_overlap_are_written_once(tmp_path: Path) -> None:
    host = Host(b"abcdef", b"", [])
    host.frames_made = [LogFrame(0, b"abc"), LogFrame(1, b"bcdef"), LogFrame(0, b"ab"), End("exited", ENDED, 6, 0)]
    follow(tmp_path, host)
    assert (tmp_path / "console.log").read_bytes() == b"abcdef"


def test_a_gap_is_never_written(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "console.log")
    with pytest.raises(ConnectionFailed, match="byte 0 was next"):
        file.append(5, b"late")
    file.close()
    assert (tmp_path / "console.log").read_bytes() == b""


def test_it_says_so_and_gives_up_after_the_last_attempt(tmp_path: Path) -> None:
    host = Host(b"log", b"", [0] * 100)
    seen: list[Event] = []
    waits: list[float] = []
    with pytest.raises(ConnectionFailed) as raised:
        Follower(tmp_path, host, seen.append, sleep=waits.append).run()  # type: ignore[arg-type]
    assert waits == list(BACKOFF_S)
    assert "the run goes on" in (raised.value.consequence or "") and "cloudtrain logs" in (raised.value.hint or "")
    first = next(event.message for event in seen if isinstance(event, Warned))
    assert first.endswith("Reconnecting in 0.5 s (1 of 8)")


def test_a_reconnect_is_told(tmp_path: Path) -> None:
    seen, _ = follow(tmp_path, Host(b"log", b"", [1]))
    assert [event.message for event in seen if isinstance(event, Noted)] == ["reconnected"]


def test_another_machine_is_never_tried_again(tmp_path: Path) -> None:
    class Stranger(Host):
        def supervisor(self) -> Host:
            self.connections += 1
            raise HostKeyMismatch("another key")

    host = Stranger(b"", b"", [])
    with pytest.raises(HostKeyMismatch):
        follow(tmp_path, host)
    assert host.connections == 1


def test_a_log_that_was_cut_on_the_host_is_told_and_what_came_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"0123456789")
    host = Host(b"", b"", [])
    host.frames_made = [Shrunk("console.log", 2), LogFrame(2, b"new"), End("exited", ENDED, 5, 0)]
    seen, _ = follow(tmp_path, host)
    assert (tmp_path / "console.log").read_bytes() == b"0123456789new"
    assert any(isinstance(event, Warned) and "cut to 2 bytes" in event.message for event in seen)


def test_a_full_disk_keeps_what_is_there_and_goes_on_when_there_is_room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The write fails half done, as it does on a real full disk; the half is cut off again."""
    real, full = GrowingFile.append, [2]

    def append(self: GrowingFile, offset: int, data: bytes) -> bytes:
        if self.path.name == "console.log" and full[0] and offset >= 7:
            full[0] -= 1
            self._file.write(data[:3])
            self._file.flush()
            self._reopen()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, offset, data)

    monkeypatch.setattr(GrowingFile, "append", append)
    seen, _ = follow(tmp_path, Host(b"0123456789abcdefghij", b"", []))
    assert (tmp_path / "console.log").read_bytes() == b"0123456789abcdefghij"
    assert sum(isinstance(event, Warned) and "disk is full" in event.message for event in seen) == 2


def test_beside_another_command_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"01")
    seen, _ = follow(tmp_path, Host(b"0123", EVENTS, []), keep=False)
    assert (tmp_path / "console.log").read_bytes() == b"01"
    assert not (tmp_path / "events.jsonl").exists()
    assert b"".join(event.data for event in seen if isinstance(event, LogLines)) == b"23"


def test_a_training_that_says_nothing_is_told_of_and_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(follow_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    host = Host(b"x" * 7, b"", [])

    def frames() -> Iterator[Any]:
        yield LogFrame(0, b"x" * 7)
        for now[0] in range(0, 2000, 4):
            yield Beat(0.0, 7, 0)
        yield Shrunk("console.log", 0)
        for now[0] in range(2000, 2320, 4):
            yield Beat(0.0, 0, 0)
        yield End("exited", ENDED, 0, 0)

    host.frames_made = frames()
    signs: list[float] = []
    seen, _ = follow(tmp_path, host, on_frame=lambda: signs.append(now[0]))
    assert set(range(0, 2320, 4)) <= set(signs), "it lives, and that is heard"
    told = [event.message for event in seen if isinstance(event, Warned) and "may hang" in event.message]
    assert [text.split(";")[0] for text in told] == [
        f"the training has said nothing for {minutes} min" for minutes in (5, 10, 20, 5)
    ]


def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind": "a"}\nnot json\n[1]\n\xff\xfe\n{"kind": "b"}\n{"cut')
    assert [values["kind"] for values in read_events(path)] == ["a", "b"]
    assert list(read_events(tmp_path / "none")) == []
