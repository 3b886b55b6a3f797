"""What the plan says of a project's packages, and refuses; nothing of the project is run for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.environment.plan import plan
from tests.wheels import source, wheel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="its traps are scripts")
Project = Callable[..., JobSpec]


def said(job: JobSpec, arch: str | None = "x86_64") -> str:
    spec = RunSpec(name="x", target=Target.EC2, train=TrainSpec(), job=job, runs_dir=job.source)
    return str(plan(spec, arch))


def test_the_line_of_a_plan(wheels: Path, project: Project) -> None:
    wheel(wheels, "torch", "2.13.0", ["triton; sys_platform == 'linux'"])
    wheel(wheels, "triton", "3.0", tag="py3-none-manylinux_2_17_x86_64")
    job = project({"requirements.txt": "torch\n"})
    assert said(job) == "requirements.txt: 2 packages for Python 3.12, torch 2.13.0 unless the machine's own suits"
    assert said(replace(job, environment="host")) == "the machine's Python as it is"
    # Of the machine's system, not of this one's.
    with pytest.raises(UsageError) as caught:
        said(job, "arm64")
    assert caught.value.code == "no_wheel" and "triton" in str(caught.value.detail)


def test_a_package_that_comes_as_source_alone_is_not_built_for_it(
    wheels: Path, project: Project, tmp_path: Path
) -> None:
    source(wheels, "ctsource", "1.0")
    told = said(project({"requirements.txt": "ctsource\n"}))
    assert told == "requirements.txt: resolved on the machine: a package comes as source alone"


def test_programs_of_the_project_are_not_run(
    wheels: Path, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not its environment, not its setup.py, and not what its uv settings would start."""
    wheel(wheels, "ctmath", "1.5")
    ran = tmp_path / "ran"
    trap = f"#!/bin/sh\ntouch {ran}\nexit 1\n"
    job = project(
        {
            "requirements.txt": "ctmath\n",
            "setup.py": f"open({str(ran)!r}, 'w')\n",
            ".venv/pyvenv.cfg": "home = /usr/bin\nversion = 3.12\n",
            ".venv/bin/python": trap,
            "git": trap,
            "keyring": trap,
            "uv.toml": 'keyring-provider = "subprocess"\nno-build = false\n',
        }
    )
    for name in (".venv/bin/python", "git", "keyring"):
        Path(job.source, name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{job.source}{os.pathsep}{os.environ['PATH']}")
    assert said(job) == "requirements.txt: 1 package for Python 3.12" and not ran.exists()
    for line in ("-e .\n", "."):
        Path(job.source, "requirements.txt").write_text(f"{line}\nctmath\n")
        with pytest.raises(UsageError, match="without running a program of the project here"):
            said(job)
        assert not ran.exists()


def test_a_lock_needs_no_index(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/")
    lock = (
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n'
        '[[package]]\nname = "digits"\nversion = "1"\nsource = { virtual = "." }\n'
        'dependencies = [{ name = "six" }]\n\n'
        '[package.metadata]\nrequires-dist = [{ name = "six" }]\n\n'
        '[[package]]\nname = "six"\nversion = "1.16.0"\nsource = { registry = "https://pypi.org/simple" }\n'
        'wheels = [{ url = "https://files.pythonhosted.org/six-1.16.0-py2.py3-none-any.whl", hash = "sha256:'
        f'{"8" * 64}" }}]\n'
    )
    pyproject = '[project]\nname = "digits"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["six"]\n'
    assert said(project({"pyproject.toml": pyproject, "uv.lock": lock})) == "uv.lock: 1 package for Python 3.12"
