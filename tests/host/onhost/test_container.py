"""A job in a container. There is no docker here: a stub stands in its place (tests/docker.py), whose containers are not
found among the run's processes, as those of a real daemon may not be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker import Docker, docker

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by /proc")

IMAGE = {"image": "cloudtrain/0123", "gpus": True}
TELLS = """\
import json, os, sys
open("new.txt", "w").write("new")
open(os.environ["CLOUDTRAIN_EVENTS"], "a").write('{"v": 1}')
print(json.dumps(dict(os.environ)))
sys.exit(3)
"""
STUBBORN = """\
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
print("ready", flush=True)
while True:
    time.sleep(1)
"""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    """docker on the PATH of the host, with the image."""
    with docker() as made:
        monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
        monkeypatch.setenv("ONLY_HERE", "1")
        made.images[IMAGE["image"]] = {}  # type: ignore[index]
        yield made


def started(host: Any, script: str, **changes: Any) -> None:
    host.start(script, **{"argv": ["python", "job.py"], "container": IMAGE, **changes})


def test_it_runs_in_the_run_directory_and_knows_what_it_was_given(host: Any, engine: Docker) -> None:
    started(host, TELLS, env={"COLOUR": "blue", "HOME": "/given"}, secrets={"TOKEN": "s3cr3t-value"})
    run = host.run_dir()
    assert host.finished()["code"] == 3
    told = json.loads(host.log())
    assert {name: told.get(name) for name in ("COLOUR", "TOKEN", "HOME", "CLOUDTRAIN_OUT")} == {
        "COLOUR": "blue",
        "TOKEN": "s3cr3t-value",
        "HOME": "/given",
        "CLOUDTRAIN_OUT": str(run / "out"),
    }
    assert "ONLY_HERE" not in told and "s3cr3t" not in (run / "spec.json").read_text()
    assert (run / "code" / "new.txt").read_text() == "new" and (run / "events.jsonl").read_text() == '{"v": 1}'
    (argv,) = engine.verbs("run")
    user, place = f"{os.getuid()}:{os.getgid()}", f"{run}:{run}"
    assert argv[:14] == [
        *("run", "--rm", "--init", "--network=host", "--ipc=host", "--gpus=all", "--name", "cloudtrain-brave-otter"),
        *("--volume", place, "--workdir", str(run / "code") + "/", "--user", user),
    ]
    assert argv[-3:] == [IMAGE["image"], "python", "job.py"] and "--env=TOKEN" in argv
    assert not any("blue" in word or "s3cr3t" in word for word in argv)
    host.nothing_left()


def test_a_stop_reaches_the_program(host: Any, engine: Docker) -> None:
    started(host, STUBBORN.replace('print("told", flush=True)', 'exit(print("saved") or 143)'))
    host.wait_for_log(b"ready")
    record = host.ask("stop", "--reason", "user", "--grace", "5")["exit"]
    assert (record["code"], record["stop"], host.log()) == (143, "user", b"ready\nsaved\n")
    host.nothing_left()


@pytest.mark.parametrize("how", ["stop", "deadline"])
def test_one_that_does_not_end_is_ended(host: Any, engine: Docker, how: str) -> None:
    started(host, STUBBORN, lasts=1.0 if how == "deadline" else None, grace=0.3)
    host.wait_for_log(b"ready")
    if how == "stop":
        host.ask("stop", "--reason", "user", "--grace", "0.3")
    assert host.finished()["stop"] == {"stop": "user"}.get(how, how) and b"told" in host.log()
    assert not engine.containers
    host.nothing_left()


def test_what_a_killed_supervisor_leaves_is_told_to_end_and_ended_at_the_next_look(host: Any, engine: Docker) -> None:
    started(host, STUBBORN)
    host.wait_for_log(b"ready")
    os.kill(host.supervisor(), signal.SIGKILL)
    host.wait_for_log(b"told")  # by the client, as its last
    assert engine.containers
    assert host.poll()["state"] == "lost"
    assert not engine.containers
    host.nothing_left()


def test_a_container_that_cannot_start_says_so_in_the_log(host: Any, engine: Docker, tmp_path: Path) -> None:
    engine.images.clear()
    started(host, TELLS)
    assert host.finished()["code"] == 125 and b"Error response from daemon" in host.log()


@pytest.mark.skipif(shutil.which("docker") is None, reason="takes the client of docker")
def test_a_real_client_knows_all_that_it_is_told(host: Any, engine: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no daemon for it: it reads its arguments, and then finds none."""
    started(host, TELLS)
    host.finished()
    build = ["build", "--pull=false", "--label=cloudtrain", "--tag", "cloudtrain/0123", "--file", "job.py", "."]
    argvs = [*engine.asked, build, ["pull", "x"], ["image", "inspect", "--format", "{{.Id}}", "--", "x"]]
    assert {argv[0] for argv in argvs} == {"run", "rm", "info", "build", "pull", "image"}
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(":")[2])
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    for argv in argvs:
        done = subprocess.run(["docker", *argv], capture_output=True, cwd=host.run_dir() / "code", timeout=20)
        assert b"Cannot connect to the Docker daemon" in done.stderr, (argv, done.stderr)
