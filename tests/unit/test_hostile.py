"""Whatever a host, a job or a damaged file says: a documented error at most, and nothing that a terminal obeys."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.core.terminal import LogText
from cloudtrain.core.text import screen_safe
from cloudtrain.run_folder.redact import Redaction
from cloudtrain.source import ignore
from tests import hostile


@pytest.mark.parametrize("parser", hostile.PARSERS)
def test_anything_in_any_field(parser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "home"))
    tried, failed = hostile.attacked(parser, 400, fresh=False)
    assert tried > 0 and failed == 0


def test_the_page_counts_what_is_tried_here() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hostile.md").read_text(encoding="utf-8")
    rows = {name: int(failed) for name, failed in re.findall(r"^\| ([^|]+) \| [\d,]+ \| (\d+) \|$", page, re.M)}
    assert rows == dict.fromkeys(hostile.PARSERS, 0)


N = 100_000
SLOW = {
    "escapes that never end": lambda: screen_safe("\x90" * N + "\x1b"),
    "a line without an end": lambda: [LogText().feed(b"x" * 1000) for _ in range(1000)],
    "one line in small pieces": lambda: _fed(b"ab\rcd" * 200, 2000),
    "20 MB without an end": lambda: _fed(b"x" * 1_000_000, 20),
    "letters without an end": lambda: _fed("é日\u0301".encode() * 10_000, 2),
    "rows that are drawn far out": lambda: _fed(b"\x1b[65535Gx\x1b[1K\n" * 200, 5),
    "cursor up and on": lambda: _fed(b"\x1b[A\x1b[2Kx\n" * 2_000, 20),
    "words that may be addresses": lambda: _public("a" * N),
    "many words like secrets": lambda: _public("-token" * (N // 6)),
    "many names": lambda: _public("token " * (N // 6)),
    "colons": lambda: _public(":" * N + "g"),
    "stars": lambda: _matches("*a" * 40 + "b", "a" * 4000),
    "folders": lambda: _matches("**/a/" * 40 + "b", "a/" * 2000 + "c"),
    "folders with stars": lambda: _matches("**/*a*a*a/" * 20 + "b", "aaaa/" * 800 + "c"),
    "spaces": lambda: ignore.parse("a" + " " * 1000 + "b", ".gitignore"),
    "sets without an end": lambda: _refused("[:" * 500),
    "sets without an end, and a bracket that is none": lambda: _refused("[[:" * 300 + "\\]"),
}


def _fed(data: bytes, times: int) -> None:
    log = LogText()
    for _ in range(times):
        log.feed(data)


def _public(text: str) -> None:
    Redaction.__call__(_redaction(), text)


def _redaction() -> Redaction:
    made = Redaction.__new__(Redaction)
    made._paths, made._words = [], []
    return made


def _matches(pattern: str, path: str) -> None:
    (rule,) = ignore.parse(pattern, ".gitignore")
    rule.matches(path.split("/"), is_dir=False)
    rule.leads_below(path.split("/"))


def _refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="only git can read"):
        ignore.parse(pattern, ".gitignore")


@pytest.mark.parametrize("what", SLOW)
def test_no_text_takes_long(what: str) -> None:
    began = time.process_time()
    SLOW[what]()
    assert time.process_time() - began < 2.0
