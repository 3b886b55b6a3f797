"""The pull: hostile manifests, cut links, kill -9, full disks, two at once. No file is ever half there."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudtrain.core.disk import sha256
from cloudtrain.core.errors import ArtifactRefused, Busy, ConnectionFailed, ExitCode
from cloudtrain.core.events import Event, StepProgress, Warned, discard
from cloudtrain.core.notes import FileEntry
from cloudtrain.run_folder import copy_out
from cloudtrain.run_folder.files import is_here, sha256sums
from cloudtrain.transfer import pull as results
from cloudtrain.transfer.download import fetch
from cloudtrain.transfer.pull import pull
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Stream
from cloudtrain.transport.local import LocalTransport
from tests.program import put_program
from tests.unit.transfer.test_pull import Bytes, Host, entry_of, there

# --- this computer's own faults -------------------------------------------------------------------

PULLER = """
import sys, hashlib, time
from collections.abc import Sequence
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from cloudtrain.transfer.pull import pull
from cloudtrain.core.events import Event, StepProgress, Warned, discard
from cloudtrain.run_folder import copy_out
import test_pull as t
host = t.Host(weights__best=b"ab" * 2_000_000, weights__last=b"cd" * 1_500_000, metrics=b"{}")
host.pause = float(sys.argv[4])
print("ready", flush=True)
report = pull(host, host.entries(), Path(sys.argv[3]), emit=discard)
print(report.bytes, flush=True)
"""
BIG = {"weights/best": b"ab" * 2_000_000, "weights/last": b"cd" * 1_500_000, "metrics": b"{}"}


def puller(dest: Path, pause: float = 0.0) -> subprocess.Popen[str]:
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", PULLER, str(here.parents[2]), str(here), str(dest), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_kill_9_at_any_moment_leaves_only_parts(dest: Path) -> None:
    resumed = 0
    for attempt in range(8):
        with puller(dest, pause=0.004) as process:
            assert process.stdout and process.stdout.readline() == "ready\n"
            time.sleep(0.03 + 0.05 * attempt)
            process.kill()
        for name, content in there(dest).items():
            assert name == ".pull/lock" or name.endswith(".part") or BIG[name] == content
        resumed += any((dest / ".pull").glob("*.part"))
    assert resumed
    with puller(dest) as process:
        output, _ = process.communicate(timeout=60)
    fetched = int(output.split()[1])
    assert process.returncode == 0 and there(dest) == BIG
    assert fetched < sum(map(len, BIG.values()))  # what the killed ones had fetched was used


def test_two_pulls_at_once_both_end_well(dest: Path) -> None:
    processes = [puller(dest, pause=0.001) for _ in range(3)]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(int(output.split()[1]) for output in outputs) == sum(map(len, BIG.values()))
    assert there(dest) == BIG


def test_the_folder_of_parts_may_come_and_go_while_others_wait_for_it(
    dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, inside = time.sleep, []
    monkeypatch.setattr(results.time, "sleep", lambda _: sleep(0))

    def pulls() -> int:
        for _ in range(100):
            with results._alone(dest):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()
        return 100

    with ThreadPoolExecutor(4) as threads:
        assert [one.result() for one in [threads.submit(pulls) for _ in range(4)]] == [100] * 4
    assert there(dest) == {}


def test_a_pull_that_has_the_folder_for_long_makes_others_give_up(
    host: Host, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "WAIT_FOR_OTHER_S", 0.2)
    release, entered = threading.Event(), threading.Event()

    class Slow(Host):
        def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
            entered.set()
            assert release.wait(30)
            return host.send(asked)

    first = threading.Thread(target=pull, args=(Slow(), host.entries(), dest), kwargs={"emit": discard})
    first.start()
    try:
        assert entered.wait(30)
        with pytest.raises(Busy, match="another command is pulling") as caught:
            pull(host, host.entries(), dest, emit=discard)
        assert caught.value.exit_code == ExitCode.STILL_RUNNING
    finally:
        release.set()
        first.join(30)
    assert there(dest) == host.files


def test_a_full_disk_is_told_and_resumed(host: Host, tmp_path: Path) -> None:
    mount = tmp_path / "small disk"
    mount.mkdir()
    tiny = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(tiny, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        for check_first in (True, False):  # known beforehand, and found out by a write that fails
            with pytest.MonkeyPatch.context() as patch:
                if not check_first:
                    patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
                said = "'weights/best' has .* MB, and .* MB are free here" if check_first else "no space left"
                with pytest.raises(ConnectionFailed, match=said) as caught:
                    pull(host, host.entries(), mount, emit=discard)
            assert caught.value.code == "disk_full" and "the host has it all" in str(caught.value.consequence)
            found = there(mount)
            assert (found.pop("metrics"), found.pop("empty")) == (b"{}", b"")
            assert all(name.startswith(".pull/") for name in found)
        subprocess.run(["mount", "-o", "remount,size=2m", str(mount)], check=True)
        host.asked.clear()
        pull(host, host.entries(), mount, emit=discard)
        assert there(mount) == host.files
        assert host.asked[0][1] > 100_000  # what fitted was kept
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# --- with the real supervisor, and the rest -------------------------------------------------------


def test_with_the_real_supervisor(tmp_path: Path, dest: Path) -> None:
    run = tmp_path / "host" / "run"
    (run / "out" / "weights").mkdir(parents=True)
    put_program(run)
    content = random.Random(5).randbytes(3_000_000)
    (run / "out" / "weights" / "best.pt").write_bytes(content)
    (run / "out" / "link").symlink_to("/etc/passwd")
    (run / "console.log").write_bytes(b"hello\r\x1b[2J\n")

    host = Supervisor(LocalTransport(tmp_path), sys.executable, "host/run", "host")
    read = host.read
    good, link = entry_of("weights/best.pt", content), entry_of("link", b"root")
    report = pull(host, [good], dest, emit=discard)
    assert report.files == (good,) and report.bytes == len(content) and there(dest) == {"weights/best.pt": content}
    with pytest.raises(ArtifactRefused, match="not a plain file"):
        pull(host, [good, link], dest, emit=discard)
    with pytest.raises(ArtifactRefused, match="has no out/absent"):
        pull(host, [entry_of("absent", b"1")], dest, emit=discard)
    fetch(read, "console.log", dest / "console.log", 1000)
    with pytest.raises(ArtifactRefused, match="more than 5 bytes"):
        fetch(read, "console.log", dest / "console.log", 5)
    assert (dest / "console.log").read_bytes() == b"hello\r\x1b[2J\n"
    (dest / "other.log").write_bytes(b"as it was")
    with pytest.raises(ArtifactRefused):
        fetch(read, "events.jsonl", dest / "other.log", 1000)
    assert set(there(dest)) == {"weights/best.pt", "console.log", "other.log"}
    assert (dest / "other.log").read_bytes() == b"as it was"


def test_sums_are_those_of_sha256sum(host: Host, dest: Path) -> None:
    pull(host, host.entries(), dest, emit=discard)
    (dest / "run.json").write_text("{}")
    path = sha256sums(dest)
    lines = path.read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["empty", "metrics", "weights/best"]
    assert sha256(dest / "metrics") == hashlib.sha256(b"{}").hexdigest() and sha256(dest / "absent") is None
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", path.name], cwd=dest, check=True, capture_output=True)


class Counted(LocalTransport):
    """Counts the programs that it starts."""

    started = 0

    def stream(self, argv: Sequence[str]) -> Stream:
        self.started += 1
        return super().stream(argv)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The results on a host with the real program."""
    run = tmp_path / "host" / "run"
    (run / "out").mkdir(parents=True)
    put_program(run)
    return run / "out"


