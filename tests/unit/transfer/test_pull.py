"""Results that come down, from a host in memory."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import ArtifactRefused, ConnectionFailed
from cloudtrain.core.events import Event, Noted, StepProgress, Warned, discard
from cloudtrain.core.notes import FileEntry
from cloudtrain.run_folder.artifacts import fold, place, refusal
from cloudtrain.run_folder.files import is_here
from cloudtrain.transfer.pull import pull, wanted
from cloudtrain.transport.base import Completed, Stream
from tests.fakes import framed


def entry_of(name: str, content: bytes) -> FileEntry:
    return FileEntry(name, len(content), hashlib.sha256(content).hexdigest())


class Bytes(Stream):
    """A stream of given bytes in pieces; breaks after `cut` of them."""

    def __init__(self, data: bytes, cut: int | None = None, piece: int = 1 << 16, pause: float = 0) -> None:
        self.data, self.cut, self.piece, self.pause = data, cut, piece, pause
        self.at = 0
        self.closed = False

    def read(self, timeout: float) -> bytes:
        time.sleep(self.pause)
        end = min(self.at + self.piece, len(self.data))
        if self.cut is not None and end > self.cut:
            if self.at >= self.cut:
                raise ConnectionFailed("lost the connection")
            end = self.cut
        chunk = self.data[self.at : end]
        self.at = end
        return chunk

    def finish(self, timeout: float) -> Completed:
        return Completed(0, b"", b"")

    def close(self) -> None:
        self.closed = True


class Host:
    """What a host's `read` gives: files below out/, by name. Records what was asked for."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "/"): data for name, data in files.items()}
        self.asked: list[tuple[str, int]] = []
        self.cut: int | None = None
        self.pause = 0.0
        self.streams: list[Bytes] = []

    def entries(self) -> list[FileEntry]:
        return [entry_of(name, data) for name, data in self.files.items()]

    def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
        said = b""
        for number, (name, offset, most) in enumerate(asked):
            self.asked.append((name, offset))
            data = self.files[name.removeprefix("out/")][offset : offset + most]
            for at in range(0, len(data), 32_768):
                piece = data[at : at + 32_768]
                said += framed({"k": "file", "i": number, "n": len(piece)}, piece)
            said += framed({"k": "file", "i": number, "n": 0})
        stream = Bytes(said, self.cut, pause=self.pause)
        self.streams.append(stream)
        return stream

    def read(self, name: str, offset: int = 0) -> Stream:
        self.asked.append((name, offset))
        stream = Bytes(self.files[name.removeprefix("out/")][offset:], self.cut, pause=self.pause)
        self.streams.append(stream)
        return stream


def there(dest: Path) -> dict[str, bytes]:
    return {p.relative_to(dest).as_posix(): p.read_bytes() for p in dest.rglob("*") if p.is_file()}


@pytest.fixture
def host() -> Host:
    return Host(weights__best=random.Random(1).randbytes(500_000), metrics=b"{}", empty=b"")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "brave otter's é"
    folder.mkdir(parents=True)
    return folder


def test_everything_arrives_small_files_first_and_nothing_else_stays(host: Host, dest: Path) -> None:
    events: list[Event] = []
    report = pull(host, host.entries(), dest, outputs=["**"], emit=events.append)
    assert there(dest) == host.files and not (dest / ".pull").exists()
    assert [entry.name for entry in report.files] == ["empty", "metrics", "weights/best"]
    assert report.bytes == 500_002 and report.skipped == []
    assert "3 files, 0.5 MiB verified" in report.summary(dest)
    assert [asdict(entry)["size"] for entry in report.files] == [0, 2, 500_000]
    assert all(stream.closed for stream in host.streams)
    last = [event for event in events if isinstance(event, StepProgress)][-1]
    assert last.done == last.total == 500_002


def test_what_is_here_is_not_fetched_again(host: Host, dest: Path) -> None:
    pull(host, host.entries(), dest, emit=discard)
    host.asked.clear()
    report = pull(host, host.entries(), dest, emit=discard)
    assert host.asked == [] and report.bytes == 0 and len(report.files) == 3
    (dest / "metrics").write_bytes(b"[]")  # as long as before
    host.files["empty"] = b"no longer"
    pull(host, host.entries(), dest, emit=discard)
    assert sorted(host.asked) == [("out/empty", 0), ("out/metrics", 0)]
    assert there(dest) == host.files


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["**"], {"weights/best", "metrics", "empty"}),
        (["weights/"], {"weights/best"}),
        (["*", "!weights/"], {"metrics", "empty"}),
        (["*", "!weights/", "weights/best"], {"weights/best", "metrics", "empty"}),
        (["metrics", "nothing-of-the-kind"], {"metrics"}),
        ([], set()),
    ],
)
def test_outputs_choose_what_is_pulled(host: Host, dest: Path, outputs: list[str], expected: set[str]) -> None:
    report = pull(host, host.entries(), dest, outputs=outputs, emit=discard)
    assert set(there(dest)) == {entry.name for entry in report.files} == expected
    assert set(report.skipped) == set(host.files) - expected
    assert {name.removeprefix("out/") for name, _ in host.asked} <= expected


