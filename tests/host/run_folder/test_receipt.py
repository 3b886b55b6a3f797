"""A receipt is whole whenever its writer is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.run_folder import receipt
from cloudtrain.store import Run, Store
from tests import plans
from tests.conftest import ROOT


def read(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.folder / "run.json").read_bytes()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


WRITER = """
import json, sys
from pathlib import Path
from cloudtrain.run_folder import receipt
from cloudtrain.store import Store
store = Store(Path(sys.argv[1]))
run = store.get("brave-otter")
print("ready", flush=True)
n = 0
while True:
    n += 1
    with (run.folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "start", "settings": {"n": n, "pad": "x" * (n * 997 % 50000)}}) + "\\n")
    receipt.write(run, store)
"""


def test_a_killed_writer_leaves_a_whole_receipt(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path))
    run.folder.mkdir()
    receipt.write(run, store)
    chance = random.Random(7)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            assert writer.stdout is not None and writer.stdout.readline().strip() == b"ready"
            time.sleep(chance.uniform(0.05, 0.3))
        finally:
            writer.kill()
            writer.communicate(timeout=30)
        assert read(run)["id"] and (run.folder / "config.toml").read_text().startswith("# The settings")
        (run.folder / "events.jsonl").unlink()
