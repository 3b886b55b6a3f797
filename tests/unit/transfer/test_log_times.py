"""Tier 1: times of a log's lines, from an index that may be short, torn or not there."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from cloudtrain.console.log_text import LogView, line_start
from cloudtrain.core.events import LogLines
from cloudtrain.run_folder.log_times import LogTimes

LOG = b"one\ntwo\nthree\nfour"


def test_an_index_that_is_torn_or_not_there(tmp_path: Path) -> None:
    assert LogTimes.read(tmp_path / "none").at(1) is None
    path = tmp_path / "console.times"
    path.write_bytes(b"100.0 4\nnonsense\n90.0 6\n101.5 8\n102.0 8\n103.0")
    times = LogTimes.read(path)
    assert [times.at(end) for end in (1, 4, 5, 8, 9)] == [100.0, 100.0, 101.5, 101.5, None]
    assert [times.size_before(at) for at in (99.0, 100.5, 101.5, 200.0)] == [0, 4, 4, 8]


@pytest.mark.parametrize(("offset", "start"), [(0, 0), (1, 4), (4, 4), (5, 8), (18, 18)])
def test_a_line_is_not_begun_in_its_middle(tmp_path: Path, offset: int, start: int) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(LOG)
    assert line_start(path, offset) == start


def test_lines_with_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    path = tmp_path / "console.log"
    path.write_bytes(LOG)
    times = LogTimes([(100.0, 4), (200.0, 8)])

    view = LogView(stamped=True)
    view.show_file(path, since=150.0, times=times)
    came = time.strftime("%H:%M:%S", time.localtime())
    view.emit(LogLines(b" more\nlast", len(LOG)))
    view.write(b"", final=True)

    at = time.strftime("%H:%M:%S", time.localtime(200.0))
    shown = out.buffer.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    assert shown[:2] == [f"{at} two", "--:--:-- three"]
    assert shown[2].endswith(" four more") and came[:5] in shown[2]
    assert shown[3].endswith(" last") and came[:5] in shown[3]
