"""The built wheel carries the training package as data and works from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import cloudtrain
from cloudtrain.core.errors import UsageError
from cloudtrain.source.shipped import agent_guide, job_folder

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was installed into, far from this checkout."""
    target = tmp_path_factory.mktemp("installed")
    install = [*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return target


def python(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `cwd` with the installed wheel first on its path."""
    env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=120
    )


def source_files(folder: Path) -> set[str]:
    """What of `folder` belongs to it, by the version-control system's own word and what is new beside it."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_nothing_but_the_package_is_installed(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"cloudtrain", f"cloudtrain-{cloudtrain.__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".part"))]
    program = {path.name for path in (ROOT / "cloudtrain" / "onhost").glob("*.py")}
    assert program == {name.rpartition("/")[2] for name in names if name.startswith("cloudtrain/onhost/")}
    templates = {path.name for path in (ROOT / "cloudtrain" / "report" / "templates").iterdir()}
    assert templates == {name.rpartition("/")[2] for name in names if name.startswith("cloudtrain/report/templates/")}


def test_the_wheel_works_in_a_folder_with_an_odd_name(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "Über die Ziffern 数字"
    elsewhere.mkdir()
    done = python(installed, elsewhere, "-m", "cloudtrain", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"cloudtrain {cloudtrain.__version__}"), done.stderr


def test_the_training_package_arrives_whole_and_is_what_would_be_sent(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a b"
    elsewhere.mkdir()
    ask = (
        "import json, sys, cloudtrain\n"
        "from cloudtrain.source.shipped import agent_guide, job_folder\n"
        "from cloudtrain.source.tree import scan\n"
        "folder = job_folder(); tree = scan(folder, cache=None)\n"
        "print(json.dumps([cloudtrain.__file__, str(folder), sorted(tree.files)]))"
    )
    done = python(installed, elsewhere, "-c", ask)
    assert done.returncode == 0, done.stderr
    package, folder, sent = json.loads(done.stdout)
    assert Path(package).is_relative_to(installed)
    assert Path(folder) == installed / "cloudtrain" / "_shipped" / "job"
    assert source_files(Path(folder)) == source_files(ROOT / "job")
    # Nothing of the packaging or of ignore rules further up takes a file away on its way to a host.
    assert {name.removeprefix("job/") for name in sent} == source_files(ROOT / "job")


def test_the_name_job_stays_free(installed: Path, tmp_path: Path) -> None:
    done = python(installed, tmp_path, "-S", "-c", "import job")
    assert "No module named 'job'" in done.stderr


def test_a_checkout_sends_its_own_folder() -> None:
    assert job_folder() == ROOT / "job"


def test_an_installation_without_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("_INSIDE", "_BESIDE"):
        monkeypatch.setattr(f"cloudtrain.source.shipped.{place}", tmp_path)
    for part, lacks in ((job_folder, "its training package"), (agent_guide, "its page for coding agents")):
        with pytest.raises(UsageError, match=f"lacks {lacks}") as caught:
            part()
        assert caught.value.hint


def test_the_page_for_coding_agents_comes_along(installed: Path, tmp_path: Path) -> None:
    done = python(installed, tmp_path, "-m", "cloudtrain", "guide")
    page = (ROOT / "docs" / "agent-guide.md").read_text(encoding="utf-8")
    assert (done.returncode, done.stdout.splitlines()) == (0, page.splitlines()), done.stderr