def test_many_small_files_come_in_one_stream_and_are_counted(tmp_path: Path, dest: Path, out: Path) -> None:
    names = [f"samples/{number // 100:03d}/{number:05d}.txt" for number in range(500)]
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"sample {name}\n")
    (out / "large").write_bytes(random.Random(5).randbytes(3_000_000))
    transport, told = Counted(tmp_path), list[Event]()
    host = Supervisor(transport, sys.executable, "host/run", "host")
    report = pull(host, host.manifest().files, dest, emit=told.append)
    assert transport.started == 2 and len(report.files) == 501  # a stream for all of them, and the large file
    assert there(dest) == {**{name: (out / name).read_bytes() for name in names}, "large": (out / "large").read_bytes()}
    [*_, last] = [event for event in told if isinstance(event, StepProgress)]
    assert (last.detail, last.done) == ("501 of 501 files,", last.total)


def test_what_had_come_whole_stays_when_the_link_breaks(tmp_path: Path, dest: Path, out: Path) -> None:
    for number in range(100):
        (out / f"{number:02d}").write_bytes(bytes([number]) * 1000)
    (out / "gone").write_bytes(b"x" * 2000)

    class Cut(Supervisor):
        def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
            with super().send(asked) as stream:
                return Bytes(b"".join(iter(lambda: stream.read(5), b"")), cut=50_000)

    host = Cut(LocalTransport(tmp_path), sys.executable, "host/run", "host")
    entries = host.manifest().files
    with pytest.raises(ConnectionFailed):
        pull(host, entries, dest, emit=discard)
    whole = len([name for name in there(dest) if len(name) == 2])
    assert 30 < whole < 60
    host = Supervisor(LocalTransport(tmp_path), sys.executable, "host/run", "host")
    (out / "gone").unlink()
    with pytest.raises(ArtifactRefused, match="'gone' was not taken: the run has no out/gone"):
        pull(host, entries, dest, emit=discard)
    assert there(dest) == {f"{number:02d}": bytes([number]) * 1000 for number in range(100)}


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere hold no such names")
def test_a_name_that_is_no_text_arrives_with_its_bytes_written_out(tmp_path: Path, dest: Path, out: Path) -> None:
    (out / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"latin")
    (out / r"a\udcb.txt").write_bytes(b"as it is written")
    (out / "link").symlink_to(os.fsdecode(b"caf\xe9.txt"))
    host = Supervisor(LocalTransport(tmp_path), sys.executable, "host/run", "host")
    report = pull(host, host.manifest().files, dest, emit=discard)
    expected = {r"caf\udce9.txt": b"latin", r"a\udcb.txt": b"as it is written", "link": b"latin"}
    assert there(dest) == expected and report.left == ()


