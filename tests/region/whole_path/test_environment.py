"""A project's packages: in the plan before anything is launched, on its machine, in what the run leaves."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.region.whole_path.conftest import check_record
from tests.region.whole_path.place import Place
from tests.wheels import wheel

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="EC2 hosts run Linux")


@pytest.fixture
def project(in_account: Place, tmp_path: Path) -> Path:
    """Where the commands are typed: a program that needs a package, which one folder has and no index."""
    (tmp_path / "no-index").mkdir()
    wheel(tmp_path / "wheels", "ctmath", "1.5", script="ct-math")
    wheel(tmp_path / "wheels", "ctmath", "2.0")
    in_account.environment |= {
        "UV_DEFAULT_INDEX": (tmp_path / "no-index").as_uri(),
        "UV_FIND_LINKS": str(tmp_path / "wheels"),
    }
    folder = in_account.cwd
    (folder / "pyproject.toml").write_text('[project]\nname = "digits"\nversion = "1"\ndependencies = ["ctmath<2"]\n')
    (folder / "run.sh").write_text("ct-math && python train.py\n")
    (folder / "train.py").write_text(
        'import ctmath, importlib.util\nprint("with", ctmath.version, "and", importlib.util.find_spec("torch").name)\n'
    )
    return folder


def test_a_command_finds_the_packages_that_its_project_asks_for(
    in_account: Place, project: Path, region: object
) -> None:
    done = in_account.cli("run", *in_account.flags, "--name", "own-packages", "--yes", "--", "bash", "run.sh")
    told = " ".join(done.stderr.decode().split())
    plan, _, steps = told.partition("step instance")
    assert "env pyproject.toml: 1 package for Python 3.12 " in plan
    assert "1 package installed, kept for the next run on this machine (envs/" in steps
    folder = in_account.folder("own-packages")
    assert (folder / "console.log").read_text() == "ctmath 1.5\nwith 1.5 and torch\n"
    lock = (folder / "env" / "lock.txt").read_bytes()
    made = json.loads((folder / "run.json").read_text())["environment"]
    assert made["lock_sha256"] == hashlib.sha256(lock).hexdigest() and b'version = "1.5"' in lock
    assert (made["source"], made["packages"], made["torch_of"]) == ("pyproject.toml", 1, "machine")
    in_account.cli("verify", "own-packages")
    check_record(region)  # type: ignore[arg-type]


def test_what_cannot_be_had_is_refused_before_anything_is_launched(
    in_account: Place, project: Path, region: object
) -> None:
    (project / "requirements.txt").write_text("ctmath>=3\n")
    done = in_account.cli("run", *in_account.flags, "--yes", "--", "python", "train.py", code=2)
    told = " ".join(done.stderr.decode().split())
    assert "requirements.txt asks for packages that cannot be had, or not together" in told and "ctmath>=3" in told
    assert "nothing was started" in told and not region.calls("RunInstances")  # type: ignore[attr-defined]