# --- links that break -----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 2, 65_536, 499_999])
def test_a_cut_link_is_resumed_where_it_stopped(host: Host, dest: Path, cut: int) -> None:
    host.cut = cut
    with pytest.raises(ConnectionFailed):
        pull(host, host.entries(), dest, emit=discard)
    assert not (dest / "weights" / "best").exists()
    have = sum(part.stat().st_size for part in (dest / ".pull").glob("*.part"))
    host.cut = None
    host.asked.clear()
    report = pull(host, host.entries(), dest, emit=discard)
    assert host.asked[-1] == ("out/weights/best", have) and have >= cut - 40_000
    assert there(dest) == host.files and len(report.files) == 3


def test_a_spoilt_part_is_dropped_and_fetched_from_the_start(host: Host, dest: Path) -> None:
    host.cut = 100_000
    with pytest.raises(ConnectionFailed):
        pull(host, host.entries(), dest, emit=discard)
    for part in (dest / ".pull").glob("*.part"):
        part.write_bytes(b"x" * part.stat().st_size)
    host.cut = None
    pull(host, host.entries(), dest, emit=discard)
    assert [ask for ask in host.asked if ask[0] == "out/weights/best"][-1] == ("out/weights/best", 0)
    assert there(dest) == host.files


def test_a_part_of_another_version_is_not_continued(host: Host, dest: Path) -> None:
    host.cut = 100_000
    with pytest.raises(ConnectionFailed):
        pull(host, host.entries(), dest, emit=discard)
    host.files["weights/best"] = random.Random(2).randbytes(500_000)
    host.cut = None
    host.asked.clear()
    pull(host, host.entries(), dest, emit=discard)
    assert ("out/weights/best", 0) in host.asked and len(host.asked) <= 2
    assert there(dest) == host.files


def test_a_silent_host_is_given_up(host: Host, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: Bytes, timeout: float) -> bytes:
        raise TimeoutError

    monkeypatch.setattr(Bytes, "read", silent)
    with pytest.raises(ConnectionFailed, match="nothing came of metrics"):
        pull(host, host.entries(), dest, emit=discard)


# --- hosts that lie -------------------------------------------------------------------------------

BAD_NAMES = [
    "../x",
    "a/../../x",
    "/etc/x",
    "C:x",
    "c:/x",
    "a\\b",
    "..\\x",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "",
    ".",
    "a//b",
    "a/",
]
BAD_NAMES += [
    "./a",
    "con",
    "NUL.txt",
    "a/com1.log",
    "aux. ",
    "LPT9",
    "run.json",
    "Console.log",
    "code.tar.gz",
    "console.times",
    "events.jsonl",
    "SHA256SUMS",
]
BAD_NAMES += [".pull/lock", "x.part", "a" * 300, "a/" * 600 + "b", "\ud800", "\u2028", "run.json/x"]
BAD_NAMES += [".git/hooks/post-checkout", "a/.GIT/config", "git~1/config", ".git ", ".git. /config", "sub/.hg/hgrc"]
BAD_NAMES += [".git::$INDEX_ALLOCATION/config", ".g\u200cit/config", "\ufeff.git", "weights\u202egpj.exe", "a\u200bb"]
BAD_NAMES += [".gitattributes", ".envrc", "x/.vscode/settings.json", "cloudtrain.toml", "sub/CloudTrain.TOML", ".env"]
BAD_NAMES += ["results.lnk", "a/Results.URL", "view.scf", "desktop.ini", "x/Desktop.ini ", "a.lnk:s", ".SSH/config"]
BAD_NAMES += ["config.toml", "Report.html", "cloudtrain-report.html"]

