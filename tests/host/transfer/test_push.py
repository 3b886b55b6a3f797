"""The push, against the real program of hosts in real processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import ConnectionFailed, ExitCode, UsageError
from cloudtrain.core.events import StepProgress
from cloudtrain.source.tree import FileEntry, Tree
from cloudtrain.transfer.program import IMPORTED, sources
from cloudtrain.transport.local import LocalTransport
from tests.unit.transfer.test_push import Place, program_in


def test_first_push_sends_all_second_sends_no_file(place: Place) -> None:
    first = place.push()
    place.check()
    assert (first.files_sent, first.files_total, first.full) == (3, 3, True)
    assert first.digest == place.scan().digest
    assert place.transport.runs == 1 and sum(place.transport.chunks) == first.bytes_sent
    assert max(place.transport.chunks) <= 64 * 1024
    place.transport.chunks.clear()
    second = place.push()
    place.check()
    assert (second.files_sent, second.full, second.digest) == (0, False, first.digest)
    assert place.transport.runs == 2 and sum(place.transport.chunks) == second.bytes_sent < first.bytes_sent
    assert second.summary() == "3 files, unchanged"


def test_over_the_transport_of_this_computer(place: Place) -> None:
    place.transport = LocalTransport(place.host)  # type: ignore[assignment]
    place.write("big.bin", random.Random(1).randbytes(3_000_000))
    assert place.push().full
    place.check()
    place.write("train.py", "1")
    assert place.push().files_sent == 1
    subprocess.run(["rm", "-rf", str(place.tree_folder)], check=True)
    assert place.push().full  # the host answers before it has read all that was sent
    place.check()
    place.write("big.bin", random.Random(2).randbytes(3_000_000))
    tree = place.scan()
    place.write("big.bin", random.Random(3).randbytes(3_000_000))
    assert place.push(tree).digest == place.scan().digest
    place.check()


def test_a_change_sends_what_changed(place: Place) -> None:
    place.push()
    place.write("models/net.py", "class Net: pass\n")
    place.write("new file.py", "1")
    (place.source / "train.py").unlink()
    report = place.push()
    assert (report.files_sent, report.files_total, report.full) == (2, 3, False)
    place.check()
    place.write("models/net.py", "class Net: pass\n", 0o755)
    assert place.push().files_sent == 1
    place.check()


def test_a_file_becomes_a_folder_and_back(place: Place) -> None:
    place.push()
    (place.source / "run.sh").unlink()
    place.write("run.sh/inner.sh", "1")
    (place.source / "models" / "net.py").unlink()
    (place.source / "models").rmdir()
    place.write("models", "now a file")
    place.push()
    place.check()


def test_odd_names_arrive(tmp_path: Path) -> None:
    place = Place(tmp_path, 'it\'s a "job"\n训练')
    long = "/".join(["d" * 60] * 5)
    for name in ("a b.py", "q'\"$(touch x)`.py", "é\n.txt", f"{long}/{'f' * 200}", "-rf", "训练.py", "a" * 101):
        place.write(name, name)
    place.push()
    place.check()
    assert place.push().files_sent == 0


_FILES = st.dictionaries(
    st.sampled_from(["a", "b", "a/b", "a/c", "d/e/f", "d/e", "g h", "é"]),
    st.tuples(st.binary(max_size=40), st.sampled_from([0o644, 0o755])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=8, deadline=None)
@given(st.lists(_FILES, min_size=2, max_size=4))
def test_any_sequence_of_trees_arrives(states: list[dict[str, tuple[bytes, int]]]) -> None:
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDTRAIN_HOME", temporary + "/cloudtrain-home")
        place = Place(Path(temporary))
        for files in states:
            subprocess.run(["rm", "-rf", str(place.source)], check=True)
            place.source.mkdir()
            for name, (content, mode) in files.items():
                parents = ["/".join(name.split("/")[:depth]) for depth in range(1, name.count("/") + 1)]
                if not any(parent in files for parent in parents) and not (place.source / name).is_dir():
                    place.write(name, content, mode)
            place.push()
            place.check()


# --- what the host holds is not what was thought --------------------------------------------------


@pytest.mark.parametrize("loss", ["folder", "tree.json", "other tree", "killed while renaming"])
def test_a_host_that_holds_something_else_gets_everything(place: Place, loss: str) -> None:
    place.push()
    if loss == "folder":
        subprocess.run(["rm", "-rf", str(place.tree_folder)], check=True)
    elif loss in ("tree.json", "killed while renaming"):
        (place.tree_folder / "tree.json").unlink()
        (place.tree_folder / "files" / "job" / "train.py").write_text("half")
    else:
        other = Place(place.host.parent / "another computer")
        other.transport, other.host = place.transport, place.host
        other.write("theirs.py", "1")
        other.push(target_id="the same host, known to that computer by another name")
    before = place.transport.runs
    place.write("models/net.py", "changed")
    report = place.push()
    assert report.full and report.files_sent == 3 and place.transport.runs == before + 2
    place.check()


@pytest.mark.parametrize("spoilt", [b"", b"{}", b"[1]", b'{"v": 1, "digest": "x", "files": {"a": [1]}}', b"\xff"])
def test_a_spoilt_note_of_the_host_costs_a_full_push(place: Place, spoilt: bytes) -> None:
    place.push()
    cache = Path(os.environ["CLOUDTRAIN_HOME"]) / "cache" / "trees"
    (note,) = cache.glob("*/job-1.json")
    note.write_bytes(spoilt)
    assert place.push().full
    place.check()
    assert place.push().files_sent == 0


def test_a_note_that_cannot_be_written_is_no_failure(place: Place) -> None:
    cache = Path(os.environ["CLOUDTRAIN_HOME"]) / "cache"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file where the folder should be")
    assert place.push().full and place.push().full
    place.check()


def test_hosts_are_told_apart(place: Place) -> None:
    place.push()
    assert place.push(target_id="host-2").full


# --- files that change, links that break, hosts that cannot ---------------------------------------


def test_a_file_that_changes_after_the_scan_is_sent_as_it_is(place: Place) -> None:
    place.push()
    stale = place.scan()
    place.write("train.py", "changed after the scan")
    place.write("models/net.py", "x" * 9)
    stale = Tree(
        **{
            **{f: getattr(stale, f) for f in stale.__slots__},
            "files": {**stale.files, "job/train.py": FileEntry(5, "0" * 64, 420)},
        }
    )
    report = place.push(stale)
    assert report.digest == place.scan().digest
    place.check()


@pytest.mark.parametrize("how", ["rewritten", "longer", "shorter", "gone"])
def test_a_file_that_changes_while_it_is_sent(place: Place, how: str) -> None:
    place.write("big.bin", random.Random(1).randbytes(300_000))
    tree = place.scan()
    path = place.source / "big.bin"
    if how == "rewritten":
        path.write_bytes(random.Random(2).randbytes(300_000))
    elif how == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    elif how == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    report = place.push(tree)
    assert report.digest == place.scan().digest != tree.digest
    place.check()


def test_a_file_that_never_holds_still_is_named_and_the_host_keeps_its_tree(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.push()
    before = place.there()
    real, count = Tree.rescan, iter(range(100))

    def rescan(self: Tree) -> Tree:
        tree = real(self)
        place.write("train.py", f"{next(count)}")
        return tree

    place.write("train.py", "one")
    tree = place.scan()
    place.write("train.py", "two")
    monkeypatch.setattr(Tree, "rescan", rescan)
    with pytest.raises(UsageError, match=r"job/train\.py keeps changing") as caught:
        place.push(tree)
    assert caught.value.code == "file_changes" and caught.value.hint
    assert place.there() == before
    assert place.push().files_sent == 1
    place.check()


@pytest.mark.parametrize("cut", [1, 100, 20_000, 300_000])
def test_a_cut_link_leaves_the_old_tree_and_the_next_push_heals(place: Place, cut: int) -> None:
    place.push()
    before = place.there()
    place.write("train.py", random.Random(3).randbytes(600_000))
    place.transport.chunks.clear()
    place.transport.cut_after = cut
    with pytest.raises(ConnectionFailed) as caught:
        place.push()
    assert caught.value.exit_code == ExitCode.CONNECTION
    assert place.there() == before
    place.transport.cut_after = None
    report = place.push()
    assert not report.full and report.files_sent == 1
    place.check()


def test_a_push_that_is_cut_again_and_again_arrives(place: Place) -> None:
    """Each goes on where the one before was, within a file too, and what is left of them goes at the end."""
    for number in range(6):
        place.write(f"data/{number}.bin", random.Random(number).randbytes(200_000))
    sent = 0
    for _ in range(3):
        place.transport.chunks.clear()
        place.transport.cut_after = 400_000
        with pytest.raises(ConnectionFailed):
            place.push()
        sent += sum(place.transport.chunks)
    place.transport.chunks.clear()
    place.transport.cut_after = None
    told = place.push()
    place.check()
    assert told.files_sent == told.files_total
    assert sent + sum(place.transport.chunks) < 1_200_000 + 10 * 60_000  # each call brings the program as well
    assert sum(place.transport.chunks) < 500_000
    assert [path.name for path in place.tree_folder.iterdir() if "staging" in path.name] == []
    place.transport.chunks.clear()
    place.push()  # what was cut short is over: nothing is asked before
    assert place.transport.runs == 1 + 2 * 3 + 1


@pytest.mark.parametrize("how", ["gone", "spoilt", "invented"])
def test_what_an_earlier_push_left_is_not_believed(place: Place, how: str) -> None:
    place.push()
    place.write("big.bin", random.Random(3).randbytes(600_000))
    place.transport.chunks.clear()
    place.transport.cut_after = 300_000
    with pytest.raises(ConnectionFailed):
        place.push()
    place.transport.cut_after = None
    (left,) = place.tree_folder.glob("staging-*/*")
    if how == "gone":
        left.unlink()
    elif how == "spoilt":
        left.write_bytes(bytes(left.stat().st_size))
    else:
        left.write_bytes(bytes(10**6))
    place.push()
    place.check()


def test_a_host_without_python_is_a_clear_error(place: Place) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        place.push(python="no-such-python")
    assert caught.value.code == "push_failed" and "not found" in str(caught.value.detail)
    assert caught.value.consequence == "training has not started"


def test_what_a_login_script_prints_does_not_matter(place: Place) -> None:
    place.transport.greeting = "echo 'Welcome to {\"ok\": false}'; echo noise >&2; "
    place.push()
    place.check()


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is a POSIX shell's")
def test_a_disk_too_full_for_the_supervisor_itself_is_told_without_a_traceback(place: Place) -> None:
    place.write("train.py", "print(1)")
    place.transport.greeting = "ulimit -f 20; "
    with pytest.raises(ConnectionFailed, match="the disk of the host is full") as caught:
        place.push()
    assert caught.value.code == "disk_full" and caught.value.detail is None
    assert "free space" in (caught.value.hint or "")
    place.transport.greeting = ""
    (place.host / "work dir").chmod(0o755)
    place.push()


def test_a_run_directory_that_cannot_be_made_is_told_without_a_traceback(place: Place) -> None:
    place.write("train.py", "print(1)")
    (place.host / "work dir").write_text("a file stands in the way")
    with pytest.raises(ConnectionFailed, match="cannot be written") as caught:
        place.push()
    assert caught.value.code == "push_failed" and caught.value.detail is None


def test_progress_reaches_the_total(place: Place) -> None:
    place.push()
    told = [event for event in place.events if isinstance(event, StepProgress)]
    assert told and told[-1].done == told[-1].total == place.scan().bytes and told[-1].unit == "B"


def test_the_supervisor_is_compiled_once(place: Place) -> None:
    """The push leaves its compiled form in the run directory, and no verb compiles it again."""
    place.push()
    run = place.host / "work dir/runs/brave-otter"
    [kept] = (place.host / "work dir/lib").iterdir()
    assert program_in(kept) == sources()
    compiled = [*run.glob("__pycache__/*"), *run.glob("onhost/__pycache__/*")]
    assert len(compiled) == len(sources())
    for path in compiled:
        assert path.read_bytes() == (kept / path.relative_to(run)).read_bytes()
    for verb in ("poll", "manifest", "stop"):
        argv = [sys.executable, "-I", "-S", "-v", "-c", IMPORTED, verb, "--run", str(run), "tsrif"]
        done = subprocess.run(argv, capture_output=True, timeout=60)
        first, answer = done.stdout.splitlines()
        assert first == b"first" and json.loads(answer)["ok"]
        assert done.stderr.count(f"{run / 'onhost' / '__pycache__'}".encode()) >= 5
        assert b"wrote" not in done.stderr and b"bytecode is stale" not in done.stderr
    before = [path.stat().st_ino for path in compiled]
    place.push()
    assert [path.stat().st_ino for path in compiled] == before


def test_other_bytes_in_the_kept_supervisor_are_not_run(place: Place) -> None:
    place.push()
    [kept] = (place.host / "work dir/lib").glob("*/onhost/receive.py")
    was = kept.stat()
    kept.write_bytes(b"raise SystemExit('not this one')\n")
    os.utime(kept, (was.st_atime, was.st_mtime))
    place.push()
    place.check()
    assert kept.read_text("utf-8") == sources()["onhost/receive.py"]


def test_without_a_place_to_keep_it_the_push_is_the_same(place: Place) -> None:
    (place.host / "work dir").mkdir()
    (place.host / "work dir/lib").write_text("in the way")
    place.push()
    place.check()
    run = place.host / "work dir/runs/brave-otter"
    for folder in (run, run / "onhost"):
        subprocess.run(["rm", "-r", str(folder / "__pycache__")], check=True)
        (folder / "__pycache__").write_text("in the way")
    argv = [sys.executable, "-I", "-S", "-c", IMPORTED, "poll", "--run", str(run), "tsrif"]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[1])["state"] == "absent"
    place.push()
    place.check()


def test_a_file_of_the_job_cannot_pass_for_a_module(place: Place) -> None:
    place.push()
    run = place.host / "work dir/runs/brave-otter"
    for name in ("json", "os", "hashlib", "select", "code", "main", "base"):
        (run / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    argv = [sys.executable, "-I", "-S", "-c", IMPORTED, "manifest", "--run", str(run), "tsrif"]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[1])["ok"]
