"""What a push may bring, and that nothing else than exactly that ever counts as a tree."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.transfer.program import BOOT, PASSING_LOADER, packed


def entry(body: bytes, mode: int = 0o644) -> list[Any]:
    return [len(body), hashlib.sha256(body).hexdigest(), mode]


def pack(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def digest_of(files: dict[str, list[Any]]) -> str:
    lines = [b"%s\0%d\0%s\0%d\n" % (n.encode(), s, h.encode(), m) for n, (s, h, m) in files.items()]
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def tree_of(host: Any) -> dict[str, bytes]:
    top = host.workdir / "trees" / "tree-1" / "files"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def mark(host: Any) -> dict[str, Any] | None:
    path = host.workdir / "trees" / "tree-1" / "tree.json"
    return json.loads(path.read_bytes()) if path.exists() else None


def no_staging(host: Any) -> None:
    assert sorted(path.name for path in (host.workdir / "trees" / "tree-1").iterdir() if "staging" in path.name) == []


def test_full_push_then_changes(host: Any) -> None:
    first = {"a.py": b"a", "deep/er/b.sh": b"b" * 100_000, "ż ó\n'\"": b"c", "gone/x": b"x"}
    files = {name: entry(body, 0o755 if name.endswith(".sh") else 0o644) for name, body in first.items()}
    answer = host.receive(files, pack(*first.items()))
    assert answer == {"ok": True, "digest": answer["digest"], "files": 4, "bytes": 100_003}
    assert tree_of(host) == first
    assert mark(host) == {"v": 1, "digest": answer["digest"], "files": files}
    script = host.workdir / "trees/tree-1/files/deep/er/b.sh"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755

    after = {"a.py": entry(b"A2"), "deep/er/b.sh": files["deep/er/b.sh"], "ż ó\n'\"": files["ż ó\n'\""]}
    digest = digest_of(after)
    changed = host.receive(
        {"a.py": after["a.py"]}, pack(("a.py", b"A2")), base=answer["digest"], delete=("gone/x",), digest=digest
    )
    assert (changed["ok"], changed["files"], changed["bytes"]) == (True, 1, 2)
    assert tree_of(host) == {"a.py": b"A2", "deep/er/b.sh": first["deep/er/b.sh"], "ż ó\n'\"": b"c"}
    assert not (host.workdir / "trees/tree-1/files/gone").exists()

    unchanged = host.receive({}, b"", base=digest, digest=digest)
    assert (unchanged["ok"], unchanged["files"]) == (True, 0)
    no_staging(host)


def test_changes_against_another_tree_need_a_full_push(host: Any) -> None:
    digest = host.push({"a.py": b"a"})
    assert host.receive({}, b"", base="0" * 64, digest="1" * 64)["code"] == "need_full"
    assert host.receive({}, b"", base=digest, tree="never-seen", digest=digest)["code"] == "need_full"
    assert mark(host) is not None


def test_a_full_push_takes_away_what_is_not_in_it(host: Any) -> None:
    host.push({"a.py": b"a", "b": b"b"})
    host.push({"b/c": b"now a folder", "a.py": b"a"})
    assert tree_of(host) == {"b/c": b"now a folder", "a.py": b"a"}
    host.push({"b": b"a file again"})
    assert tree_of(host) == {"b": b"a file again"}


@pytest.mark.parametrize(
    "name",
    ["/etc/x", "../x", "a/../../x", "a//b", "a/.", ".", "..", "", "C:\\x", "C:x", "c:/x", "\\\\server\\x", "a\0b"],
)
@pytest.mark.parametrize("where", ["files", "delete"])
def test_names_that_lead_elsewhere_are_refused(host: Any, name: str, where: str) -> None:
    before = host.push({"a.py": b"a"})
    if where == "files":
        answer = host.receive({name: entry(b"evil")}, pack((name.replace("\0", ""), b"evil")))
    else:
        answer = host.receive({}, b"", base=before, delete=(name,), digest=before)
    assert answer["code"] == "bad_name"
    assert mark(host) is not None
    assert not (host.workdir / "x").exists()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("a.py", b"a"), ("evil", b"e")], "refused"),
        ([("../a.py", b"a")], "refused"),
        ([("/a.py", b"a")], "refused"),
        ([("a.py", b"a"), ("a.py", b"b")], "refused"),
        ([member("a.py", tarfile.SYMTYPE, "/etc/passwd")], "refused"),
        ([member("a.py", tarfile.LNKTYPE, "/etc/passwd")], "refused"),
        ([member("a.py", tarfile.FIFOTYPE)], "refused"),
        ([member("a.py", tarfile.CHRTYPE)], "refused"),
        ([member("a.py", tarfile.DIRTYPE)], "refused"),
        ([("a.py", b"b")], "damaged"),
        ([("a.py", b"aa")], "damaged"),
        ([], "cut_short"),
    ],
)
def test_an_archive_with_anything_else_is_refused(host: Any, members: list[Any], code: str) -> None:
    host.push({"before": b"1"})
    answer = host.receive({"a.py": entry(b"a")}, pack(*members))
    assert answer["code"] == code
    assert tree_of(host) == {"before": b"1"}
    assert mark(host) is not None
    no_staging(host)


def test_links_on_the_host_are_not_written_through(host: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("as it was")
    digest = host.push({"sub/a": b"a", "b": b"b"})
    files = host.workdir / "trees/tree-1/files"
    (files / "sub/a").unlink()
    (files / "sub").rmdir()
    (files / "sub").symlink_to(outside)
    (files / "b").unlink()
    (files / "b").symlink_to(outside / "precious")
    after = {"sub/precious": entry(b"new"), "b": entry(b"B")}
    total = digest_of(after)
    answer = host.receive(
        after, pack(("sub/precious", b"new"), ("b", b"B")), base=digest, delete=("sub/a",), digest=total
    )
    assert answer["ok"], answer
    assert (outside / "precious").read_text() == "as it was"
    assert tree_of(host) == {"sub/precious": b"new", "b": b"B"}


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_transfer_that_ends_early_changes_nothing(host: Any, share: float) -> None:
    host.push({"before": b"1"})
    bodies = {f"file-{i}": os.urandom(5000) for i in range(20)}
    archive = pack(*bodies.items())
    answer = host.receive({name: entry(body) for name, body in bodies.items()}, archive[: int(len(archive) * share)])
    assert answer["code"] == "cut_short"
    assert tree_of(host) == {"before": b"1"}
    host.push({"before": b"2"})
    no_staging(host)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_stream_that_was_changed_on_its_way_changes_nothing(host: Any, share: float) -> None:
    host.push({"before": b"1"})
    bodies = {f"file-{i}": os.urandom(500) * 10 for i in range(20)}
    archive = bytearray(pack(*bodies.items()))
    at = int(len(archive) * share)
    archive[at : at + 20] = bytes(255 - byte for byte in archive[at : at + 20])
    answer = host.receive({name: entry(body) for name, body in bodies.items()}, bytes(archive))
    assert answer["code"] in ("bad_stream", "damaged", "refused", "cut_short")
    assert tree_of(host) == {"before": b"1"}
    no_staging(host)


def test_garbage_is_refused(host: Any) -> None:
    argv = [sys.executable, str(host.program), "receive", "--workdir", str(host.workdir), "--tree", "tree-1"]
    for stdin, code in (
        (b"", "cut_short"),
        (b'{"v": 1', "cut_short"),
        (b"not json\n", "bad_header"),
        (b"[]\n", "bad_header"),
        (b'{"v": 2}\n', "bad_header"),
        (b'{"v": 1, "base": null, "digest": "x", "files": {"a": [1, "x", 420]}}\n', "bad_header"),
        (b'{"v": 1, "base": null, "digest": "x", "files": {"a": [-1, "' + b"0" * 64 + b'", 420]}}\n', "bad_header"),
        (b'{"v": 1, "base": null, "digest": "x", "files": {"a": [1, "' + b"0" * 64 + b'", 2541]}}\n', "bad_header"),
        (b'{"v": 1, "base": null, "digest": "x", "files": {"a": [1, "' + b"0" * 64 + b'", 420]}}\n', "bad_header"),
    ):
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=60)
        assert json.loads(done.stdout)["code"] == code, stdin
        assert (done.returncode, done.stderr) == (1, b"")
    answer = host.receive({"a.py": entry(b"a")}, b"this is no gzip stream at all, is it?")
    assert answer["code"] == "bad_stream"
    for key in ("../up", "a/b", "", ".hidden", "a b"):
        assert host.receive({}, b"", tree=key)["code"] == "bad_name"


def test_a_file_cannot_be_a_folder_too(host: Any) -> None:
    assert host.receive({"a": entry(b"1"), "a/b": entry(b"2")}, b"")["code"] == "bad_header"


def test_killed_at_any_moment_half_a_tree_is_never_taken_for_one(host: Any) -> None:
    host.push({f"file-{i}": b"1" for i in range(300)})
    bodies = {f"file-{i}": b"2" * 20_000 for i in range(300)}
    files = {name: entry(body) for name, body in bodies.items()}
    digest = digest_of(files)
    header = {"v": 1, "base": None, "digest": digest, "files": files, "delete": []}
    stdin = json.dumps(header).encode() + b"\n" + pack(*bodies.items())
    argv = [host.python, str(host.program), "receive", "--workdir", str(host.workdir), "--tree", "tree-1"]
    for delay in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as program:
            assert program.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                program.stdin.write(stdin)
            time.sleep(delay)
            program.send_signal(signal.SIGKILL)
            with contextlib.suppress(BrokenPipeError):
                program.stdin.close()
        found = mark(host)
        if found is not None:
            for name, (size, sha256, _) in found["files"].items():
                body = (host.workdir / "trees/tree-1/files" / name).read_bytes()
                assert (len(body), hashlib.sha256(body).hexdigest()) == (size, sha256)
    assert host.receive(files, pack(*bodies.items()))["ok"]
    assert tree_of(host) == bodies
    no_staging(host)


def test_a_push_that_fell_silent_keeps_nobody_waiting(host: Any) -> None:
    header = {"v": 1, "base": None, "digest": digest_of({"a": entry(b"a")}), "files": {"a": entry(b"a")}}
    argv = [host.python, str(host.program), "receive", "--workdir", str(host.workdir), "--tree", "tree-1"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
        assert silent.stdin is not None
        silent.stdin.write(json.dumps(header).encode() + b"\n")
        silent.stdin.flush()
        folder = host.workdir / "trees/tree-1"
        deadline = time.monotonic() + 60
        while not any(path.is_dir() and "staging" in path.name for path in folder.glob("*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        host.push({"b": b"b"})
        # The silent one is alive: what it has staged is not swept up.
        assert any("staging" in path.name for path in folder.iterdir())
        silent.kill()
    host.push({"c": b"c"})
    no_staging(host)
    assert tree_of(host) == {"c": b"c"}


def test_two_pushes_at_once_end_as_one_of_them(host: Any) -> None:
    trees = [{f"file-{i}": os.urandom(2000) for i in range(50)} for _ in range(2)]
    programs = []
    for bodies in trees:
        files = {name: entry(body) for name, body in bodies.items()}
        header = {"v": 1, "base": None, "digest": digest_of(files), "files": files}
        argv = [host.python, str(host.program), "receive", "--workdir", str(host.workdir), "--tree", "tree-1"]
        program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdin is not None
        program.stdin.write(json.dumps(header).encode() + b"\n" + pack(*bodies.items()))
        programs.append(program)
    for program in programs:
        assert json.loads(program.communicate(timeout=60)[0])["ok"]
    assert tree_of(host) in trees


SMALL_DISK = """
import subprocess, sys
small, *argv = sys.argv[1:]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + sys.argv[1].rpartition("-")[2], "none", small]).returncode:
    sys.exit("cannot mount")
