"""An image for a program's container. There is no docker here: a stub stands in its place (tests/docker.py); what is
sent, asked and kept, and what becomes of a refusal, is real."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment import build, container
from cloudtrain.environment.asked import look
from cloudtrain.source import tree
from cloudtrain.transfer.push import push
from cloudtrain.transfer.supervisor import Supervisor
from tests.docker import Docker, digest, docker
from tests.host.environment.conftest import Host
from tests.region.whole_path.place import Place

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the host of these tests is POSIX")

REF = "pytorch/pytorch:2.9"
TRAIN = "import os\nopen('model.txt', 'w').write(os.environ['COLOUR'])\n"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    """docker on the PATH, of this computer and of its hosts; its registry has one image."""
    with docker() as made:
        monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
        made.registry = (REF,)
        yield made


@pytest.fixture
def here(tmp_path: Path, engine: Docker) -> Iterator[Place]:
    """This computer, in the folder of a project with a Dockerfile."""
    (tmp_path / "digits").mkdir()
    place = Place("local", ["--local"], tmp_path / "home", tmp_path / "digits")
    (place.cwd / "Dockerfile").write_text("FROM python\nCOPY . /app\n")
    (place.cwd / "train.py").write_text(TRAIN)
    try:
        yield place
    finally:
        place.cleanup()


def test_an_image_is_pulled_once_and_stays_the_same_elsewhere(
    host: Host, engine: Docker, project: Callable[..., JobSpec]
) -> None:
    job = project({"src/a.py": "", "pyproject.toml": "[project]\nname='a'\n"}, environment=f"image {REF}")
    made = host.prepare(job)
    assert (made.python, made.image, made.source, made.imports) == ("python", REF, f"image {REF}", "src")
    assert host.lock.splitlines()[1] == digest(REF) and f"image {REF}, kept for" in host.done
    assert any("Pulling from it" in str(event) for event in host.told)
    assert host.prepare(job, run="calm-heron") == made and "as the machine had it" in host.done
    assert engine.verbs("pull") == [["pull", REF]]
    engine.images.clear()
    assert host.prepare(job, before=build.Before(made, host.lock)).image == digest(REF)
    assert engine.verbs("pull")[1:] == [["pull", digest(REF)]]


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "docker_denied"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "no_docker"),
        (None, "image_not_pulled"),
    ],
)
def test_why_there_is_no_image(
    host: Host, engine: Docker, project: Callable[..., JobSpec], says: str | None, code: str
) -> None:
    engine.refuses = says or ""
    asks = (f"image {REF}x",) if says is None else (f"image {REF}", "dockerfile")
    for environment in asks:
        with pytest.raises(ConnectionFailed) as caught:
            host.prepare(project({"Dockerfile": "FROM x\n"}, environment=environment))
        assert (caught.value.code, caught.value.consequence) == (code, "nothing has trained")
        assert (says or "pull access denied") in str(caught.value.detail)


def test_a_machine_without_docker(
    host: Host, project: Callable[..., JobSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConnectionFailed) as caught:
        host.prepare(project({"Dockerfile": "FROM x\n"}))
    assert caught.value.code == "no_docker" and 'env = "host"' in str(caught.value.hint)


def test_a_dockerfile_is_built_of_what_was_sent_and_anew_once_that_changes(
    host: Host, engine: Docker, project: Callable[..., JobSpec]
) -> None:
    job = project({"Dockerfile": "FROM python\nCOPY . /app\n", "sub/a.txt": "a"})
    made, top = host.prepare(job), Path(job.source)
    assert (made.image, host.lock, engine.verbs("build")) == ("", "", [])
    supervisor = Supervisor(host.transport, sys.executable, "work/runs/brave-otter", "work")

    def build() -> str:
        host.told.clear()
        files, key = tree.scan(top, cache=None), tree.tree_key(top)
        known = {"workdir": "work", "run_dir": "work/runs/brave-otter", "key": key, "target_id": "here"}
        digest = push(host.transport, files, python=sys.executable, emit=host.told.append, **known).digest
        asked = look(job)
        assert asked is not None
        built, lock = container.build(supervisor, made, asked, files, {"tree": key, "digest": digest}, host.told.append)
        assert lock.startswith("sha256:1") and built.image == f"cloudtrain/{built.key}"
        return str(built.image)

    first = build()
    assert build() == first and "as the machine had it" in host.done and len(engine.verbs("build")) == 1
    assert engine.images[first] == {"Dockerfile": "FROM python\nCOPY . /app\n", "sub/a.txt": "a", "train.py": ""}
    (top / "sub" / "a.txt").write_text("b")
    second = build()
    (top / "sub" / "a.txt").chmod(0o755)
    assert len({first, second, build()}) == len(engine.verbs("build")) == 3
    assert not (host.login / "work" / "runs" / "brave-otter" / "context").exists()
    (top / ".cloudtrainignore").write_text("Dockerfile\n")
    with pytest.raises(UsageError, match="Dockerfile is not sent"):
        build()


def test_a_run_whose_build_fails_says_why_and_the_corrected_one_trains(here: Place, engine: Docker) -> None:
    words = ("--yes", "--env", "COLOUR=blue", "--", "python", "train.py")
    (here.cwd / "Dockerfile").write_text("FROM python\nRUN fails: no such package\n")
    told = here.cli("run", *here.flags, "--name", "fails", *words, code=6).stderr.decode()
    assert "[image_not_built]" in told and "ERROR: no such package" in told and "nothing has trained" in told
    assert "trying again" not in told and not engine.verbs("run")
    (here.cwd / "Dockerfile").write_text("FROM python\n")
    told = here.cli("run", *here.flags, "--name", "trains", *words).stderr.decode()
    assert "env      Dockerfile: built here by docker" in told
    assert (here.folder("trains") / "model.txt").read_text() == "blue"
    receipt = json.loads((here.folder("trains") / "run.json").read_text())["environment"]
    assert receipt["source"] == "Dockerfile" and f"cloudtrain/{receipt['key']}" in engine.images