# What trainings leave, as their libraries name it.
GOOD_NAMES = [
    "weights/best.pt",
    ".hydra/config.yaml",
    "config.yaml",
    "config.toml",
    "args.json",
    "report.html",
    "x.linkage",
]
GOOD_NAMES += ["README.md", ".gitignore", ".ipynb_checkpoints/a.ipynb", "logs/events.out.tfevents.1.host", "index.html"]
GOOD_NAMES += ["checkpoint-500/rng_state.pth", ".metadata", "wandb/run-1/files/config.yaml", "mlruns/0/meta.yaml"]
GOOD_NAMES += ["épreuve/图.png", "git/log.txt", "a.git.txt", "env/pip.txt", "settings.json", "👍.txt"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_what_trainings_leave_is_taken(name: str) -> None:
    assert refusal(name, windows=False) is None and refusal(name, windows=True) is None


def said_of(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, (Noted, Warned)))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_hostile_name_harms_nothing_here_and_keeps_nothing_from_coming(host: Host, dest: Path, name: str) -> None:
    (dest / "run.json").write_text("ours")
    others = dict(host.files)
    host.files[name] = b"evil"
    around = set(dest.parent.parent.rglob("*"))
    told: list[Event] = []
    report = pull(host, host.entries(), dest, emit=told.append)
    said_of(told).encode()
    found = there(dest)
    assert found.pop("run.json") == b"ours"
    assert {found.pop(known) for known in others} == set(others.values())
    new = set(dest.parent.parent.rglob("*")) - around
    assert all(path.is_relative_to(dest) for path in new)
    # It lies under a name that nothing takes orders from, and that is said; or it is none that a file can have.
    assert list(found.values()) == [b"evil"] * (1 - len(report.left)) and all(refusal(other) is None for other in found)
    assert "left there: " in said_of(told) if report.left else name in found or " is " in said_of(told)
    [entry] = [entry for entry in report.files if entry.name == name] or [None]
    assert entry is None if report.left else entry is not None and is_here(entry, dest)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("@aux.pt", None),
        ("sub/report.html", None),
        ("aux.pt", "_aux.pt"),
        ("sub/CON", "sub/_CON"),
        ("loss\\acc.txt", "loss_acc.txt"),
        ("epoch=3: best?.ckpt", "epoch=3_ best_.ckpt"),
        ("trailing. ", "trailing. _"),
        ("a" * 300 + ".pt", "a" * 40 + "-ec01fa07.pt"),
    ],
)
def test_a_name_that_windows_cannot_store_arrives_there_under_another(name: str, stored: str | None) -> None:
    [entry], left = place([entry_of(name, b"x")], fold_case=True, windows=True)
    assert (entry.stored, left) == (stored, []) and refusal(entry.here, windows=True) is None
    if len(name) < 240:
        [entry], left = place([entry_of(name, b"x")], fold_case=False, windows=False)
        assert (entry.here, left) == (name, [])


@given(st.lists(st.text(max_size=40), max_size=4), st.booleans(), st.booleans())
def test_no_result_leaves_the_folder_or_meets_another(names: list[str], windows: bool, fold_case: bool) -> None:
    placed, left = place([entry_of(name, b"") for name in names], fold_case=fold_case, windows=windows)
    assert len(placed) + len(left) == len(names)
    here = [fold(entry.here) if fold_case else entry.here for entry in placed]
    assert len(set(here)) == len(here)
    for entry in placed:
        path = Path("/top", entry.here)
        assert refusal(entry.here, windows=windows) is None
        assert Path(os.path.normpath(path)).is_relative_to("/top") and os.path.normpath(path) == str(path) != "/top"


@pytest.mark.parametrize("name", ["config.toml", "Report.html", ".env", "run.json", "sub/.git/config"])
def test_no_host_puts_a_file_of_ours_or_of_a_program_here(name: str) -> None:
    [entry], _ = place([entry_of(name, b"")], fold_case=False)
    assert entry.here == name.replace(name.removeprefix("sub/"), f"_{name.removeprefix('sub/')}")


def test_names_that_meet_on_this_disk_keep_apart() -> None:
    def here(names: list[str], fold_case: bool) -> dict[str, str]:
        placed, _ = place([entry_of(name, b"") for name in names], fold_case=fold_case)
        return {entry.name: entry.here for entry in placed}

    assert here(["A.pt", "a.pt", "b/c", "d"], True) == {"A.pt": "A.pt", "a.pt": "a-baf2539b.pt", "b/c": "b/c", "d": "d"}
    assert here(["A.pt", "a.pt"], False) == {"A.pt": "A.pt", "a.pt": "a.pt"}
    assert here(["B", "b/c"], True) == {"B": "B", "b/c": "b_c-b9e2beb9"}
    assert here(["\u00e9", "e\u0301"], True).keys() == {"\u00e9", "e\u0301"}
    assert here(["_.env", ".env"], False)[".env"].startswith("_-")


