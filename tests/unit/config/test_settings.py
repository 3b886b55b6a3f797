"""Tier 1: which source of a setting wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.config import settings
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError


def test_flag_beats_environment_beats_project_beats_pyproject_beats_user(tmp_path: Path) -> None:
    disk.config_dir().mkdir(parents=True)
    (disk.config_dir() / "config.toml").write_text('epochs = 1\nregion = "eu-north-1"\nseed = 5\nmax_time = "30m"\n')
    project = tmp_path / "project"
    inner = project / "deep" / "er"
    inner.mkdir(parents=True)
    (project / "pyproject.toml").write_text("[tool.cloudtrain]\nepochs = 2\nseed = 6\n")
    found = settings.load({}, folder=inner, environment={})
    assert (found.get("epochs"), found.get("region"), found.project) == (2, "eu-north-1", project)
    (project / "cloudtrain.toml").write_text('epochs = 3\nruns_dir = "out"\n')
    found = settings.load({}, folder=inner, environment={})
    assert (found.get("epochs"), found.get("seed"), found.runs_dir) == (3, 5, project / "out")
    found = settings.load({}, folder=inner, environment={"CLOUDTRAIN_EPOCHS": "4"})
    assert found.get("epochs") == 4
    found = settings.load({"epochs": 5, "seed": None}, folder=inner, environment={"CLOUDTRAIN_EPOCHS": "4"})
    assert found.get("epochs") == 5 and found.origins()["epochs"].origin == "--epochs"
    assert found.get("max_time") == 1800


@pytest.mark.parametrize(
    "text",
    ["epochs = 'many'", "epochs = 1.5", "nonsense = 1", "this is not toml", "spot = 'perhaps'", "max_time = '0h'"],
)
def test_a_wrong_setting_names_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "cloudtrain.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        settings.load({}, folder=tmp_path, environment={})
    assert "cloudtrain.toml" in raised.value.message and raised.value.hint


@pytest.mark.parametrize("name", ["cloudtrain.toml", "pyproject.toml", "other.toml"])
def test_a_byte_order_mark_is_no_part_of_the_settings(tmp_path: Path, name: str) -> None:
    table = "[tool.cloudtrain]\r\n" if name == "pyproject.toml" else ""
    (tmp_path / name).write_bytes(f"\ufeff{table}epochs = 2\r\n".encode())
    named = tmp_path / name if name == "other.toml" else None
    assert settings.load({}, config=named, folder=tmp_path, environment={}).get("epochs") == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("1.5h", 5400), ("90", 90), (60, 60), ("2d", 172800), ("5min", 300)],
)
def test_durations(text: str | int, value: float) -> None:
    assert settings.duration(text) == value


@pytest.mark.parametrize("text", ["", "h", "1x", "-5m", "0", "1h x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|above zero"):
        settings.duration(text)
