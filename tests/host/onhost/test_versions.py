"""Hosts and clients of different versions: what the last release has started this one follows, and the reverse.

The last release is taken from the history; a shallow clone has none, and skips.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAST_RELEASE = "8e56cd4d62b40c29db6b98dab19d1fa46095233b"

OLD_MODULES = """\
from cloudtrain.follow import Follower
from cloudtrain.results import pull
from cloudtrain.supervisor import Supervisor
from cloudtrain.sync import push
from cloudtrain.transport.local import LocalTransport
from cloudtrain.tree import scan
HOSTS = lambda supervisor: supervisor.read
FILES = lambda supervisor: supervisor.manifest()
"""
NEW_MODULES = """\
from cloudtrain.source.tree import scan
from cloudtrain.transfer.follow import Follower
from cloudtrain.transfer.pull import pull
from cloudtrain.transfer.push import push
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.local import LocalTransport
HOSTS = lambda supervisor: supervisor
FILES = lambda supervisor: supervisor.manifest().files
"""
# A client that does what its command line names, one after the other, and tells what came of it. The host is HOST, seen
# as from its login directory; results come to HERE.
CLIENT = """\
import json, sys, time
from pathlib import Path

HOST, SOURCE, HERE, *acts = sys.argv[1:]
transport = LocalTransport(Path(HOST))
python, run_dir, workdir = sys.executable, "work dir/runs/brave-otter", "work dir"
supervisor = Supervisor(transport, python, run_dir, workdir)


class Way:
    def supervisor(self):
        return supervisor

    def drop(self):
        pass


def nothing(event):
    pass


def act(name):
    tree = scan(Path(SOURCE), cache=None)
    if name == "push":
        options = {"python": python, "workdir": workdir, "run_dir": run_dir, "key": "job-1"}
        return push(transport, tree, target_id="host-1", emit=nothing, **options).digest
    if name == "probe":
        return supervisor.probe().python
    if name == "start":
        spec = {"v": 1, "run": "brave-otter", "tree": "job-1", "digest": tree.digest, "env": {"COLOUR": "blue"}}
        return supervisor.start({**spec, "argv": [python, "job/train.py"], "lasts": None, "grace": 20}).started
    if name == "poll":
        return supervisor.poll().state
    if name == "lease":
        later = {"lasts": 3600.0} if HOSTS(supervisor) is supervisor else {"deadline": time.time() + 3600.0}
        return supervisor.lease(grace=3600.0, **later).state
    if name == "stop":
        return supervisor.stop("user", 20.0).stop
    if name == "follow":
        end = Follower(Path(HERE), Way(), nothing).run()
        return [end.state, end.exit.code, end.exit.stop, end.exit.log_sha256]
    if name == "pull":
        return len(pull(HOSTS(supervisor), FILES(supervisor), Path(HERE), emit=nothing).files)
    if name == "go":
        (Path(HOST) / workdir / "go").touch()


Path(HERE).mkdir(exist_ok=True)
print(json.dumps([act(name) for name in acts]))
transport.close()
"""
JOB = """\
import json, os, signal, time
out = os.environ["CLOUDTRAIN_OUT"]


def put(name, data):
    with open(out + "/" + name + ".part", "wb") as file:
        file.write(data)
    os.replace(out + "/" + name + ".part", out + "/" + name)


def stopped(number, frame):
    put("saved.txt", b"in time")
    raise SystemExit(143)


signal.signal(signal.SIGTERM, stopped)
with open(os.environ["CLOUDTRAIN_EVENTS"], "a") as events:
    events.write(json.dumps({"v": 1, "kind": "start"}) + "\\n")
print("first line", os.environ["COLOUR"], flush=True)
while not os.path.exists(os.environ["CLOUDTRAIN_RUN"] + "/../../go"):
    time.sleep(0.02)
