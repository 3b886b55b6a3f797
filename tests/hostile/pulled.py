"""What a host sends of its results: their list, with names of any kind, and the stream in which they come."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cloudtrain.core.events import Event, Noted, Warned
from cloudtrain.run_folder.artifacts import refusal
from cloudtrain.run_folder.files import is_here
from cloudtrain.transfer.pull import pull
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Completed, Stream
from tests.fakes import Canned, framed
from tests.hostile.odd import Parser, no_escapes, spoilt

_SEGMENTS = (
    *("a", "A", "b", "latest", "weights", "ß", "SS", "é", "e\u0301", "..", ".", "", "~", "-rf", "$HOME", "C:", "a:b"),
    *("con", "CON.txt", "nul", "x.", "x ", "a\\b", ".git", "GIT~1", ".bashrc", "cloudtrain.toml", "x.part", "x.lnk"),
    *("run.json", "RUN.JSON", "console.log", "console.1.log", "config.toml", "report.html", ".pull", "SHA256SUMS"),
    *("x" * 240, "x" * 255, "é" * 200, "x" * 5000, "\0", "\ud800", "\ufffd", "\u202e", "a\nb", "\x1b[2J", "\u200b"),
)
_names = st.builds(
    str.__add__,
    st.sampled_from(["", "", "", "/", "../"]),
    st.lists(st.sampled_from(_SEGMENTS) | st.text(max_size=5), min_size=1, max_size=4).map("/".join),
)


def _content(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")[::-1][:300] * 3


def _entry(name: str) -> dict[str, Any]:
    data = _content(name)
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


_entries = _names.map(_entry)
_sizes = st.sampled_from([0, 1, -1, 2**63 - 1, 10**30, 3.0, None, True, "3"])
_wrong = st.builds(lambda entry, size: {**entry, "size": size}, _entries, _sizes)
_links = st.builds(lambda name, to: {"name": name, "to": to}, _names, _names)
_manifests = st.builds(
    lambda files, links: {"ok": True, "files": files, "links": links},
    st.lists(_entries | _entries | _wrong | spoilt(_entries), max_size=6),
    st.lists(_links, max_size=3),
)
_HEADS = ({"k": "file", "i": 0, "n": 3}, {"k": "withheld", "i": 0, "why": "it is a link"}, {"k": "beat"})
# What is done to a stream of frames at one of its places.
_spoils = st.tuples(
    st.integers(0, 20),
    st.sampled_from(["drop", "double", "cut", "insert"]),
    st.binary(max_size=30) | spoilt(st.sampled_from(_HEADS)).map(lambda head: framed(head, b"abc")) | st.just(b"x" * 9),
)
_ends = st.builds(
    Completed,
    st.sampled_from([0, 0, 1, 255]),
    st.just(b""),
    st.binary(max_size=20)
    | spoilt(st.just({"ok": False, "code": "refused", "message": "no"})).map(lambda value: json.dumps(value).encode()),
)


class Sent(Stream):
    def __init__(self, pieces: list[bytes], end: Completed) -> None:
        self._pieces, self._end = pieces, end

    def read(self, timeout: float) -> bytes:
        if not self._pieces:
            return b""
        if (piece := self._pieces.pop(0)) == b"silence":
            raise TimeoutError
        return piece

    def finish(self, timeout: float) -> Completed:
        return self._end

    def close(self) -> None:
        pass


class _Host:
    """Gives what it is asked for, but for what is done to its streams."""

    def __init__(self, spoils: list[tuple[int, str, bytes]], end: Completed, piece: int) -> None:
        self._spoils, self._end, self._piece = list(spoils), end, piece

    def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
        sent = []
        for number, (name, offset, most) in enumerate(asked):
            data = _content(name.removeprefix("out/"))[offset : offset + most]
            sent += [framed({"k": "file", "i": number, "n": len(data)}, data)] if data else []
            sent.append(framed({"k": "file", "i": number, "n": 0}))
        return self._stream(sent)

    def read(self, name: str, offset: int = 0) -> Stream:
        return self._stream([_content(name.removeprefix("out/"))[offset:]])

    def _stream(self, sent: list[bytes]) -> Stream:
        end = self._end if self._spoils else Completed(0, b"", b"")
        for at, what, data in self._spoils:
            at %= len(sent) + 1
            if what == "cut":
                del sent[at:]
            elif what == "insert":
                sent.insert(at, data)
            else:
                sent[at : at + 1] = sent[at : at + 1] * (2 if what == "double" else 0)
        self._spoils = self._spoils[1:]
        said = b"".join(sent)
        pieces = [said[at : at + self._piece] for at in range(0, len(said), self._piece)]
        return Sent([*pieces, *([b"silence"] if end.exit_code == 255 else [])], end)


def pulled(told: tuple[Any, list[tuple[int, str, bytes]], Completed, int]) -> None:
    """The list of results, and `pull` of them: whatever it says, nothing but whole results is in the folder."""
    answer, spoils, end, piece = told
    entries = Supervisor(Canned(json.dumps(answer).encode() + b"\n"), "python3", "r", ".").manifest().files
    with tempfile.TemporaryDirectory() as place:
        dest = Path(place) / "runs" / "brave-otter"
        dest.mkdir(parents=True)
        (dest / "console.log").write_bytes(b"ours")
        (Path(place) / "beside").write_bytes(b"ours")
        events: list[Event] = []
        try:
            report = pull(_Host(spoils, end, piece), entries, dest, most=piece * 200.0, emit=events.append)
            assert all(is_here(entry, dest) for entry in report.files)
            assert all(entry.size >= 0 for entry in report.beyond)
            no_escapes(report.summary(Path("x")))
        finally:
            said = [event.message for event in events if isinstance(event, (Noted, Warned))]
            no_escapes("".join(said))
            assert sum(map(len, said)) < 20_000
            _inside(Path(place), dest)


def _inside(place: Path, dest: Path) -> None:
    """Nothing lies outside `dest`, and in it nothing that no result may be."""
    assert {one.name for one in place.iterdir()} == {"beside", "runs"} and [*dest.parent.iterdir()] == [dest]
    assert (place / "beside").read_bytes() == (dest / "console.log").read_bytes() == b"ours"
    for path in dest.rglob("*"):
        name = path.relative_to(dest).as_posix()
        if path.is_symlink():
            assert path.resolve().is_relative_to(dest.resolve())
        elif path.is_file() and name != "console.log" and not name.startswith(".pull/"):
            assert refusal(name) is None, name


PARSERS = {
    "lists of results and the streams they come in, through `pull`": Parser(
        pulled,
        st.tuples(
            _manifests | _manifests | spoilt(_manifests),
            st.just([]) | st.lists(_spoils, max_size=4),
            _ends,
            st.sampled_from([1 << 16, 1 << 16, 7, 1]),
        ),
        costs=12,
    ),
}
