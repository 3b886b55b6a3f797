"""The folder of a real run, file by file: all that should be in it, and nothing of whose computer it was."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cloudtrain.report import write_facts
from cloudtrain.report.sources import of_path
from cloudtrain.run_folder import verify
from cloudtrain.run_folder.files import sha256sums
from tests.region.whole_path.place import ROOT, Place

pytestmark = pytest.mark.mnist

FILES = {
    *("run.json", "config.toml", "code.tar.gz", "SHA256SUMS", "report.html"),
    *("console.log", "console.times", "events.jsonl", "metrics.jsonl", "metrics.csv", "metrics.json"),
    *("predictions.csv", "model_summary.txt", "model_summary.json", "env/requirements.txt", "checkpoints/last.pt"),
    *(f"weights/{which}.{kind}" for which in ("best", "last") for kind in ("safetensors", "pt")),
}
# Written after the results were checked, from them.
UNLISTED = {"run.json", "SHA256SUMS", "report.html"}
# As earlier versions began it.
CARD = (
    b"---\n# Made by cloudtrain from run.json; once edited it is kept as it is. 0123456789abcdef.\n"
    b'library_name: "pytorch"\n---\n\n# tiny-otter\n'
)
ADDRESS = re.compile(rb"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")


def test_every_file_is_there_and_under_a_checksum(trained: Place) -> None:
    folder = trained.folder("tiny-otter")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found - {"env/gpu.txt"} == FILES
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    assert listed == found - UNLISTED
    receipt = json.loads((folder / "run.json").read_bytes())
    assert "env/requirements.txt" in {entry["name"] for entry in receipt["artifacts"]}
    checks = verify.check(folder).checks
    assert not [check for check in checks if check.verdict.value in ("extra", "differs", "missing")]
    lines = (folder / "env" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = [Requirement(line) for line in lines if not line.startswith("#")]
    assert f"torch=={receipt['machine']['torch']}" in map(str, named)


def test_a_folder_of_before_is_whole(trained: Place, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-otter"
    shutil.copytree(trained.folder("tiny-otter"), folder)
    shutil.rmtree(folder / "env")
    receipt = json.loads((folder / "run.json").read_bytes())
    receipt["artifacts"] = [entry for entry in receipt["artifacts"] if not entry["name"].startswith("env/")]
    (folder / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    sums = (folder / "SHA256SUMS").read_bytes()
    path = folder / "README.md"
    for card in (CARD, CARD.replace(b"library_name", b"license: mit\nlibrary_name"), CARD.replace(b"\n", b"\r\n")):
        path.write_bytes(card)
        found = verify.check(folder)
        assert not found.wrong and "README.md" not in {check.subject for check in found.checks}
        assert b"README.md" not in sha256sums(folder).read_bytes()
        write_facts(of_path(folder))
        assert path.read_bytes() == card
    path.write_text("my notes")  # no card of ours
    assert [check.subject for check in verify.check(folder).checks if check.verdict.value == "extra"] == ["README.md"]
    assert b"  README.md\n" in sha256sums(folder).read_bytes() and b"  README.md\n" not in sums


def test_no_file_says_whose_computer_it_was(trained: Place) -> None:
    folder = trained.folder("tiny-otter")
    private = [
        os.fspath(path) for path in (ROOT, trained.home, trained.cwd, Path(trained.environment["CLOUDTRAIN_DATA"]))
    ]
    home = os.fspath(Path.home())
    private += [home] if len(home) > 5 else []
    words = [platform.node(), getpass.getuser()]
    # Names that say nothing about anybody, or that are words of a log.
    words = [word for word in words if len(word) > 2 and word not in ("root", "runner", "localhost", "test", "user")]
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.name == "code.tar.gz":
            with tarfile.open(path) as archive:
                members = archive.getmembers()
                assert not [member for member in members if member.uname or member.gname or member.uid or member.mtime]
                assert not [member.name for member in members if not member.name.startswith("job/")]
                data = b"".join(file.read() for member in members if (file := archive.extractfile(member)))
        assert not [text for text in private if text.encode() in data], path.name
        if path.suffix in (".json", ".toml", ".log", ".jsonl", ".md", ".html", ".txt"):
            assert not [word for word in words if re.search(rf"\b{re.escape(word)}\b".encode(), data)], path.name
            assert not ADDRESS.findall(data), path.name