put("weights.bin", b"weights" * 50_000)
print("last line", flush=True)
"""


@pytest.fixture(scope="session")
def last_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it was in the last release."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "--format=zip", LAST_RELEASE, "cloudtrain"],
            capture_output=True,
            timeout=120,
        )
    except FileNotFoundError:
        pytest.skip("git is not here, so the last release cannot be taken from the history")
    if done.returncode:
        pytest.skip(f"the last release ({LAST_RELEASE[:7]}) is not in the history of this clone")
    folder = tmp_path_factory.mktemp("last release")
    ZipFile(io.BytesIO(done.stdout)).extractall(folder)
    return folder


class Versions:
    """A folder that plays the host, and a client of either version."""

    def __init__(self, folder: Path, last_release: Path) -> None:
        self.folder = folder
        self.last_release = last_release
        self.host, self.source, self.here = folder / "host", folder / "job", folder / "here"
        self.host.mkdir()
        self.source.mkdir()
        (self.source / "train.py").write_text(JOB)
        self.run_dir = self.host / "work dir" / "runs" / "brave-otter"

    def client(self, version: str, *acts: str) -> list[Any]:
        """What a client of that version, "old" or "new", gets for each of `acts`."""
        place, modules = {"old": (self.last_release, OLD_MODULES), "new": (ROOT, NEW_MODULES)}[version]
        argv = [sys.executable, "-c", modules + CLIENT, str(self.host), str(self.source), str(self.here), *acts]
        done = subprocess.run(
            argv, cwd=self.folder, env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr.decode()
        answers: list[Any] = json.loads(done.stdout)
        return answers


@pytest.fixture
def versions(tmp_path: Path, last_release: Path) -> Iterator[Versions]:
    made = Versions(tmp_path, last_release)
    yield made
    if (made.run_dir / "job.json").exists():
        with contextlib.suppress(OSError):
            made.client("new", "stop")


BOTH_WAYS = pytest.mark.parametrize(("one", "other"), [("old", "new"), ("new", "old")])


@BOTH_WAYS
def test_a_run_that_another_version_started_is_followed_and_pulled(versions: Versions, one: str, other: str) -> None:
    python, _, started = versions.client(one, "probe", "push", "start")
    assert (Path(python).name.startswith("python"), started) == (True, True)
    assert (versions.run_dir / "onhost").is_dir() is (one == "new")
    got = versions.client(other, "poll", "lease", "start", "go", "follow", "pull", "poll", "stop")
    log = b"first line blue\nlast line\n"
    assert got == [
        *("running", "running", False, None),
        *(["exited", 0, None, hashlib.sha256(log).hexdigest()], 1, "exited", None),
    ]
    assert (versions.here / "console.log").read_bytes() == log
    assert json.loads((versions.here / "events.jsonl").read_bytes()) == {"v": 1, "kind": "start"}
    assert (versions.here / "weights.bin").read_bytes() == b"weights" * 50_000


@BOTH_WAYS
def test_a_run_that_another_version_started_is_stopped(versions: Versions, one: str, other: str) -> None:
    versions.client(one, "push", "start")
    log = versions.run_dir / "console.log"
    while b"\n" not in log.read_bytes():
        time.sleep(0.02)
    got = versions.client(other, "stop", "follow", "pull")
    assert got == ["user", ["exited", 143, "user", hashlib.sha256(b"first line blue\n").hexdigest()], 1]
    assert (versions.here / "saved.txt").read_bytes() == b"in time"


@BOTH_WAYS
def test_a_run_that_another_version_has_pushed_is_started(versions: Versions, one: str, other: str) -> None:
    """As a command that comes back after a crash: it pushes anew, into the same run directory."""
    [pushed] = versions.client(one, "push")
    got = versions.client(other, "poll", "push", "start", "go", "follow", "pull")
    assert got[:3] == ["absent", pushed, True] and got[4][:3] == ["exited", 0, None] and got[5] == 1


@pytest.mark.parametrize("version", ["old", "new"])
def test_a_verb_is_a_program_and_its_words(versions: Versions, version: str) -> None:
    """However it was sent, `python3 RUN_DIR/supervise.py VERB --run RUN_DIR` works, from wherever it is called."""
    versions.client(version, "push", "start", "go", "follow")
    calls = [(versions.folder, str(versions.run_dir)), (versions.host, "work dir/runs/brave-otter")]
    for cwd, run in calls:
        for isolated in ([], ["-I", "-S"]):
            argv = [sys.executable, *isolated, f"{run}/supervise.py", "poll", "--run", run]
            answer = json.loads(subprocess.run(argv, cwd=cwd, capture_output=True, check=True, timeout=60).stdout)
            assert (answer["ok"], answer["state"], answer["exit"]["code"]) == (True, "exited", 0)