def test_doubled_names_are_left_and_nested_ones_keep_apart(host: Host, dest: Path) -> None:
    entries = [*host.entries(), entry_of("metrics", b"another"), entry_of("empty/x", b"12345")]
    host.files["empty/x"] = b"12345"
    report = pull(host, entries, dest, emit=discard)
    assert report.left == (("metrics", "the manifest holds it twice"),)
    assert sorted(there(dest).values()) == sorted(host.files.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "sha256"),
        ({"size": 499_999}, "longer"),
        ({"size": 500_001}, "shorter"),
        ({"size": 10}, "longer"),
        ({"size": -1}, "no valid size"),
        ({"size": True}, "no valid size"),
        ({"size": "9"}, "no valid size"),
        ({"sha256": "../../x"}, "no valid size and sha256"),
    ],
)
def test_a_file_that_is_not_what_the_manifest_says(
    host: Host, dest: Path, change: dict[str, object], said: str
) -> None:
    entries = [replace(e, **change) if e.name == "weights/best" else e for e in host.entries()]  # type: ignore[arg-type]
    with pytest.raises(ArtifactRefused, match=said):
        pull(host, entries, dest, emit=discard)
    assert there(dest) == {"metrics": b"{}", "empty": b""}
    asked = [offset for name, offset in host.asked if name == "out/weights/best"]
    assert asked == ([] if "valid" in said else [0, 0])  # tried once more from the start, then given up


def test_a_thousand_files_with_long_names_that_cannot_be_had_are_told_in_a_few_lines(host: Host, dest: Path) -> None:
    entries = [replace(host.entries()[0], name=f"{'x' * 20_000}{number}", size=-1) for number in range(1000)]
    events: list[Event] = []
    with pytest.raises(ArtifactRefused, match="and 999 more") as caught:
        pull(host, [*entries, entry_of("x" * 20_000, b"")], dest, emit=events.append)
    assert len(caught.value.message) < 1000 and len(caught.value.detail or "") < 8000


def test_an_endless_stream_is_cut_at_the_size_of_the_manifest(dest: Path) -> None:
    class Endless(Bytes):
        count = 0

        def read(self, timeout: float) -> bytes:
            Endless.count += 1
            return self.data

    class Liar(Host):
        def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
            return Endless(framed({"k": "file", "i": 0, "n": 65_536}, b"x" * 65_536))

        def read(self, name: str, offset: int = 0) -> Stream:
            return Endless(b"x" * 65_536)

    for size in (100_000, 2_000_000):  # in a stream with others, and alone
        Endless.count = 0
        with pytest.raises(ArtifactRefused, match="longer"):
            pull(Liar(), [entry_of("a", b"y" * size)], dest, emit=discard)
        assert Endless.count <= 2 * (size // 65_536 + 1) and there(dest) == {}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_no_link_here_is_written_through(host: Host, dest: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("private")
    (dest / "weights").symlink_to(outside)
    (dest / "metrics").symlink_to(outside / "file")
    with pytest.raises(ArtifactRefused, match="is a link or a file"):
        pull(host, host.entries(), dest, emit=discard)
    assert sorted(outside.iterdir()) == [outside / "file"] and (outside / "file").read_text() == "private"
    assert not (dest / "metrics").is_symlink() and (dest / "metrics").read_bytes() == b"{}"
    (dest / ".pull").symlink_to(outside)
    with pytest.raises(ConnectionFailed, match="not a folder"):
        pull(host, host.entries(), dest, emit=discard)
    assert sorted(outside.iterdir()) == [outside / "file"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_in_place_of_a_part_is_not_written_through(host: Host, dest: Path, tmp_path: Path) -> None:
    host.cut = 40_000
    with pytest.raises(ConnectionFailed):
        pull(host, host.entries(), dest, emit=discard)
    (part,) = (dest / ".pull").glob("*.part")
    private = tmp_path / "private"
    private.write_bytes(part.read_bytes())
    part.unlink()
    part.symlink_to(private)
    host.cut = None
    pull(host, host.entries(), dest, emit=discard)
    assert private.stat().st_size == 32_768 and there(dest) == host.files


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EROFS, "folder"), (errno.EACCES, "folder")]
)
def test_a_disk_that_refuses_is_a_clear_error(
    host: Host, dest: Path, number: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConnectionFailed) as caught:
        pull(host, host.entries(), dest, emit=discard)
    assert caught.value.code == code and caught.value.hint and "pull again" in caught.value.hint
    monkeypatch.undo()
    assert not set(there(dest)) & set(host.files)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=6), st.binary(max_size=3))
def test_any_cuts_end_in_the_same_bytes(cuts: list[int], seed: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        host, dest = Host(a=random.Random(seed).randbytes(200_000)), Path(temporary)
        for cut in cuts:
            host.cut = cut
            try:
                pull(host, host.entries(), dest, emit=discard)
            except ConnectionFailed:
                assert "a" not in there(dest)
        host.cut = None
        pull(host, host.entries(), dest, emit=discard)
        assert there(dest) == host.files


def test_a_pattern_of_an_earlier_release_that_cannot_be_read_leaves_nothing_behind() -> None:
    entry = FileEntry("a.pt", 1, "0" * 64)
    assert wanted([entry], ["[[:alpha:]]*.txt"]) == [entry]
