"""What git says of the code that is sent."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core import disk, programs
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
    assert asdict(clean.record()) == {"commit": ask("rev-parse", "HEAD"), "dirty": False, "diff_sha256": None}
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


SETTINGS = (
    *("core.fsmonitor", "core.pager", "core.editor", "core.askPass", "core.gitProxy", "core.sshCommand"),
    *("core.alternateRefsCommand", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.external"),
    *("diff.evil.textconv", "diff.evil.command", "credential.helper", "gpg.program", "uploadpack.packObjectsHook"),
    *(
        "remote.evil.uploadpack",
        "sequence.editor",
        "pager.ls-tree",
        "pager.config",
        "pager.rev-parse",
        "pager.ls-files",
    ),
)
REMOTES = ("ext::{trap}", "ssh://nowhere.invalid/x", "git://nowhere.invalid/x", "file://{project}", "{project}")
needs_sh = pytest.mark.skipif(os.name == "nt" or shutil.which("git") is None, reason="needs git and scripts of sh")


class Traps:
    """Programs in a repository that note that they ran."""

    def __init__(self, project: Path, ran: Path) -> None:
        self.project, self._ran = project, ran
        ran.mkdir()

    def put(self, path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch '{self._ran}/{path.name}'\nexit 1\n")
        path.chmod(0o755)
        return str(path)

    def ran(self) -> set[str]:
        return {path.name for path in self._ran.iterdir()}


@pytest.fixture
def traps(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traps:
    """A repository with a commit, and a program wherever its settings, hooks and folders can name one."""
    traps, project = Traps(package.parent, tmp_path / "ran"), package.parent
    (project / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    ask = repository(project)
    ask("add", ".")
    ask("commit", "-q", "-m", "first")
    for name in SETTINGS:
        ask("config", name, traps.put(project / "traps" / name))
    for name in ("ls-tree", "rev-parse", "config", "ls-files", "check-ignore"):
        ask("config", f"alias.{name}", "!" + traps.put(project / "traps" / f"alias-{name}"))
    ask("config", "core.hooksPath", str(project / "hooks"))
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman", "post-checkout", "pre-auto-gc"):
        traps.put(project / "hooks" / name)
    for name in ("git", "ssh", "git-ls-tree", "git-ls-files", "git-rev-parse", "git-remote-ext", "sh"):
        traps.put(project / name)
        traps.put(package / name)
    (project / ".git" / "info" / "exclude").write_text("/net/git*\n/net/s[sh]*\n")
    for name in ("GIT_SSH_COMMAND", "GIT_PROXY_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_ASKPASS"):
        monkeypatch.setenv(name, traps.put(project / "traps" / name))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", traps.put(project / "traps" / "by-variable"))
    # Not as the index remembers it: whoever asks for the status would read it through the filter.
    os.utime(package / "train.py", (1, 1))
    assert not traps.ran()
    return traps


@needs_sh
def test_nothing_of_a_repository_is_run(traps: Traps, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.environ["PATH"]
    for folder in (traps.project, package):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", os.pathsep.join((".", "", str(folder), str(traps.project), usual)))
        state = git.state(package, scan(package).files)
        assert traps.ran() == set()
        assert state is not None and state.uncommitted == 0 and len(state.commit) == 40
    # They would have.
    monkeypatch.setenv("PATH", usual)
    subprocess.run(["git", "-C", str(package), "status"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    for kind in ({"core.fsmonitor", "by-variable"}, {"filter.evil.process", "filter.evil.clean"}):
        assert traps.ran() & kind


@needs_sh
@pytest.mark.parametrize("remote", REMOTES)
def test_nor_to_fetch_what_it_lacks(traps: Traps, package: Path, remote: str) -> None:
    ask = repository(traps.project)
    tree = ask("rev-parse", "HEAD:net")
    url = remote.format(trap=traps.project / "traps" / "core.sshCommand", project=traps.project)
    evil = {"core.repositoryFormatVersion": "1", "extensions.partialClone": "evil", "protocol.allow": "always"}
    evil |= {"remote.evil.url": url, "remote.evil.promisor": "true", "protocol.ext.allow": "always"}
    for name, value in evil.items():
        ask("config", name, value)
    (traps.project / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    before = traps.ran()
    assert git.state(package, scan(package).files) is None
    assert traps.ran() == before
    line = ["git", "-C", str(package), "ls-tree", "-r", "HEAD"]
    subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=20)
    assert traps.ran() - before, "the remote was no trap"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_what_is_as_committed(package: Path, tmp_path: Path) -> None:
    ask = repository(package.parent)
    (package / "text.txt").write_bytes(b"one\ntwo\n")
    pointed = b"weights"
    about = f"oid sha256:{hashlib.sha256(pointed).hexdigest()}\nsize {len(pointed)}\n"
    (package / "big.bin").write_bytes(f"version https://git-lfs.github.com/spec/v1\n{about}".encode())
    ask("add", ".")
    ask("commit", "-q", "-m", "first")

    def uncommitted() -> int:
        state = git.state(package, scan(package).files)
        assert state is not None
        return state.uncommitted

    assert uncommitted() == 0
    (package / "big.bin").write_bytes(pointed)  # as Git LFS puts it there
    assert uncommitted() == 0
    (package / "big.bin").write_bytes(b"other")
    assert uncommitted() == 1
    (package / "text.txt").write_bytes(b"one\r\ntwo\r\n")
    assert uncommitted() == 2
    ask("config", "core.autocrlf", "true")
    assert uncommitted() == 1
    if os.name != "nt":
        (package / "train.py").chmod(0o755)
        assert uncommitted() == 2
        ask("config", "core.fileMode", "false")
        assert uncommitted() == 1
        (package / "go.sh").unlink()
        (package / "go.sh").symlink_to("train.py")
        assert uncommitted() == 2
        ask("add", ".")
        ask("commit", "-q", "-m", "second")
        assert uncommitted() == 0
    # What a submodule's commit holds is committed.
    inner = tmp_path / "inner"
    inner.mkdir()
    of_inner = repository(inner)
    (inner / "code.py").write_text("1")
    of_inner("add", ".")
    of_inner("commit", "-q", "-m", "inner")
    ask("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), f"{package.name}/sub")
    ask("commit", "-q", "-am", "third")
    now = uncommitted()
    (package / "sub" / "code.py").write_text("2")
    assert uncommitted() == now + 1


@needs_sh
def test_programs_are_found_outside_the_project(traps: Traps, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(package)
    monkeypatch.setenv("PATH", os.pathsep.join((".", "", "traps", str(traps.project), str(package))))
    assert programs.find("ssh", beside=package) is None
    elsewhere = traps.put(traps.project.parent / "bin" / "ssh")
    monkeypatch.setenv("PATH", os.pathsep.join((os.environ["PATH"], str(Path(elsewhere).parent))))
    assert programs.find("ssh", beside=package) == elsewhere


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_repository_around_the_state_folder_is_not_about_the_code_in_it(package: Path, tmp_path: Path) -> None:
    (package / ".gitignore").write_text("labels.csv\n")
    (package / "labels.csv").write_text("sent all the same: git tracks it\n")
    repository(package.parent)("add", "-f", str(package / "labels.csv"))
    code_copy.pack(scan(package), tmp_path / "a.tar.gz")
    disk.private_dir(disk.state_dir())
    subprocess.run(["git", "init", "-q", str(disk.state_dir())], check=True)
    (disk.state_dir() / ".gitignore").write_text("*\n")
    place = code_copy.unpack(tmp_path / "a.tar.gz", scan(package).digest, "net")
    assert scan(place).digest == scan(package).digest and git.state(place, {}) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_plan_names_what_stays_with_its_size(package: Path, tmp_path: Path) -> None:
    ask = repository(package.parent)
    (package / "labels.csv").write_text("cat,dog\n")
    (package / "other.csv").write_text("not tracked\n")
    (package.parent / ".gitignore").write_text("*.csv\n")
    (tmp_path / "disk").mkdir()
    (package / "data").symlink_to(tmp_path / "disk")
    ask("add", ".")
    ask("add", "-f", str(package / "labels.csv"))
    spec = plans.spec(tmp_path / "runs", job=JobSpec(source=str(package)))
    context = Context(store=Store(tmp_path / "registry.sqlite"), provider=lambda spec: LocalProvider())
    assert planning.plan_run(spec, context).code.stays == (
        "a link out of the folder: data",
        f"git-ignored, 12 B in 1 file: other.csv (a line !other.csv in {package.name}/.cloudtrainignore sends it)",
    )
