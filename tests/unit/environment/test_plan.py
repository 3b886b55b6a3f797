"""The user's own environment on this computer, chosen without running anything of the project."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.environment.plan import plan


def environment(folder: Path) -> Path:
    """An environment whose Python must not be run."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 99\n")
    python.chmod(0o755)
    return python


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A command of a project, here; no environment is active."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    folder = tmp_path / "project"
    (folder / "examples").mkdir(parents=True)
    job = JobSpec(source=str(folder), command=("python", "train.py"), cwd="examples")
    return RunSpec(name="x", target=Target.LOCAL, train=TrainSpec(), job=job, runs_dir=str(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="environments have another shape there")
def test_an_active_environment_then_the_projects_then_ours(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def base() -> str | None:
        planned = plan(spec, None)
        assert planned is not None
        return planned.base

    assert base() == sys.executable
    own = environment(tmp_path / "project" / ".venv")
    assert base() == str(own)
    conda = environment(tmp_path / "conda")
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "conda"))
    assert base() == str(conda)
    active = environment(tmp_path / "active")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "active"))
    assert base() == str(active)
    assert str(plan(spec, None)) == f"the active environment {tmp_path / 'active'}"


def test_what_it_lacks_is_announced(spec: RunSpec) -> None:
    Path(spec.job.source, "requirements.txt").write_text("six\n")
    assert str(plan(spec, None)).endswith(" of cloudtrain; what it lacks of requirements.txt is put beside it")


def test_a_container_is_dockers_and_here_only_where_docker_is(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(spec.job.source, "Dockerfile").write_text("FROM x\n")
    away = replace(spec, target=Target.HOST)
    assert str(plan(away, None)) == "Dockerfile: built on the machine by docker"
    image = replace(away, job=replace(spec.job, environment="image x"))
    assert str(plan(image, None)) == "image x: pulled on the machine by docker"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="this computer has no docker") as caught:
        plan(spec, None)
    assert "requirements.txt" in str(caught.value.hint) and 'env = "host"' in str(caught.value.hint)


def test_jobs_without_a_command_have_no_line_of_it(spec: RunSpec) -> None:
    shipped = replace(spec, job=JobSpec(source=spec.job.source))
    assert plan(shipped, None) is None and plan(replace(shipped, target=Target.HOST), None) is None


def test_a_project_on_this_computer_is_not_run_before_it_is_agreed_to(spec: RunSpec) -> None:
    Path(spec.job.source, "requirements.txt").write_text("-e .\n")
    with pytest.raises(UsageError, match="it names a project on this computer") as caught:
        plan(replace(spec, target=Target.EC2), "x86_64")
    assert caught.value.code == "requirements" and "uv lock" in str(caught.value.hint)
