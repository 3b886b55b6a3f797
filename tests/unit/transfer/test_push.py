"""The archive that is sent, and answers of a host that cannot be believed."""

from __future__ import annotations

import ast
import gzip
import io
import json
import random
import shlex
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Event
from cloudtrain.source.archive import CHUNK, Archive
from cloudtrain.source.tree import Tree, scan
from cloudtrain.transfer.program import BOOT, IMPORTED, LOADER, PASSING_LOADER, sources
from cloudtrain.transfer.push import PushReport, push
from cloudtrain.transport.base import Completed, Stream, Transport


class Here(Transport):
    """Programs on this computer, through a shell as on a host; counts what is sent and can cut it short."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0
        self.chunks: list[int] = []
        self.cut_after: int | None = None
        self.greeting = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        timeout: float = 60.0,
        awaits: bytes = b"",
    ) -> Completed:
        self.runs += 1
        command = self.greeting + "exec " + shlex.join(argv)
        with subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        ) as process:
            assert process.stdin and process.stdout and process.stderr
            said: list[bytes] = []
            reader = threading.Thread(target=lambda: said.append(process.stdout.read()))  # type: ignore[union-attr]
            reader.start()
            cut = False
            try:
                for chunk in [stdin] if isinstance(stdin, bytes) else stdin:
                    self.chunks.append(len(chunk))
                    process.stdin.write(chunk)
                    if self.cut_after is not None and sum(self.chunks) > self.cut_after:
                        cut = True
                        break
                process.stdin.close()
            except BrokenPipeError:
                pass
            errors = process.stderr.read()
            reader.join(timeout)
            code = process.wait(timeout)
        if cut:
            raise ConnectionFailed("lost the connection")
        return Completed(code, said[0], errors)

    def stream(self, argv: Sequence[str]) -> Stream:
        raise NotImplementedError

    def close(self) -> None:
        pass


def program_in(folder: Path) -> dict[str, str]:
    """The program's files in a run directory, or where it is kept."""
    found = [folder / "supervise.py", *(folder / "onhost").glob("*.py")]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in found}


