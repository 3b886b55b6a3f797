"""Tier 1: which source of a setting wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.config import settings, table
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


@pytest.mark.parametrize("name", table.SETTINGS)
@pytest.mark.parametrize("value", ["[[]]", "[{}]", "1979-05-27", "{ a = [] }"])
def test_no_setting_takes_a_value_of_another_type(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "cloudtrain.toml").write_text(f"{name} = {value}")
    with pytest.raises(UsageError, match=r"cloudtrain\.toml") as raised:
        settings.load({}, folder=tmp_path, environment={})
    assert raised.value.code == "bad_setting"


@pytest.mark.parametrize("name", ["cloudtrain.toml", "pyproject.toml", "other.toml"])
def test_a_byte_order_mark_is_no_part_of_the_settings(tmp_path: Path, name: str) -> None:
    table = "[tool.cloudtrain]\r\n" if name == "pyproject.toml" else ""
    (tmp_path / name).write_bytes(f"\ufeff{table}epochs = 2\r\n".encode())
    named = tmp_path / name if name == "other.toml" else None
    assert settings.load({}, config=named, folder=tmp_path, environment={}).get("epochs") == 2


def test_tags_of_all_sources_add_up_and_the_nearest_wins(tmp_path: Path) -> None:
    disk.config_dir().mkdir(parents=True)
    (disk.config_dir() / "config.toml").write_text('[tags]\nteam = "vision"\n"cost=center" = "1"\n')
    found = settings.load({}, folder=tmp_path, environment={"CLOUDTRAIN_TAGS": "team=speech, stage=test"})
    assert found.get("tags") == {"team": "speech", "cost=center": "1", "stage": "test"}
    found = settings.load({"tags": ["stage=a=b", "Name="]}, folder=tmp_path, environment={})
    assert found.get("tags") == {"team": "vision", "cost=center": "1", "stage": "a=b", "Name": ""}
    assert found.origins()["tags"].origin == "--tag"
    many = [f"k{i}=v" for i in range(table.MOST_TAGS - 1)]
    with pytest.raises(UsageError, match=r"--tag: 41 tags are too many: 40 at most"):
        settings.load({"tags": many}, folder=tmp_path, environment={})


@pytest.mark.parametrize(
    "tag",
    [
        *("team", "=x", "aws:team=x", "AWS:team=x", "cloudtrain:owner=me", "CloudTrain:use=true"),
        *("emulator:ssh-port=1", "k" * 129 + "=x", "k=" + "v" * 257, "a\nb=c", "a=\x1b[2J", "a=\udcff"),
    ],
)
def test_a_tag_that_aws_would_refuse_or_that_is_ours_is_refused_here(tmp_path: Path, tag: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings.load({"tags": [tag]}, folder=tmp_path, environment={})
    assert caught.value.message.startswith("--tag: ") and caught.value.hint


@pytest.mark.parametrize("text", ["[tags]\nteam = 3\n", "tags = 3", "tags = [1]", "[tags.team]\nx = 'y'\n"])
def test_a_table_of_tags_holds_texts_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "cloudtrain.toml").write_text(text)
    with pytest.raises(UsageError, match=r"cloudtrain\.toml: "):
        settings.load({}, folder=tmp_path, environment={})


@pytest.mark.parametrize("name", ["Root", "a b", "-x", "$(id)", "x" * 33, "", "a\n"])
def test_what_is_no_login(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="login"):
        settings.load({"login": name}, folder=tmp_path, environment={})


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("1.5h", 5400), ("90", 90), (60, 60), ("2d", 172800), ("5min", 300)],
)
def test_durations(text: str | int, value: float) -> None:
    assert table.duration(text) == value


@pytest.mark.parametrize("text", ["", "h", "1x", "-5m", "0", "1h x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|above zero"):
        table.duration(text)
