"""Where a command is started: no home, a folder that is gone, standard streams that are closed or take nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtrain.core import disk
from cloudtrain.core.errors import ExitCode, UsageError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="streams and users as Linux has them")


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which `cloudtrain` is this one."""
    command = f'cloudtrain() {{ "{sys.executable}" -m cloudtrain "$@"; }}; {line}'
    env = {**os.environ, "PYTHONPATH": str(Path.cwd()), **environment}
    return subprocess.run(["sh", "-c", command], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("named", [None, "~/here"])
def test_a_user_without_a_home_is_told_of_the_variable(named: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in list(os.environ):
        if name.startswith(("XDG_", "CLOUDTRAIN_")):
            monkeypatch.delenv(name)
    if named:
        monkeypatch.setenv("CLOUDTRAIN_HOME", named)
    for folder in (disk.state_dir, disk.config_dir, disk.cache_dir):
        with pytest.raises(UsageError, match="no home folder") as caught:
            folder()
        assert caught.value.code == "no_home" and "CLOUDTRAIN_HOME" in (caught.value.hint or "")
    monkeypatch.setenv("CLOUDTRAIN_HOME", "/somewhere")
    assert disk.state_dir() == Path("/somewhere/state")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes a user without a name")
@pytest.mark.parametrize("words", ["ls", "ls --json", "run --local --plan", "doctor"])
def test_a_command_of_a_user_without_a_home_ends_in_one_line(words: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    python = f"env -u HOME -u CLOUDTRAIN_HOME setpriv --reuid 12345 --clear-groups {sys.executable}"
    done = shell(f"{python} -m cloudtrain {words}", Path("/"))
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "CLOUDTRAIN_HOME" in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (0 if "--json" in words else 2)


ANSWERS = ["--version", "--help", "ls --help", "instances --offline", "instances --offline --json", "show no --json"]


@pytest.mark.parametrize("away", [">&-", ">/dev/full"])
@pytest.mark.parametrize("words", ANSWERS)
def test_standard_output_that_takes_nothing_is_one_line_and_a_code(words: str, away: str, tmp_path: Path) -> None:
    done = shell(f"cloudtrain {words} {away}", tmp_path)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert "[cannot_write]" in done.stderr or "no run" in done.stderr


@pytest.mark.parametrize("away", ["2>&-", "2>/dev/full", "<&-", "<&- >&- 2>&-"])
def test_the_code_says_how_it_went_where_nothing_can_be_said(away: str, tmp_path: Path) -> None:
    assert shell(f"cloudtrain show nosuch {away}", tmp_path).returncode == ExitCode.USAGE


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    shell("cloudtrain ls <&- >&- 2>&-", tmp_path)
    registry = disk.state_dir() / "registry.sqlite"
    assert registry.read_bytes().startswith(b"SQLite format 3")
    assert shell("cloudtrain ls", tmp_path).returncode == 0


@pytest.mark.parametrize("words", ["run --local --yes", "run --local --plan"])
def test_a_folder_that_is_gone_is_one_line_and_a_code(words: str, tmp_path: Path) -> None:
    done = shell(f"mkdir gone && cd gone && rmdir ../gone && cloudtrain {words}", tmp_path)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert "[folder]" in done.stderr and "cd to an existing folder" in done.stderr
