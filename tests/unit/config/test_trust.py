"""Tier 1: what a project's settings file may not decide by itself, whose file it may be, and what no file can say."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from cloudtrain.config import files, settings, trust
from cloudtrain.config.table import SETTINGS
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError

EVIL = {
    "instance": ["p5.48xlarge"],
    "region": "eu-north-1",
    "profile": "work",
    "spot": False,
    "ami": "ami-0123456789abcdef0",
    "subnet": "subnet-0123456789abcdef0",
    "security_group": "sg-0123456789abcdef0",
    "ssh_cidr": "0.0.0.0/0",
    "volume_size": 16000,
    "identity": "~/.ssh/id_ed25519",
    "login": "www-data",
    "tags": {"team": "theirs"},
    "secrets": ["AWS_SECRET_ACCESS_KEY"],
    "private_ip": True,
    "if_i_vanish": "terminate",
    "allow_cpu": True,
    "max_time": "9d",
    "grace": "9d",
    "spot_restarts": 900,
    "confirm_above": 1e6,
    "job": "../elsewhere",
    "runs_dir": "/tmp/elsewhere",
}
needs_owners = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="files are given to another user")


def put(folder: Path, name: str = files.NAME, /, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = [
        *(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if not isinstance(value, dict)),
        *(
            f"{key}.{inner} = {json.dumps(text)}\n"
            for key, value in values.items()
            if isinstance(value, dict)
            for inner, text in value.items()
        ),
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def found(folder: Path, config: Path | None = None, /, **flags: Any) -> settings.Settings:
    return settings.load(flags, folder=folder, config=config, environment={})


def refused(name: str, among: settings.Settings) -> UsageError:
    with pytest.raises(UsageError) as caught:
        among.get(name)
    assert caught.value.code == "not_trusted" and caught.value.exit_code == 2
    assert name in caught.value.message
    return caught.value


def agree(path: Path) -> None:
    file = files.read(path)
    assert file is not None
    trust.agree(path, trust.digest(settings.of_file(file), path.parent))


def test_every_setting_is_of_one_class() -> None:
    of_the_job = {
        *("model", "recipe", "epochs", "batch_size", "lr", "seed", "device", "args", "module", "outputs"),
        *("command", "cwd", "environment", "packages", "vars", "resume_args", "figures"),
        *("boot_limit", "trickle_rate", "results_limit", "keep_on_host", "plain", "python"),
    }
    assert of_the_job | set(trust.SETTINGS) == set(SETTINGS) and not of_the_job & set(trust.SETTINGS)
    assert set(EVIL) | {"max_cost"} == set(trust.SETTINGS)


@pytest.mark.parametrize("name", EVIL)
def test_money_and_trust_are_not_for_a_file_that_came_along(tmp_path: Path, name: str) -> None:
    project = tmp_path / "project"
    path = put(project, epochs=7, **{name: EVIL[name]})
    got = found(project)
    error = refused(name, got)
    assert str(path) in error.message and f"cloudtrain trust {path}" in (error.hint or "")
    assert got.get("epochs") == 7, "what is of the job goes on working"
    if name == "runs_dir":
        with pytest.raises(UsageError, match="runs_dir"):
            _ = got.runs_dir
    # The user's own word beats it; so does the user's own file where no other says anything.
    own = 0.5 if name == "confirm_above" else EVIL[name]
    assert found(project, **{name: own}).get(name) == SETTINGS[name].read(own)
    agree(path)
    assert found(project).get(name) == SETTINGS[name].read(EVIL[name])
    assert found(project).from_files() == {name: str(path)}
    path.unlink()
    put(disk.config_dir(), "config.toml", **{name: EVIL[name]})
    assert found(project).get(name) == SETTINGS[name].read(EVIL[name])


def test_pyproject_is_such_a_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.cloudtrain]\nprofile = "work"\n[project]\nname = "x"\n')
    refused("profile", found(tmp_path))
    agree(tmp_path / "pyproject.toml")
    (tmp_path / "pyproject.toml").write_text('[tool.cloudtrain]\nprofile = "work"\n[project]\nname = "y"\n')
    assert found(tmp_path).get("profile") == "work"


def test_trust_is_in_what_was_shown(tmp_path: Path) -> None:
    path = put(tmp_path, instance=["g4dn.xlarge"], epochs=1)
    agree(path)
    put(tmp_path, instance=["g4dn.xlarge"], epochs=2)
    assert found(tmp_path).get("instance") == ("g4dn.xlarge",)
    put(tmp_path, instance=["p5.48xlarge"], epochs=2)
    refused("instance", found(tmp_path))
    put(tmp_path, instance=["g4dn.xlarge"], region="eu-north-1")
    error = refused("region", found(tmp_path))
    assert "instance, region" in error.message
    # The same words in another place are another file's.
    put(tmp_path / "copy", instance=["g4dn.xlarge"])
    refused("instance", found(tmp_path / "copy"))


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_folder_that_comes_to_lead_out_of_the_project_is_another(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "net").mkdir(parents=True)
    put(project, job="net")
    assert found(project).get("job") == "net"
    (project / "net").rmdir()
    (project / "net").symlink_to(tmp_path)
    refused("job", found(project))


def test_limits_may_be_lowered(tmp_path: Path) -> None:
    put(tmp_path, max_time="1h", max_cost=3.0, grace="1m", spot_restarts=0, confirm_above=0.0, runs_dir="out")
    got = found(tmp_path)
    assert (got.get("max_time"), got.get("max_cost"), got.get("spot_restarts")) == (3600, 3.0, 0)
    assert got.runs_dir == tmp_path / "out"
    put(disk.config_dir(), "config.toml", max_time="30m", max_cost=1.0)
    for name in ("max_time", "max_cost"):
        refused(name, found(tmp_path))


def test_a_named_file_is_the_users_word_but_does_not_agree_for_him(tmp_path: Path) -> None:
    put(tmp_path, instance=["p5.48xlarge"])
    named = put(tmp_path / "runs", "config.toml", instance=["g4dn.xlarge"], max_time="3h", confirm_above=50.0)
    got = found(tmp_path, named)
    assert got.get("instance") == ("g4dn.xlarge",) and got.get("max_time") == 10800
    assert got.from_files()["instance"] == str(named)
    refused("confirm_above", got)
    agree(named)
    assert found(tmp_path, named).get("confirm_above") == 50


@needs_owners
def test_a_file_of_another_user_decides_nothing_even_if_trusted(tmp_path: Path) -> None:
    path = put(tmp_path, instance=["g4dn.xlarge"], epochs=3)
    agree(path)
    os.chown(path, 12345, 12345)
    error = refused("instance", found(tmp_path))
    assert "belongs to another user" in error.message and "trust" not in (error.hint or "")
    assert found(tmp_path).get("epochs") == 3
    refused("instance", found(tmp_path / "elsewhere", path))


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
def test_nor_does_one_that_everybody_can_write(tmp_path: Path) -> None:
    path = put(tmp_path, instance=["g4dn.xlarge"])
    agree(path)
    path.chmod(0o666)
    assert "can be written by every user" in refused("instance", found(tmp_path)).message


def test_a_file_above_counts_up_to_the_repository_and_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, epochs=9)
    inner = tmp_path / "repository" / "deep"
    inner.mkdir(parents=True)
    assert found(inner).get("epochs") == 9
    (tmp_path / "repository" / ".git").mkdir()
    assert found(inner).get("epochs") is None and found(inner).project == inner
    put(tmp_path / "repository", epochs=8)
    assert found(inner).get("epochs") == 8
    home = tmp_path / "home"
    (home / "a").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert found(home / "a").get("epochs") is None
    put(home, epochs=7)
    assert found(home / "a").get("epochs") == 7


@needs_owners
@pytest.mark.parametrize("of_folder", [True, False])
def test_nor_across_a_change_of_owner(tmp_path: Path, of_folder: bool) -> None:
    path = put(tmp_path / "shared", epochs=9)
    inner = tmp_path / "shared" / "mine"
    inner.mkdir()
    assert found(inner).get("epochs") == 9
    os.chown(path.parent if of_folder else path, 12345, 12345)
    assert found(inner).get("epochs") is None


@pytest.mark.parametrize("name", ["max_cost", "confirm_above", "lr", "trickle_rate"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.01", "1" + "0" * 400, "true", "[]"])
def test_what_is_no_amount(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / files.NAME).write_text(f"{name} = {value}\n")
    with pytest.raises(UsageError, match=files.NAME):
        found(tmp_path)
    if value in ("nan", "inf", "-inf", "-0.01"):
        for flags, environment in (({name: float(value)}, {}), ({}, {f"CLOUDTRAIN_{name.upper()}": value})):
            with pytest.raises(UsageError) as caught:
                settings.load(flags, folder=tmp_path / "empty", environment=environment)
            assert caught.value.code == "bad_setting"


@pytest.mark.parametrize(
    "value", ["[]", "{}", "true", "nan", "inf", "1979-05-27", "1" + "0" * 400, '"' + "9" * 400 + 'd"']
)
def test_what_is_no_duration(tmp_path: Path, value: str) -> None:
    (tmp_path / files.NAME).write_text(f"max_time = {value}\n")
    with pytest.raises(UsageError, match=files.NAME):
        found(tmp_path)


@pytest.mark.parametrize(
    "text",
    [b"a = " + b"[" * 100_000, b"\xff", b"epochs = " + b"9" * 10_000, b"#" * (2 << 20), b'job = "\\u0000"'],
    ids=["deep", "no text", "huge number", "huge file", "NUL"],
)
def test_what_is_no_settings_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / files.NAME).write_bytes(text)
    with pytest.raises(UsageError, match=files.NAME):
        found(tmp_path)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@of_hypothesis(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*SETTINGS, "nonsense"]), value=VALUES)
def test_any_value_is_taken_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    file = files.File(tmp_path / files.NAME, {name: value})
    try:
        read = settings.of_file(file)
    except UsageError as error:
        assert error.code == "bad_setting"
        return
    if name in ("max_cost", "confirm_above", "max_time", "grace", "boot_limit"):
        assert 0 <= read[name] < math.inf
    trust.digest(read, tmp_path)
    for each, found in read.items():  # of a table `[job]` what stands in it
        trust.needed(each, found, SETTINGS[each].default, tmp_path)


@of_hypothesis(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary() | st.text().map(str.encode) | st.text("[]{}=\"'\n.a1-_", max_size=60).map(str.encode))
def test_any_bytes_are_a_file_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / files.NAME).write_bytes(data)
    try:
        found(tmp_path)
    except UsageError as error:
        assert error.code == "bad_setting"
