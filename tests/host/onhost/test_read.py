"""What is given out of a run directory: plain files that the contract names, and nothing that they lead to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def out(host: Any) -> Path:
    folder: Path = host.run_dir() / "out"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights/best.pt").write_bytes(bytes(range(256)) * 4096)
    (host.run_dir() / "console.log").write_bytes(b"log\r\n\x1a\xff")
    return folder


def refusal(host: Any, name: str, *options: str) -> str:
    done = host.call("read", "--name", name, *options)
    assert done.stdout == b""
    assert done.returncode == 1
    answer = json.loads(done.stderr)
    assert answer["ok"] is False
    return str(answer["code"])


@pytest.mark.parametrize("offset", [0, 1, 999_999, 1_048_576])
def test_raw_bytes_from_an_offset(host: Any, out: Path, offset: int, tmp_path: Path) -> None:
    body = (out / "weights/best.pt").read_bytes()
    argv = host.argv("read", "--name", "out/weights/best.pt", "--offset", str(offset))
    assert subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout == body[offset:]
    # A stdout that appends takes no sendfile: the fallback writes it.
    with (tmp_path / "copy").open("ab") as copy:
        subprocess.run(argv, stdout=copy, check=True)
    assert (tmp_path / "copy").read_bytes() == body[offset:]


def test_the_files_of_the_contract(host: Any, out: Path) -> None:
    assert host.call("read", "--name", "console.log").stdout == b"log\r\n\x1a\xff"
    for name in ("events.jsonl", "exit.json", "spec.json", "out/none", "out/weights/none", "out/none/none"):
        assert refusal(host, name) == "no_such_file"


@pytest.mark.parametrize(
    "name",
    ["supervise.py", "lock", "stop.json", "out", "code/job.py", "out/weights", "outside", "console.log/x"],
)
def test_other_files_are_not_given_out(host: Any, out: Path, name: str) -> None:
    (host.run_dir() / "supervise.py").write_text("x")
    (host.run_dir() / "outside").write_text("x")
    assert refusal(host, name) == "refused"


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "out/../lock", "out//x", "out/./x", "out/", "", "C:\\x", "out/../../../../etc/passwd"],
)
def test_names_that_lead_elsewhere(host: Any, out: Path, name: str) -> None:
    assert refusal(host, name) == "bad_name"


def test_links_and_devices_are_refused(host: Any, out: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (out / "link").symlink_to(secret / "key")
    (out / "folder").symlink_to(secret)
    (out / "dangling").symlink_to(secret / "none")
    os.mkfifo(out / "fifo")
    for name in ("out/link", "out/folder/key", "out/dangling", "out/fifo", "out/folder"):
        assert refusal(host, name) == "refused", name
    (host.run_dir() / "console.log").unlink()
    (host.run_dir() / "console.log").symlink_to(secret / "key")
    assert refusal(host, "console.log") == "refused"
    names = [file["name"] for file in host.ask("manifest")["files"]]
    assert names == ["weights/best.pt"]


def test_an_offset_past_the_end_is_told(host: Any, out: Path) -> None:
    assert host.call("read", "--name", "console.log", "--offset", "7").stdout == b""
    assert refusal(host, "console.log", "--offset", "8") == "shrunk"


def test_a_reader_that_goes_away(host: Any, out: Path) -> None:
    with subprocess.Popen(
        host.argv("read", "--name", "out/weights/best.pt"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert len(program.stdout.read(10)) == 10
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait(20) == 1


def test_names_as_the_job_wrote_them(host: Any, out: Path) -> None:
    for name in ("zażółć.csv", "two words", "line\nbreak", "quote'\"", "-dash"):
        (out / name).write_bytes(name.encode())
        assert host.call("read", f"--name=out/{name}").stdout == name.encode()
    listed = {file["name"] for file in host.ask("manifest")["files"]}
    assert {"zażółć.csv", "two words", "line\nbreak", "quote'\"", "-dash"} <= listed


def test_a_manifest_of_nothing(host: Any) -> None:
    assert host.ask("manifest") == {"ok": True, "files": [], "links": []}
