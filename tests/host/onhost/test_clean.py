"""The verb `clean`: what a host keeps of runs, told and removed; never of one that lives, never beyond its folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.host.onhost.conftest import LIMIT_S, Host

SAVES = "import os; open(os.environ['CLOUDTRAIN_OUT'] + '/w.bin', 'wb').write(b'w')"
W = {"w.bin": hashlib.sha256(b"w").hexdigest()}


def clean(host: Host, remove: dict[str, Any] | None = None) -> dict[str, Any]:
    wanted = json.dumps({"remove": remove or {}}).encode()
    argv = [sys.executable, "-I", "-S", str(host.program), "clean", "--workdir", str(host.workdir)]
    done = subprocess.run(argv, input=wanted, capture_output=True, timeout=LIMIT_S)
    assert done.returncode == 0 and done.stderr == b"", done
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def row(answer: dict[str, Any], name: str = "brave-otter") -> dict[str, Any]:
    return next(one for one in answer["runs"] if one["name"] == name)


def test_a_run_whose_results_are_elsewhere_goes_whole(host: Host) -> None:
    host.start(SAVES, id="a1")
    host.finished()
    told = row(clean(host))
    assert (told["id"], told["state"], told["removed"], told["kept"]) == ("a1", "exited", False, None)
    assert told["bytes"] > 100 and 0 <= told["age_s"] < 60
    (host.run_dir() / "code").chmod(0o500)

    answer = clean(host, {"brave-otter": {"id": "a1", "files": W}})
    assert row(answer)["removed"] is True
    assert [path.name for path in host.workdir.iterdir()] == ["trees"] or not any((host.workdir / "runs").iterdir())
    assert not list(host.workdir.glob("gone-*"))
    assert [one["removed"] for one in answer["trees"]] == [False], "the next push is quick"


@pytest.mark.parametrize(
    ("script", "files", "odd"),
    [
        (SAVES, {}, "out/w.bin"),
        (SAVES, {"w.bin": "0" * 64}, "out/w.bin"),
        (f"{SAVES}; open('model.pt', 'w').write('m')", W, "code/model.pt"),
        (f"{SAVES}; open('../mine', 'w').write('m')", W, "mine"),
    ],
)
def test_what_is_nowhere_else_stays(host: Host, script: str, files: dict[str, str], odd: str) -> None:
    host.start(script, id="a1")
    host.finished()
    told = row(clean(host, {"brave-otter": {"id": "a1", "files": files}}))
    assert (told["removed"], told["kept"]) == (False, f"it holds {odd}, which is not here")
    assert (host.run_dir() / "out" / "w.bin").exists()
    assert row(clean(host, {"brave-otter": {"id": "a1", "files": None}}))["removed"] is True


def test_what_lives_or_is_another_run_stays(host: Host) -> None:
    host.start("import time; time.sleep(60)", id="a1")
    (host.workdir / "runs" / "pushed").mkdir()
    both = {name: {"id": "a1" if name == "brave-otter" else None, "files": None} for name in ("brave-otter", "pushed")}
    answer = clean(host, both)
    assert [(one["state"], one["kept"]) for one in answer["runs"]] == [
        ("running", "it lives"),
        ("starting", "it lives"),
    ]
    host.ask("stop", "--grace", "0")
    assert row(clean(host, {"brave-otter": {"id": "b2", "files": None}}))["removed"] is False
    assert host.run_dir().exists()


def test_nothing_is_followed_out_of_the_folder(host: Host, tmp_path: Path) -> None:
    """A link among the runs is no run, and what a link in a run points at stays."""
    away = tmp_path / "away"
    away.mkdir()
    (away / "mine").write_text("mine")
    host.start(f"{SAVES}; os.symlink({str(away)!r}, os.environ['CLOUDTRAIN_OUT'] + '/link')", id=None)
    host.finished()
    (host.workdir / "runs" / "away").symlink_to(away)
    answer = clean(host, {name: {"id": None, "files": None} for name in ("brave-otter", "away", "..", ".")})
    assert [(one["name"], one["removed"]) for one in answer["runs"]] == [("brave-otter", True)]
    assert (away / "mine").read_text() == "mine"


def test_environments_that_no_run_has_wanted_for_long_go_with_a_removal(host: Host) -> None:
    host.start(SAVES, id="a1")
    host.finished()
    envs = host.workdir / "envs"
    for name, days in (("new", 2), ("old", 31), ("half", None)):
        (envs / name / "lib").mkdir(parents=True)
        (envs / name / "lib" / "x").write_bytes(b"x" * 999)
        if days is not None:
            (envs / name / "ready").touch()
            os.utime(envs / name / "ready", ((envs / name).stat().st_mtime - days * 86400,) * 2)
    told = clean(host)["environments"]
    assert [(one["name"], one["bytes"], one["removed"]) for one in told] == [
        (name, 999, False) for name in ("half", "new", "old")
    ]
    clean(host, {"brave-otter": {"id": "a1", "files": W}})
    assert [path.name for path in envs.iterdir() if path.is_dir()] == ["new"]


def test_old_copies_of_code_go_with_a_removal(host: Host) -> None:
    host.start(SAVES, id="a1")
    host.finished()
    old, resume = host.workdir / "trees" / "old-1", host.workdir / "trees" / "resume-1"
    for folder, days in ((old, 31), (resume, 2)):
        folder.mkdir()
        os.utime(folder, (folder.stat().st_mtime - days * 86400,) * 2)
    clean(host)
    assert old.exists() and resume.exists()
    clean(host, {"brave-otter": {"id": "a1", "files": W}})
    assert sorted(path.name for path in (host.workdir / "trees").iterdir()) == ["tree-1"]
