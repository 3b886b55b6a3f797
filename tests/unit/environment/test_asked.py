"""What a project asks for, read off its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment.asked import look, suits
from cloudtrain.source.command import NOTEBOOK_PACKAGES
from tests.conftest import ROOT

Project = Callable[..., JobSpec]

PYPROJECT = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["tqdm>=4", "rich"]\n'
SCRIPT = '# /// script\n# requires-python = ">=3.12"\n# dependencies = [\n#   "rich",\n# ]\n# ///\nimport rich\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Makes a project of files, and the job that runs its train.py."""

    def make(files: dict[str, str], **settings: object) -> JobSpec:
        for name, text in {"train.py": "", **files}.items():
            path = tmp_path / "project" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        job = JobSpec(source=str(tmp_path / "project"), command=("python", "train.py"))
        return replace(job, **settings)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(
    ("files", "source", "direct", "requires"),
    [
        ({"requirements.txt": "# all\ntqdm>=4  # why\n\nrich ; python_version > '3'\n"}, "requirements.txt",
         ("tqdm>=4", "rich"), ""),
        ({"pyproject.toml": PYPROJECT}, "pyproject.toml", ("tqdm>=4", "rich"), ">=3.11"),
        ({"pyproject.toml": PYPROJECT, ".python-version": "3.12.4\n"}, "pyproject.toml", ("tqdm>=4", "rich"),
         "==3.12.*"),
        ({"pyproject.toml": PYPROJECT, "uv.lock": 'version = 1\nrequires-python = ">=3.11"\n'}, "uv.lock",
         ("tqdm>=4", "rich"), ">=3.11"),
        ({"pyproject.toml": PYPROJECT, "requirements.txt": "six\n"}, "requirements.txt", ("six",), ""),
        ({"train.py": SCRIPT, "requirements.txt": "six\n"}, "train.py", ("rich",), ">=3.12"),
        ({"pyproject.toml": "[tool.ruff]\n", "requirements.txt": "six\n"}, "requirements.txt", ("six",), ""),
    ],
)  # fmt: skip
def test_what_a_project_asks_for(
    project: Project, files: dict[str, str], source: str, direct: tuple[str, ...], requires: str
) -> None:
    asked = look(project(files))
    assert asked is not None and (asked.source, asked.direct, asked.requires) == (source, direct, requires)
    assert not asked.runs_code


@pytest.mark.parametrize(
    "files", [{}, {"requirements.txt": "# none\n"}, {"pyproject.toml": "[tool.ruff]\n"}, {"setup.py": "boom"}]
)
def test_a_project_that_asks_for_nothing(project: Project, files: dict[str, str]) -> None:
    assert look(project(files)) is None


def test_the_nearest_files_from_where_the_command_runs_count(project: Project) -> None:
    files = {"pyproject.toml": PYPROJECT, "examples/mnist/requirements.txt": "six\n", "examples/other/x.py": ""}
    job = project(files)
    near = look(replace(job, cwd="examples/mnist"))
    above = look(replace(job, cwd="examples/other"))
    assert near is not None and near.source == "requirements.txt"
    assert above is not None and above.source == "pyproject.toml"


def test_with_and_the_setting(project: Project) -> None:
    job = project({"requirements.txt": "six\n", "requirements/gpu.txt": "rich\n"}, packages=("tqdm",))
    both = look(job)
    assert both is not None and both.source == "requirements.txt and --with" and both.direct == ("six", "tqdm")
    named = look(replace(job, environment="requirements/gpu.txt", packages=()))
    assert named is not None and named.direct == ("rich",)
    assert look(replace(job, environment="host", packages=())) is None
    alone = look(replace(job, environment="host"))
    assert alone is not None and (alone.source, alone.files) == ("--with", ())


