"""A run's folder that others may write: what they put in place of its files is neither followed nor waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.cli.following import show_log
from cloudtrain.console.log_text import LogView
from cloudtrain.core import disk
from cloudtrain.core.errors import ArtifactRefused, ConnectionFailed, UsageError
from cloudtrain.core.events import LogLines
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.told import read_events
from cloudtrain.report import facts
from cloudtrain.run_folder import code_copy, copy_out, files, generated, receipt, verify
from cloudtrain.run_folder.log_times import LogTimes
from cloudtrain.store import Store
from cloudtrain.transfer.download import fetch_anew
from cloudtrain.transfer.follow import GrowingFile
from tests import plans
from tests.unit.transfer.test_pull import Bytes, entry_of

SECRET = b'{"v": 1, "kind": "epoch", "epoch": 1, "note": "private"}\n'
NAMES = (
    *("run.json", "console.log", "console.times", "console.1.log", "events.jsonl", "events.1.jsonl", "code.tar.gz"),
    *("metrics.json", "metrics.jsonl", "predictions.csv", "model_summary.txt", "report.html", "SHA256SUMS"),
)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows, and it has no such FIFOs")


@pytest.fixture(params=["link", "fifo"])
def planted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run's folder in which all of its files are links to a private file, or FIFOs that nobody writes into."""
    folder = tmp_path / "runs" / "brave-otter"
    folder.mkdir(parents=True)
    (tmp_path / "private").write_bytes(SECRET)
    for name in NAMES:
        if request.param == "link":
            (folder / name).symlink_to(tmp_path / "private")
        else:
            os.mkfifo(folder / name)
    return folder


def test_nothing_is_read_by_what_was_planted(planted: Path, tmp_path: Path) -> None:
    found = facts.gather({"name": "brave-otter"}, planted)
    assert (found.epochs, found.log, found.answers, found.layers) == ((), (), None, None)
    assert list(read_events(planted / "events.jsonl")) == [] and LogTimes.read(planted / "console.times").at(1) is None
    assert [disk.sha256(planted / name) for name in NAMES] == [None] * len(NAMES)
    assert generated.report_in(planted) is None and files.files_of_attempts(planted, "console.log")[:-1] == []
    with pytest.raises(UsageError, match="no plain file is there"):
        verify.load(planted)
    with pytest.raises((OSError, ValueError)):
        code_copy.digest_in(planted / "code.tar.gz")
    shown: list[object] = []
    row = Store(tmp_path / "registry.sqlite").add(plans.plan(tmp_path / "runs", name="brave-otter"))
    assert row.folder == planted
    for reporter in (LogView(), type("Seen", (), {"emit": lambda self, event: shown.append(event)})()):
        show_log(row, reporter, last=None)
    assert b"".join(event.data for event in shown if isinstance(event, LogLines)) == b""


def test_what_was_planted_differs(planted: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "registry.sqlite")
    row = store.add(plans.plan(tmp_path / "runs", name="brave-otter"))
    entry = entry_of("metrics.jsonl", SECRET)
    store.write_journal(row.name, RunNotes(pulled=(entry,)))
    receipt.write(row, store)
    [wrong] = [check for check in verify.check(planted, store).wrong if check.subject == "metrics.jsonl"]
    assert wrong.detail == "it is not a plain file" and not files.is_here(entry, planted)
    files.sha256sums(planted)
    assert "metrics.jsonl" not in (planted / "SHA256SUMS").read_text()
    with pytest.raises(ArtifactRefused, match="not the file that was verified"):
        copy_out.copy(planted, [entry], tmp_path / "out")
    assert (tmp_path / "private").read_bytes() == SECRET


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: GrowingFile(folder / "console.log"),
        lambda folder: fetch_anew(lambda name, at: Bytes(b"new"), "console.log", folder / "console.log", 99),
    ],
)
def test_nothing_is_written_through_what_was_planted(
    planted: Path, tmp_path: Path, write: Callable[[Path], object]
) -> None:
    (planted / "console-before.log").symlink_to(tmp_path / "private")
    try:
        write(planted)
        assert disk.is_plain(planted / "console.log")
    except ConnectionFailed as error:
        assert error.code == "folder" and "no plain file is there" in error.message
    assert (tmp_path / "private").read_bytes() == SECRET


def test_a_folder_in_between_that_is_a_link_holds_no_result(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "best.pt").write_bytes(b"w")
    (tmp_path / "run" / "weights").symlink_to(tmp_path / "elsewhere")
    entry = entry_of("weights/best.pt", b"w")
    assert not files.is_here(entry, tmp_path / "run")
    assert not files.is_here(FileEntry("last", 0, "").to("weights/best.pt"), tmp_path / "run")
