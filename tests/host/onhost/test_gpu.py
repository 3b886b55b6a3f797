"""How busy the GPU is, told beside the log by a program of NVIDIA's form that stands in the PATH."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

SMI = """#!{python} -u
import sys, time
assert "--query-gpu=index,utilization.gpu,memory.used,memory.total" in sys.argv, sys.argv
while True:
    print("0, 87, 913, 15360")
    print("1, [N/A], 100, 15360")
    time.sleep(0.2)
"""
TALKS = "import time\nfor number in range(30):\n    print(number, flush=True)\n    time.sleep(0.1)\n"


def frames(stream: bytes) -> list[dict[str, Any]]:
    found = []
    while stream:
        line, _, stream = stream.partition(b"\n")
        found.append(json.loads(line))
        stream = stream[found[-1].get("n", 0) :]
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for the program")
def test_how_busy_it_is_comes_with_the_log_and_ends_with_it(
    host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    host.start(TALKS)
    got = frames(host.call("follow", "--beat", "1").stdout)
    told = [frame for frame in got if frame["k"] == "gpu"]
    assert told and got[-1]["k"] == "end"
    both = [frame["gpus"] for frame in told if len(frame["gpus"]) == 2]
    assert both[-1] == [
        {"busy": 87, "used_mib": 913, "total_mib": 15360},
        {"busy": None, "used_mib": 100, "total_mib": 15360},
    ]
    # Nothing of it is left behind.
    assert not [
        entry for entry in Path("/proc").glob("[0-9]*/cmdline") if _read(entry).find(str(program).encode()) >= 0
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_host_without_one_says_nothing(host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    host.start("print('hello')")
    assert "gpu" not in {frame["k"] for frame in frames(host.call("follow").stdout)}