@pytest.mark.parametrize(
    ("files", "settings", "says"),
    [
        ({"conda-lock.yml": "version: 1\n"}, {}, "conda-lock.yml asks for a conda environment of its own kind"),
        ({"environment.yml": "name: x\n"}, {"packages": ("six",)}, "--with does not go together with environment.yml"),
        ({"Dockerfile": "FROM x\n"}, {"packages": ("six",)}, "--with does not go together with Dockerfile"),
        ({}, {"environment": "image --privileged"}, "is no name of an image"),
        ({}, {"environment": "image pytorch/pytorch", "command": ()}, "a container runs a command of yours"),
        ({}, {"environment": "dockerfile"}, "there is no Dockerfile in the project"),
        ({}, {"environment": "uv.lock"}, "there is no uv.lock in the project"),
        ({"requirements.txt": "#\n"}, {"environment": "requirements.txt"}, "requirements.txt names no packages"),
        ({"pyproject.toml": "["}, {}, "cannot read"),
        ({"pyproject.toml": "\0", "uv.lock": "\0"}, {}, "cannot read"),
    ],
)
def test_what_cannot_be_made_is_refused(
    project: Project, files: dict[str, str], settings: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        look(project(files, **settings))
    assert caught.value.code == "requirements" and caught.value.hint


def test_a_file_of_condas_is_sent_with_what_it_names(project: Project) -> None:
    text = "dependencies:\n  - python=3.12\n  - pip:\n    - -r pip/more.txt\n"
    asked = look(project({"environment.yml": text, "pip/more.txt": "six\n"}))
    assert asked is not None and (asked.source, asked.conda) == ("environment.yml", "environment.yml")
    assert asked.texts == {"environment.yml": text, "pip/more.txt": "six\n"}
    both = look(project({"environment.yml": text, "requirements.txt": "six\n"}))
    assert both is not None and both.source == "requirements.txt"


def test_a_dockerfile_counts_where_there_is_nothing_else(project: Project) -> None:
    job = project({"sub/Dockerfile": "FROM x\n", "docker/Dockerfile.gpu": "FROM y\n"}, cwd="sub")
    asked = look(job)
    assert asked is not None and asked.container and asked.folder == Path(job.source, "sub")
    named = look(replace(job, environment="docker/Dockerfile.gpu"))
    assert named is not None and (named.folder, named.dockerfile) == (Path(job.source), "docker/Dockerfile.gpu")
    Path(job.source, "requirements.txt").write_text("six\n")
    asked, named = look(job), look(replace(job, environment="dockerfile"))
    assert asked is not None and asked.source == "requirements.txt" and not asked.container
    assert named is not None and (named.source, named.dockerfile) == ("Dockerfile", "Dockerfile")


def test_an_image_has_what_runs_a_notebook_or_nothing_has(project: Project) -> None:
    asked = look(project({}, environment="image  pytorch/pytorch:2.9", packages=NOTEBOOK_PACKAGES))
    assert asked is not None and (asked.source, asked.image) == ("image pytorch/pytorch:2.9", "pytorch/pytorch:2.9")
    assert asked.container and not asked.packages


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "-e .\nsix\n"},
        {"requirements.txt": "-r more.txt\n", "more.txt": "--editable=./lib\n"},
        {"requirements.txt": "./lib\n"},
        {"requirements.txt": "x @ file:///tmp/x\n"},
        {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n'},
        {"pyproject.toml": PYPROJECT + '[tool.uv.sources]\nrich = { path = "../rich", editable = true }\n'},
        {"pyproject.toml": PYPROJECT + "[tool.uv.sources]\nrich = { workspace = true }\n"},
    ],
)
def test_what_may_run_a_program_of_the_project_is_known(project: Project, files: dict[str, str]) -> None:
    asked = look(project(files))
    assert asked is not None and asked.runs_code


def test_the_shipped_job_can_be_read() -> None:
    asked = look(JobSpec(source=str(ROOT / "job")))
    assert asked is not None and asked.direct and all(any(c in line for c in "<>=") for line in asked.direct)


@pytest.mark.parametrize(
    ("requires", "good", "bad"),
    [
        ("", ["3.8", "3.14"], []),
        (">=3.11", ["3.11", "3.14"], ["3.10"]),
        (">=3.10,<3.13", ["3.10", "3.12"], ["3.9", "3.13"]),
        ("==3.12.*", ["3.12"], ["3.11", "3.13"]),
        ("~=3.11", ["3.11", "3.13"], ["3.10", "4.0"]),
        ("~=3.11.2", ["3.11"], ["3.12"]),
        (">3.11, !=3.13.*", ["3.12"], ["3.11", "3.13"]),
        (">=3.9.2,<3.12.4", ["3.9", "3.12"], ["3.8", "3.13"]),
        ("<=3.12", ["3.12"], ["3.13"]),
        ("nonsense", ["3.12"], []),
    ],
)
def test_which_python_a_project_takes(requires: str, good: list[str], bad: list[str]) -> None:
    assert all(suits(version, requires) for version in good)
    assert not any(suits(version, requires) for version in bad)
