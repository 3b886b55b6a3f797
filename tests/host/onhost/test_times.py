"""`console.times`: when which byte of the log was there."""

from __future__ import annotations

import time
from typing import Any

import pytest

TALKS = "import time\nfor word in ('one', 'two', 'three'):\n    print(word, flush=True)\n    time.sleep(1.2)\n"


@pytest.mark.timeout(120)
def test_the_log_is_timed_while_it_grows(host: Any) -> None:
    began = time.time()
    host.start(TALKS)
    assert host.finished()["code"] == 0
    entries = [line.split() for line in (host.run_dir() / "console.times").read_text().splitlines()]
    times, sizes = [float(at) for at, _ in entries], [int(size) for _, size in entries]
    assert times == sorted(times) and began - 1 <= times[0] and times[-1] <= time.time() + 1
    assert sizes == sorted(set(sizes)) and len(sizes) >= 3
    assert sizes[-1] == (host.run_dir() / "console.log").stat().st_size
