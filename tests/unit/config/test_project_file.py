"""Tier 1: what `init` writes is complete, and every line of it is a setting that is accepted."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cloudtrain.config import project_file, settings
from cloudtrain.config.table import SETTINGS
from cloudtrain.core.errors import UsageError


def uncommented() -> str:
    lines = project_file.text().splitlines()
    return "\n".join(line.removeprefix("# ") for line in lines if line.startswith("# ") and " = " in line)


def test_nothing_is_set_until_a_comment_is_removed(tmp_path: Path) -> None:
    assert tomllib.loads(project_file.text()) == {}
    (tmp_path / "cloudtrain.toml").write_text(uncommented(), encoding="utf-8")
    found = settings.load({}, folder=tmp_path, environment={}).origins()
    assert set(found) == set(SETTINGS)
    assert {each.origin for each in found.values()} == {str(tmp_path / "cloudtrain.toml")}
    for each in SETTINGS.values():
        assert each.default in (None, found[each.name].value), f"the example of {each.name} is not its default"


def test_runs_stay_out_of_git_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    ignored = tmp_path / ".gitignore"
    ignored.write_bytes(b"*.pyc")
    done = project_file.write(tmp_path)
    assert [path.name for path, _ in done] == ["cloudtrain.toml", ".gitignore"]
    assert ignored.read_bytes() == b"*.pyc\nruns/\n"
    (tmp_path / "cloudtrain.toml").unlink()
    assert [path.name for path, _ in project_file.write(tmp_path)] == ["cloudtrain.toml"]
    assert ignored.read_bytes() == b"*.pyc\nruns/\n"


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cloudtrain.toml"
    path.write_text("model = 1\n")
    with pytest.raises(UsageError, match="already exists"):
        project_file.write(tmp_path)
    assert path.read_text() == "model = 1\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        project_file.write(tmp_path / "nowhere")