done = subprocess.run(argv)
subprocess.run(["find", small, "-name", "*staging*"], stdout=sys.stderr)
subprocess.run(["find", small, "-name", "tree.json"], stdout=sys.stderr)
sys.exit(done.returncode)
"""


# 6 MB do not fit into 2 MB at all; 6 MB as 12,000 small files fit by their sizes into 7 MB, and not by their blocks.
@pytest.mark.parametrize(("size", "files", "each"), [("2m", 1, 6_000_000), ("7m", 12_000, 500)])
def test_a_full_disk_is_said_and_leaves_nothing(host: Any, tmp_path: Path, size: str, files: int, each: int) -> None:
    small = tmp_path / f"small-{size}"
    small.mkdir()
    bodies = {f"file-{i}": b"x" * each for i in range(files)}
    entries = {name: entry(body) for name, body in bodies.items()}
    digest = digest_of(entries)
    header = {"v": 1, "base": None, "digest": digest, "files": entries, "delete": []}
    argv = ["unshare", "--mount", "--", sys.executable, "-c", SMALL_DISK, str(small)]
    argv += [sys.executable, str(host.program), "receive", "--workdir", str(small), "--tree", "t"]
    stdin = json.dumps(header).encode() + b"\n" + pack(*bodies.items())
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=120)
    if b"cannot mount" in done.stderr or b"unshare" in done.stderr:
        pytest.skip("no right to mount a small disk")
    answer = json.loads(done.stdout)
    assert answer["code"] == "disk_full"
    assert "disk of the host is full" in answer["message"]
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_folder_that_cannot_be_written_is_said(host: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    argv = [sys.executable, str(host.program), "receive", "--workdir", str(blocked), "--tree", "t"]
    header = {"v": 1, "base": None, "digest": hashlib.sha256(b"").hexdigest(), "files": {}, "delete": []}
    done = subprocess.run(argv, input=json.dumps(header).encode() + b"\n", capture_output=True, timeout=60)
    assert json.loads(done.stdout)["code"] in ("host_error", "not_writable")
    assert done.stderr == b""


def test_the_loader_runs_it_from_its_source(host: Any, make_host: Callable[..., Any]) -> None:
    # One program, whose stdin brings the sources first and then what `receive` reads; no file of it is anywhere.
    header = {"v": 1, "base": None, "digest": digest_of({"a.py": entry(b"a")}), "files": {"a.py": entry(b"a")}}
    stdin = packed(PASSING_LOADER) + json.dumps(header).encode() + b"\n" + pack(("a.py", b"a"))
    words = ["receive", "--workdir", str(host.workdir), "--tree", "tree-1", "tsrif"]
    argv = [sys.executable, "-I", "-S", "-c", BOOT, *words]
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=60)
    first, answer = done.stdout.splitlines()
    assert first == b"first" and json.loads(answer)["ok"] is True, done.stderr
    assert tree_of(host) == {"a.py": b"a"}