def links_of(out: Path) -> None:
    (out / "ckpt" / "7").mkdir(parents=True)
    (out / "ckpt" / "7" / "model.pt").write_bytes(b"seven")
    (out / "epoch3.pt").write_bytes(b"three")
    (out / "last.ckpt").symlink_to("epoch3.pt")
    (out / "chain").symlink_to(out / "last.ckpt")  # absolute, by way of another
    (out / "latest").symlink_to("ckpt/7")
    (out / "ckpt" / "best.pt").symlink_to("../epoch3.pt")
    for name, to in (("home", "/etc"), ("up", "../spec.json"), ("dangles", "none.pt"), ("a", "b"), ("b", "a")):
        (out / name).symlink_to(to)
    (out / "ckpt" / "7" / "back").symlink_to("..")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("can_link", [True, False])
def test_links_among_the_results(
    tmp_path: Path, dest: Path, out: Path, can_link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise OSError(1, "not permitted")

    links_of(out)
    if not can_link:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    host, told = Supervisor(LocalTransport(tmp_path), sys.executable, "host/run", "host"), list[Event]()
    for _ in range(2):  # once more changes nothing
        report = pull(host, host.manifest().files, dest, emit=told.append)
        assert {entry.name: entry.link for entry in report.files if entry.link} == {
            "last.ckpt": "epoch3.pt", "chain": "epoch3.pt", "latest": "ckpt/7", "ckpt/best.pt": "epoch3.pt",
        }  # fmt: skip
        assert (dest / "last.ckpt").read_bytes() == (dest / "ckpt" / "best.pt").read_bytes() == b"three"
        assert (dest / "latest" / "model.pt").read_bytes() == b"seven"
        found = {path.name: path.readlink().as_posix() for path in dest.rglob("*") if path.is_symlink()}
        assert found == (
            {"last.ckpt": "epoch3.pt", "chain": "epoch3.pt", "latest": "ckpt/7", "best.pt": "../epoch3.pt"}
            if can_link
            else {}
        )
    assert {name for name, _ in report.left} == {"home", "up", "dangles", "a", "b", "ckpt/7/back"}
    [said, _] = [event.message for event in told if isinstance(event, Warned)]
    assert "home, a link to /etc" in said and "; and 1 more" in said
    assert all(is_here(entry, dest) for entry in report.files)
    copy_out.copy(dest, report.files, tmp_path / "copy")
    assert (tmp_path / "copy" / "latest" / "model.pt").read_bytes() == b"seven"
    (dest / "last.ckpt").unlink()
    (dest / "last.ckpt").write_bytes(b"other")
    assert [entry.name for entry in report.files if not is_here(entry, dest)] == ["last.ckpt"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_of_an_earlier_manifest_gives_way_and_a_lying_one_leads_nowhere(
    tmp_path: Path, dest: Path, out: Path
) -> None:
    links_of(out)
    host = Supervisor(LocalTransport(tmp_path), sys.executable, "host/run", "host")
    pull(host, host.manifest().files, dest, emit=discard)
    (out / "latest").unlink()
    (out / "latest").mkdir()
    (out / "latest" / "model.pt").write_bytes(b"eight")
    pull(host, host.manifest().files, dest, emit=discard)
    assert (dest / "latest" / "model.pt").read_bytes() == b"eight" and not (dest / "latest").is_symlink()
    assert (dest / "ckpt" / "7" / "model.pt").read_bytes() == b"seven"
    lies = ["/etc/passwd", "../../x", "..", ".", "", "liar", "C:/x", "ckpt/../..", "a/b"]
    entries = [FileEntry(f"liar{number}", 0, "").to(to) for number, to in enumerate(lies)]
    report = pull(host, [entry_of("epoch3.pt", b"three"), *entries], dest, emit=discard)
    assert len(report.left) == len(lies) and not list(dest.glob("liar*"))