class Place:
    """A source folder here, a host beside it, and pushes between them."""

    def __init__(self, folder: Path, source: str = "job") -> None:
        self.source = folder / "home" / source
        self.host = folder / "host"
        self.source.mkdir(parents=True)
        self.host.mkdir()
        self.transport = Here(self.host)
        self.events: list[Event] = []

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def scan(self) -> Tree:
        return scan(self.source, cache=self.host.parent / "cache")

    def push(self, tree: Tree | None = None, *, python: str = sys.executable, target_id: str = "host-1") -> PushReport:
        return push(
            self.transport,
            tree or self.scan(),
            python=python,
            workdir="work dir",
            run_dir="work dir/runs/brave-otter",
            key="job-1",
            target_id=target_id,
            emit=self.events.append,
        )

    @property
    def tree_folder(self) -> Path:
        return self.host / "work dir" / "trees" / "job-1"

    def there(self) -> dict[str, tuple[bytes, bool]]:
        top = self.tree_folder / "files"
        found = (path for path in top.rglob("*") if path.is_file())
        return {p.relative_to(top).as_posix(): (p.read_bytes(), bool(p.stat().st_mode & 0o100)) for p in found}

    def expected(self) -> dict[str, tuple[bytes, bool]]:
        tree = self.scan()
        return {path: ((tree.root / path).read_bytes(), entry.mode == 0o755) for path, entry in tree.files.items()}

    def check(self) -> None:
        assert self.there() == self.expected()
        saved = json.loads((self.tree_folder / "tree.json").read_text())
        assert saved["digest"] == self.scan().digest
        assert program_in(self.host / "work dir/runs/brave-otter") == sources()
        assert not list(self.host.rglob("*.part"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.write("train.py", "print('hi')\n" * 1000)
    place.write("models/net.py", "class Net: ...\n")
    place.write("run.sh", "#!/bin/sh\n", 0o755)
    return place


def answering(code: int, answer: bytes) -> Callable[..., Completed]:
    """A `run` that takes everything and answers with the first line and `answer`."""

    def run(self: Here, argv: Sequence[str], *, stdin: Iterable[bytes], timeout: float, awaits: bytes) -> Completed:
        assert list(stdin) and argv[-1][::-1].encode() + b"\n" == awaits
        return Completed(code, awaits + answer, b"")

    return run


def test_a_host_that_answers_with_another_digest_is_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Here, "run", answering(0, b'{"ok": true, "digest": "0"}\n'))
    with pytest.raises(ConnectionFailed, match="not the files that were sent"):
        place.push()


def test_a_full_disk_of_the_host_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b'{"ok": false, "code": "disk_full", "message": "no space left"}\n'
    monkeypatch.setattr(Here, "run", answering(1, answer))
    with pytest.raises(ConnectionFailed, match="no space left") as caught:
        place.push()
    assert caught.value.code == "disk_full" and caught.value.hint


# --- the stream itself ----------------------------------------------------------------------------


def test_boot_survives_any_shell_and_old_pythons() -> None:
    for words in (BOOT, IMPORTED):
        assert not set(words) & set("'\"\\$`!%&|<>*?#~\n")
        ast.parse(words, feature_version=(3, 8))
    for source in (LOADER, PASSING_LOADER, *sources().values()):
        ast.parse(source, feature_version=(3, 8))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 511, 512, 513, 20_000, 300_000]), st.booleans(), st.sampled_from(["", ".npz"])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_stream_is_one_plain_gzip_tar(sizes: list[tuple[int, bool, str]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "job"
        source.mkdir()
        for index, (size, dense, suffix) in enumerate(sizes):
            content = random.Random(index).randbytes(size) if dense else b"abcd" * (size // 4) + b"x" * (size % 4)
            (source / f"{index}{suffix}").write_bytes(content)
        tree = scan(source, cache=None)
        read: list[int] = []
        archive = Archive(tree.root, tree.files, read.append)
        chunks = list(archive)
        assert archive.changed is None and archive.sent == sum(map(len, chunks)) and sum(read) == tree.bytes
        assert max(map(len, chunks)) <= CHUNK <= 64 * 1024
        data = b"".join(chunks)
        assert gzip.decompress(data)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as tar:
            found = {member.name: (tar.extractfile(member).read(), member.mode) for member in tar}  # type: ignore[union-attr]
        assert found == {path: ((tree.root / path).read_bytes(), entry.mode) for path, entry in tree.files.items()}


def test_what_does_not_shrink_is_stored_and_what_does_is_compressed(tmp_path: Path) -> None:
    source = tmp_path / "job"
    source.mkdir()
    (source / "dense.bin").write_bytes(random.Random(1).randbytes(2_000_000))
    dense = scan(source, cache=None)
    size = sum(map(len, Archive(dense.root, dense.files, lambda n: None)))
    assert 2_000_000 < size < 2_004_000
    (source / "dense.bin").write_bytes(b"")
    (source / "text.py").write_bytes(b"for epoch in range(1, epochs + 1):\n" * 50_000)
    text = scan(source, cache=None)
    assert sum(map(len, Archive(text.root, text.files, lambda n: None))) < text.bytes / 20


def test_an_archive_of_a_changed_file_ends_early(tmp_path: Path) -> None:
    source = tmp_path / "job"
    source.mkdir()
    (source / "a").write_bytes(b"1")
    tree = scan(source, cache=None)
    (source / "a").write_bytes(b"2")
    archive = Archive(tree.root, tree.files, lambda n: None)
    data = b"".join(archive)
    assert archive.changed == "job/a"
    with pytest.raises((EOFError, gzip.BadGzipFile)):
        gzip.decompress(data or b"\x1f\x8b")
