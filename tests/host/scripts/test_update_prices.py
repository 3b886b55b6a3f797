"""The maintainer script that rebuilds the price table, over the emulated region."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cloudtrain.emulator.region import Region

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "update_prices.py"


@pytest.fixture
def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("update_prices", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_shipped_file_is_in_the_form_that_the_script_writes(script: ModuleType) -> None:
    text = script.TABLE.read_text(encoding="utf-8")
    assert script.render(json.loads(text)) == text


def test_prices_are_asked_for_and_what_aws_does_not_know_is_kept(script: ModuleType, tmp_path: Path) -> None:
    from cloudtrain.provider.ec2.clients import Clients

    table: dict[str, Any] = json.loads(script.TABLE.read_text(encoding="utf-8"))
    table["types"]["g4dn.xlarge"]["usd_per_hour"] = 99.0
    with Region(tmp_path / "region") as region:
        clients = Clients(None, "us-east-1", region.endpoint_url, region.access_key)
        rebuilt, missing = script.rebuild(table, clients, "2026-11-23")
    assert (rebuilt["as_of"], rebuilt["region"], rebuilt["extras"]) == ("2026-11-23", "us-east-1", table["extras"])
    assert rebuilt["types"]["g4dn.xlarge"]["usd_per_hour"] == 0.526
    assert rebuilt["types"]["p3.2xlarge"] == table["types"]["p3.2xlarge"]
    assert "p3.2xlarge: not in us-east-1" in missing
    assert rebuilt["types"]["p6-b200.48xlarge"]["usd_per_hour"] is None
    assert "p6-b200.48xlarge: no price" in missing
    assert not [name for name in rebuilt["types"] if name.startswith(("g6f", "gr6f"))]


def test_without_credentials_it_says_so_and_changes_nothing(script: ModuleType) -> None:
    before = script.TABLE.read_bytes()
    environment = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "error: no AWS credentials were found" in done.stderr
    assert "Traceback" not in done.stderr
    assert script.TABLE.read_bytes() == before
