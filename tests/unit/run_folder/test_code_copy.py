"""The copy of the code: the same bytes for the same files, a folder again, and what git says of it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Warned
from cloudtrain.core.notes import CodeCopy, RunNotes, SentCode
from cloudtrain.core.spec import JobSpec
from cloudtrain.lifecycle import planning
from cloudtrain.lifecycle.session import Context
from cloudtrain.provider.local import LocalProvider
from cloudtrain.run_folder import code_copy
from cloudtrain.source import git, tree
from cloudtrain.store import Store
from tests import plans


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A training package in a folder of its own."""
    folder = tmp_path / "project" / "net"
    (folder / "deep").mkdir(parents=True)
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "deep" / "žluťoučký.txt").write_text("kůň\n", encoding="utf-8")
    (folder / "go.sh").write_text("#!/bin/sh\n")
    (folder / "go.sh").chmod(0o755)
    (folder / "noise.bin").write_bytes(os.urandom(70_000))
    return folder


def scan(folder: Path) -> tree.Tree:
    return tree.scan(folder, cache=None)


def test_the_same_files_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    first = code_copy.pack(scan(package), tmp_path / "a.tar.gz")
    other = tmp_path / "elsewhere" / "net"
    shutil.copytree(package, other)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    second = code_copy.pack(scan(other), tmp_path / "b.tar.gz")
    data = (tmp_path / "a.tar.gz").read_bytes()
    assert first == second == CodeCopy(len(data), hashlib.sha256(data).hexdigest())
    assert data == (tmp_path / "b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
    assert code_copy.digest_in(tmp_path / "a.tar.gz") == scan(package).digest


def test_it_becomes_a_folder_again(package: Path, tmp_path: Path) -> None:
    files = scan(package)
    code_copy.pack(files, tmp_path / "a.tar.gz")
    place = code_copy.unpack(tmp_path / "a.tar.gz", files.digest, "net")
    assert place.name == "net" and place.is_relative_to(disk.state_dir())
    assert scan(place).digest == files.digest
    # What was altered there is made anew.
    (place / "train.py").write_text("evil")
    assert code_copy.unpack(tmp_path / "a.tar.gz", files.digest, "net") == place
    assert scan(place).digest == files.digest
    assert [path.name for path in place.parent.parent.iterdir()] == [place.parent.name]


def hostile(path: Path, name: str, **fields: Any) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4 if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
        for field, value in fields.items():
            setattr(member, field, value)
        archive.addfile(member, io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../evil", {}),
        ("/evil", {}),
        ("net/../../evil", {}),
        ("net\\evil", {}),
        ("net/.git/config", {}),
        ("net/.g\u200cit/config", {}),
        ("net/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("net/device", {"type": tarfile.CHRTYPE}),
        ("net/train.py", {}),
    ],
)
def test_an_archive_of_a_stranger_writes_nothing(tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    path = hostile(tmp_path / "a.tar.gz", name, **fields)
    with pytest.raises(UsageError, match="does not hold the code") as caught:
        code_copy.unpack(path, "00" * 32, "net")
    assert caught.value.code == "no_code"
    left = [found for found in tmp_path.rglob("*") if found.is_file() and found != path]
    assert left == []


@pytest.mark.parametrize("data", [b"", b"no gzip", b"\x1f\x8b\x08" + bytes(40)])
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(ValueError, match="not a complete gzip tar"):
        code_copy.entries(tmp_path / "a.tar.gz")


def test_a_cut_archive_is_named(package: Path, tmp_path: Path) -> None:
    code_copy.pack(scan(package), tmp_path / "a.tar.gz")
    data = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="not a complete gzip tar"):
        code_copy.entries(tmp_path / "a.tar.gz")


def test_files_that_change_meanwhile_are_no_copy(package: Path, tmp_path: Path) -> None:
    files = scan(package)
    (package / "train.py").write_text("print('other')\n")
    assert code_copy.pack(files, tmp_path / "a.tar.gz") is None
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".part", ".gz")] == []
    notes, told = plans.Memory(), []
    code_copy.keep(tmp_path, scan(package), files.digest, "local", notes, told.append)
    assert notes.read(RunNotes).code == SentCode(digest=files.digest, target_id="local")
    assert isinstance(told[0], Warned) and "have changed" in told[0].message


def test_a_copy_that_is_too_large_or_has_no_room_ends_no_run(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, told = scan(package), []
    notes = plans.Memory()
    code_copy.keep(tmp_path / "missing", files, files.digest, "local", notes, told.append)
    monkeypatch.setattr(code_copy, "MOST_BYTES", 1000)
    code_copy.keep(tmp_path, files, files.digest, "local", notes, told.append)
    assert [isinstance(event, Warned) for event in told] == [True, True]
    assert notes.read(RunNotes).code == SentCode(digest=files.digest, target_id="local")
    assert not (tmp_path / code_copy.NAME).exists()


def test_whether_it_was_sent_before_is_known_for_each_machine(package: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "registry.sqlite")
    run = store.add(plans.plan(tmp_path))
    run.folder.mkdir()
    assert not code_copy.kept(store.read_journal(run.name), "i-1")
    files = scan(package)
    code_copy.keep(run.folder, files, files.digest, "i-1", store.journal(run.name), lambda _: None)
    assert code_copy.kept(store.read_journal(run.name), "i-1")
    assert not code_copy.kept(store.read_journal(run.name), "i-2")


@pytest.mark.skipif(sys.platform == "win32", reason="the suffix says nothing there")
def test_without_a_repository_or_git_there_is_nothing_to_say(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package.parent / ".git").write_text("gitdir: none\n")
    assert git.state(package, scan(package).files) is None
    monkeypatch.setenv("PATH", str(package))
    assert git.state(package, scan(package).files) is None


PARTS = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)


@given(st.lists(PARTS | st.sampled_from(["aux.py", "a\\b", "a\nb", "x.part", "con", "run.json", ".env "]), max_size=3))
def test_what_is_sent_can_be_kept(parts: list[str]) -> None:
    name = "/".join(["net", *parts])
    try:
        code_copy.check_names([name])
    except UsageError as error:
        assert error.code == "bad_file_name" and repr(name) in error.message and error.hint
        return
    with tempfile.TemporaryDirectory() as folder:
        path = hostile(Path(folder, "a.tar.gz"), name, pax_headers={"path": name})
        assert list(code_copy.entries(path)) == [name]


def test_a_name_that_could_not_be_kept_is_refused_before_anything_starts(package: Path, tmp_path: Path) -> None:
    (package / "a\a.py").touch()
    spec = replace(plans.plan(tmp_path).spec, job=JobSpec(source=str(package)))
    context = Context(store=Store(tmp_path / "registry.sqlite"), provider=lambda spec: LocalProvider())
    with pytest.raises(UsageError, match=r"'net/a\\x07\.py'") as caught:
        planning.plan_run(spec, context)
    assert (caught.value.code, caught.value.consequence) == ("bad_file_name", "nothing was started")
