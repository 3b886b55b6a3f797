"""What a run's packages come from, said before anything is launched: resolved here, and refused here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cloudtrain.core import programs
from cloudtrain.core.environment import EnvironmentPlan
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec, RunSpec, Target
from cloudtrain.core.text import screen_safe
from cloudtrain.environment import failures
from cloudtrain.environment.asked import Asked, cannot, check, folders, look, suits
from cloudtrain.environment.lock import resolve

# Before a machine is known: what the images of AWS and most hosts have. What it has in truth is asked there.
_PYTHONS = ("3.12", "3.13", "3.11", "3.14", "3.10", "3.9")
_LINUX = "manylinux_2_34"


def plan(spec: RunSpec, arch: str | None) -> EnvironmentPlan | None:
    """What the packages of `spec` come from; None where a run has none but those of the shipped job. Nothing of the
    project is run.

    Args:
        arch: of the machine, as EC2 calls it; None: not known.

    Raises:
        UsageError: they cannot be had, or not be found out.
    """
    job = spec.job
    asked = look(job)
    if asked and asked.container:
        here = spec.target is Target.LOCAL
        if here and (words := _no_docker(asked.folder)):
            raise cannot(
                f"{asked.source} asks for a container, and this computer has no docker that can be used", words
            )
        where = "here" if here else "on the machine"
        return EnvironmentPlan(source=asked.source, why=f"{'pulled' if asked.image else 'built'} {where} by docker")
    if spec.target is Target.LOCAL:
        return _here(job, asked) if job.command else None
    if job.shipped or (asked is None and not job.command):
        return None
    if asked is None:
        return EnvironmentPlan(source="the machine's Python as it is")
    if asked.conda:
        return EnvironmentPlan(source=asked.source, why="a conda environment, resolved and made on the machine")
    check(asked)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}" if spec.rehearsal else ""
    python = python if python and suits(python, asked.requires) else wanted(asked)
    platform = f"{'aarch64' if arch == 'arm64' else 'x86_64'}-{_LINUX}"
    try:
        lock, _ = resolve(asked, python, platform, {})
    except UsageError as error:
        if failures.needs_builds(error):
            return EnvironmentPlan(source=asked.source, why="resolved on the machine: a package comes as source alone")
        if error.code == "index_unreachable" and not job.command:
            return EnvironmentPlan(source=asked.source, why="the machine looks it up; the index does not answer here")
        raise
    return EnvironmentPlan(
        source=asked.source, python=python, packages=len(lock.versions), torch=lock.versions.get("torch")
    )


def wanted(asked: Asked) -> str:
    """The Python to ask for, "3.12", where the machine's own is not one that the project takes."""
    return next((python for python in _PYTHONS if suits(python, asked.requires)), _PYTHONS[0])


def _here(job: JobSpec, asked: Asked | None) -> EnvironmentPlan:
    """On this computer: the user's environment, and nothing is installed into it."""
    words, base = next(_environments(job))
    more = f"; what it lacks of {asked.source} is put beside it" if asked else ""
    return EnvironmentPlan(source=f"{words}{more}", base=str(base))


def _environments(job: JobSpec) -> Iterator[tuple[str, Path]]:
    for name, words in (("VIRTUAL_ENV", "the active environment"), ("CONDA_PREFIX", "the active conda environment")):
        if (folder := os.environ.get(name)) and (python := _python_in(Path(folder))):
            yield f"{words} {folder}", python
    for beside in folders(job):
        if python := _python_in(beside / ".venv"):
            yield f"{beside / '.venv'}, the project's", python
    yield f"Python {sys.version_info[0]}.{sys.version_info[1]} of cloudtrain", Path(sys.executable)


def _no_docker(folder: Path) -> str | None:
    """Why docker cannot be used on this computer for the project of `folder`, in its own words; None: it can."""
    docker = programs.find("docker", beside=folder)
    if os.name == "nt" or docker is None:
        return "there is none on Windows" if os.name == "nt" else "there is no program docker"
    try:
        done = subprocess.run([docker, "version"], capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        return screen_safe(str(error))
    words = screen_safe(done.stderr.decode("utf-8", "replace").strip()[-500:])
    return words or f"docker version: exit code {done.returncode}" if done.returncode else None


def _python_in(folder: Path) -> Path | None:
    places = (folder / "bin" / "python", folder / "Scripts" / "python.exe", folder / "python.exe")
    return next((path.absolute() for path in places if path.is_file()), None)
