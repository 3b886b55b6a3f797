"""A setting that stands in the table is in every place: flag, environment, file, `init`, the run, its `config.toml`."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import typer

from cloudtrain.cli import app as command_line
from cloudtrain.cli import beginning, request, run_options
from cloudtrain.config import project_file, settings, table
from cloudtrain.config.table import SETTINGS, Setting
from cloudtrain.core import decode
from cloudtrain.core.plan import DEFAULT_LIMIT_S, CodeSummary, make_plan
from cloudtrain.core.spec import Ec2Spec, JobSpec, Limits, RunSpec, Target, TrainSpec
from cloudtrain.run_folder import settings_file
from cloudtrain.store import Store
from tests import plans

EVERY = pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
OTHER_WORDS = {"auto": "cpu", "park": "terminate", "runs": "out", "10m": "20m"}


def other(setting: Setting) -> Any:
    """A value as TOML has it that is not what holds where nobody sets it."""
    value = tomllib.loads(f"example = {setting.example}")["example"]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value - 1 if value > 1 else value + 1
    return OTHER_WORDS.get(str(value), value)


def typed(setting: Setting) -> str:
    """That value as one types it."""
    value = other(setting)
    if isinstance(value, list):
        return ",".join(value) if setting.read is table._words else shlex.join(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={text}" for key, text in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


@EVERY
def test_it_is_read_from_a_file_the_environment_and_a_flag(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = setting.read(other(setting))
    assert expected != setting.default

    def found(**sources: Any) -> Any:
        return settings.load(sources.pop("flags", {}), folder=tmp_path, **{"environment": {}, **sources}).origins()

    assert found(environment={setting.variable: typed(setting)})[setting.name].value == expected
    if setting.flag:
        given: list[Mapping[str, Any]] = []
        monkeypatch.setattr(beginning, "run", lambda flags, settings, args: given.append(settings) or 0)
        once = [setting.option] if setting.kind is bool else [setting.option, typed(setting)]
        several = setting.kind == list[str] and isinstance(other(setting), list)
        words = [word for one in other(setting) for word in (setting.option, one)] if several else once
        monkeypatch.setattr("sys.argv", ["cloudtrain", "run", *words])
        assert command_line.run() == 0
        assert {name for name, value in given[0].items() if value is not None} == {setting.name}
        value = found(flags=given[0])[setting.name]
        assert (value.value, value.origin) == (expected, setting.option)
    line = next(line for line in project_file.text().splitlines() if line.startswith(f"# {setting.name} = "))
    assert line.endswith(f"  # {setting.help}")
    (tmp_path / "cloudtrain.toml").write_text(
        line.removeprefix("# ").replace(setting.example, shown(other(setting)), 1)
    )
    assert found()[setting.name].value == expected


def shown(value: Any) -> str:
    """TOML of a value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(text)}" for key, text in value.items()) + "}"
    return json.dumps(value)


@EVERY
def test_what_the_help_calls_the_default_is_it(setting: Setting) -> None:
    part = {"train": TrainSpec, "limits": Limits, "ec2": Ec2Spec}.get(setting.part)
    value = getattr(part(), setting.goes_to.rpartition(".")[2]) if part else setting.default
    if setting.flag and isinstance(value, bool) and "/" in "".join(setting.names):
        assert setting.usual == setting.names[0].split("/")[not value]
    elif setting.flag and value not in (None, False, {}, ()) and setting.name != "instance":
        assert setting.read(setting.usual) == value
    if setting.name == "max_time":
        assert setting.usual == "2h on EC2" and table.duration("2h") == DEFAULT_LIMIT_S


def test_the_help_has_every_flag_once() -> None:
    parameters = typer.main.get_command(command_line.app).commands["run"].params  # type: ignore[attr-defined]
    names = [parameter.name for parameter in parameters if parameter.name != "help"]
    flags = {each.name for each in SETTINGS.values() if each.flag}
    assert sorted(names) == sorted(flags | set(run_options.Flags.__dataclass_fields__))
    assert all(parameter.help.endswith(".") for parameter in parameters)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the package that the example names; every setting is another than where nobody sets it."""
    package = tmp_path / other(SETTINGS["job"])
    package.mkdir()
    (package / "__init__.py").touch()
    return tmp_path


def built(project: Path, given: Mapping[str, Any], config: Path | None = None, **place: Any) -> RunSpec:
    found = settings.load(given, config=config, folder=project, environment={})
    nowhere = {"local": False, "host": None, "host_key": None, "instance_id": None, "dry_run": False}
    store = Store(project / "registry.sqlite")
    return request.build(found, store, name="brave-otter", **{**nowhere, **place}, faults=(), words=())


def of(job: str) -> list[Setting]:
    """The settings that hold for a run of a "module" or a "command"."""
    of_command = ("command", "cwd")
    of_module = {each.name for each in SETTINGS.values() if each.part == "train"} | {"module"}
    return [each for each in SETTINGS.values() if each.name not in (of_module if job == "command" else of_command)]


@pytest.mark.parametrize("job", ["module", "command"])
@pytest.mark.parametrize("instance_id", [None, "i-0123456789abcdef0"])
def test_a_run_has_what_was_set_and_hands_it_on(project: Path, instance_id: str | None, job: str) -> None:
    given = {each.name: other(each) for each in of(job)}
    spec = built(project, given, instance_id=instance_id)
    nobody = RunSpec(
        name="",
        target=Target.EC2,
        train=TrainSpec(),
        job=JobSpec(source=""),
        runs_dir="",
        limits=Limits(),
        ec2=Ec2Spec(),
    )
    for each in of(job):
        value = each.value_in(spec) if each.goes_to else None
        if each.name in ("job", "runs_dir"):
            assert value == str(project / other(each))
        elif each.name == "identity":
            key = str(Path(other(each)).expanduser())
            assert spec.ec2 is not None and spec.ec2.identity == (key if instance_id else None)
        elif each.goes_to:
            assert value == each.read(other(each)) != each.value_in(nobody), each.name
    assert decode.made(RunSpec, json.loads(json.dumps(asdict(spec)))) == spec
    # A run that goes on from it, in its place.
    rest = built(project, request.of_run(spec, elsewhere=False), **request.place_of(spec))
    assert replace(request.going_on(rest, spec), runs_dir=spec.runs_dir) == spec
    # Elsewhere it has its limits and its device.
    rest = built(project, request.of_run(spec, elsewhere=True), local=True)
    assert (rest.limits, rest.train.device, rest.job.python) == (spec.limits, spec.train.device, None)


@pytest.mark.parametrize("job", ["module", "command"])
def test_the_settings_of_a_run_are_settings_again(project: Path, job: str) -> None:
    private = {"python", "profile", "tags", "login", "ssh_cidr", "identity", "runs_dir"}
    assert private == {each.name for each in SETTINGS.values() if each.private}
    given = {each.name: other(each) for each in of(job) if each.name not in private}
    spec = replace(built(project, given), runs_dir=str(project / "runs"))
    run = Store(project / "registry.sqlite").add(make_plan(spec, plans.offer(), CodeSummary(files=1, bytes=1)))
    text = settings_file.toml(run, {})
    assert set(tomllib.loads(text)) == {each.name for each in of(job) if each.goes_to} - private
    file = project / settings_file.NAME
    file.write_text(text, encoding="utf-8")
    assert built(project, {}, config=file) == spec
