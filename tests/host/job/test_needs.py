"""A host without one of the job's packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_a_missing_package_is_named_before_anything_is_done(tmp_path: Path, missing: str) -> None:
    hidden = (
        f"import importlib.util as u; find = u.find_spec; u.find_spec = lambda n: None if n == {missing!r} else find(n)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden}; import runpy; runpy.run_module('job.train', run_name='__main__')"],
        cwd=ROOT,
        env={"PATH": "", "CLOUDTRAIN_EVENTS": str(tmp_path / "events.jsonl")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: this Python has no {missing}"
    assert lines[1].startswith("hint: ") and lines[1].endswith(f"-m pip install {missing}")
    (event,) = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert (event["kind"], event["code"]) == ("error", "missing_package")
