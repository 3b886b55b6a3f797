"""The README's pictures: the moment of the live view is found, and its SVG is made of what the terminal showed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture
def screenshots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The script, as a module that writes into a folder of the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "screenshots.py")])
    module = importlib.import_module("screenshots")
    monkeypatch.setattr(module, "IMAGES", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    yield module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(SCRIPTS)):
            del sys.modules[name]


EPOCHS = ["   1/5     85.14%     0.0432    98.74%   68 s  best", "   2/5     96.61%     0.0280    99.21%   73 s  best"]


@pytest.mark.parametrize(
    ("lines", "is_it"),
    [
        (
            [*EPOCHS, "   3/5     97.60%     0.0242    99.31%   57 s  best", "epoch 4/5 ━━━  step 460/937  8 it/s"],
            True,
        ),
        (
            [*EPOCHS, "   3/5     97.60%     0.0242    99.31%   57 s  best", "epoch 4/5 ━━━  step 10/937  8 it/s"],
            False,
        ),
        ([*EPOCHS, "epoch 3/5 ━━━  step 460/937  8 it/s"], False),
        ([], False),
    ],
)
def test_the_moment_is_half_through_the_fourth_epoch(screenshots: ModuleType, lines: list[str], is_it: bool) -> None:
    assert screenshots.is_the_moment(lines) is is_it


def test_the_live_view_of_today_has_such_a_moment(screenshots: ModuleType) -> None:
    golden = SCRIPTS.parent / "tests" / "host" / "console" / "golden" / "training-80.txt"
    assert screenshots.is_the_moment(golden.read_text(encoding="utf-8").splitlines())


def test_the_picture_has_the_screen_and_asks_for_no_font(
    screenshots: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyte = pytest.importorskip("pyte")
    monkeypatch.setattr(screenshots, "COLUMNS", 60 + len(str(tmp_path)))
    screen = pyte.Screen(screenshots.COLUMNS, screenshots.LINES)
    pyte.Stream(screen).feed(
        f"\x1b[32mok\x1b[0m    instance <x>\r\ncode {tmp_path}/job (33 files)\r\n\x1b[1mepoch\x1b[0m 4/5 ━━━\r\n"
    )
    taken = [dict(screen.buffer[line]) for line in range(screenshots.LINES)]
    assert screenshots.write_live(taken, "cloudtrain run").as_posix() == "live.svg"
    svg = (tmp_path / "live.svg").read_text(encoding="utf-8")
    assert "instance" in svg and "&lt;x&gt;" in svg and "━━━" in svg and "cloudtrain&#160;run" in svg
    assert "code&#160;job&#160;(33" in svg and "/job" not in svg
    assert re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?(https?:[^\"')]*)", svg) == []
