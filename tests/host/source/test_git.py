"""What git says of the code that is sent."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core import disk
from cloudtrain.core.spec import JobSpec
from cloudtrain.lifecycle import planning
from cloudtrain.lifecycle.session import Context
from cloudtrain.provider.local import LocalProvider
from cloudtrain.run_folder import code_copy
from cloudtrain.source import git
from cloudtrain.store import Store
from tests import plans
from tests.unit.run_folder.test_code_copy import scan


def repository(folder: Path) -> Any:
    """A function that runs git in `folder`, of which it makes a repository."""

    def run(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    run("init", "-q")
    return run


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_names_commit_and_every_change(package: Path) -> None:
    project = package.parent
    ask = repository(project)
    (project / "outside.txt").write_text("not sent\n")
    ask("add", ".")
    ask("commit", "-q", "-m", "first")
    clean = git.state(package, scan(package).files)
    assert clean is not None
    assert clean.record() == {"commit": ask("rev-parse", "HEAD"), "dirty": False, "diff_sha256": None}
    (project / "outside.txt").write_text("changed, and not sent\n")
    assert git.state(package, scan(package).files) == clean

    (package / "train.py").write_text("print('changed')\n")
    files = scan(package).files
    changed = git.state(package, files)
    assert changed is not None and changed.commit == clean.commit
    path = f"{package.name}/train.py"
    line = f"{path}\0{files[path].size}\0{files[path].sha256}\0{files[path].mode}\n"
    assert changed.diff_sha256 == hashlib.sha256(line.encode()).hexdigest()
    # The user's taste changes nothing.
    for setting in ("status.showUntrackedFiles=no", "status.relativePaths=true", "diff.renames=copies"):
        ask("config", *setting.split("="))
    ask("add", ".")
    assert git.state(package, scan(package).files) == changed

    (package / "new.py").write_text("x = 1\n")
    with_new = git.state(package, scan(package).files)
    assert with_new is not None and with_new.diff_sha256 not in (None, changed.diff_sha256)
    (package / "new.py").write_text("x = 2\n")
    other = git.state(package, scan(package).files)
    assert other is not None and other.diff_sha256 != with_new.diff_sha256
    (package / ".gitignore").write_text("new.py\n")
    ignored = git.state(package, scan(package).files)
    (package / ".cloudtrainignore").write_text("!new.py\n")
    brought_back = git.state(package, scan(package).files)
    assert ignored is not None and brought_back is not None
    assert len({state.diff_sha256 for state in (changed, other, ignored, brought_back)}) == 4
    (package / "train.py").unlink()
    gone = git.state(package, scan(package).files)
    assert gone is not None and gone.diff_sha256 not in (None, brought_back.diff_sha256)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_repository_around_the_state_folder_is_not_about_the_code_in_it(package: Path, tmp_path: Path) -> None:
    code_copy.pack(scan(package), tmp_path / "a.tar.gz")
    disk.private_dir(disk.state_dir())
    subprocess.run(["git", "init", "-q", str(disk.state_dir())], check=True)
    (disk.state_dir() / ".gitignore").write_text("*\n")
    place = code_copy.unpack(tmp_path / "a.tar.gz", scan(package).digest, "net")
    assert scan(place).digest == scan(package).digest and git.state(place, {}) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_plan_names_what_git_tracks_and_a_rule_keeps_here(package: Path, tmp_path: Path) -> None:
    ask = repository(package.parent)
    (package / "labels.csv").write_text("cat,dog\n")
    (package / "other.csv").write_text("not tracked\n")
    (package.parent / ".gitignore").write_text("*.csv\n")
    (tmp_path / "disk").mkdir()
    (package / "data").symlink_to(tmp_path / "disk")
    ask("add", ".")
    ask("add", "-f", str(package / "labels.csv"))
    ask("commit", "-q", "-m", "first")
    spec = plans.spec(tmp_path / "runs", job=JobSpec(source=str(package)))
    context = Context(store=Store(tmp_path / "registry.sqlite"), provider=lambda spec: LocalProvider())
    linked, labels, other = planning.plan_run(spec, context).code.stays
    assert linked == f"{package.name}/data (a link out of the folder)"
    assert labels.startswith(f"{package.name}/labels.csv (") and "git tracks it, ../.gitignore:1: *.csv" in labels
    assert other.startswith(f"{package.name}/other.csv (") and "tracks" not in other
