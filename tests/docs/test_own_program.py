"""The five examples of docs/your-own-program.md, each with a small program of its kind."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker import docker
from tests.docs import shown
from tests.region.whole_path.place import Place
from tests.wheels import papermill, wheel

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shells, links, a stub of docker")

PAGE = shown.PAGES["docs/your-own-program.md"]
LIGHTNING = """\
import os, sys
folder = "lightning_logs/version_%d" % len(os.listdir("lightning_logs") if os.path.exists("lightning_logs") else [])
os.makedirs(folder + "/checkpoints")
begin = "--ckpt_path" in sys.argv
print("from", sys.argv[sys.argv.index("--ckpt_path") + 1] if begin else "scratch")
for epoch in range(int(begin), 2):
    name = "epoch=%d-step=%d.ckpt" % (epoch, 10 * epoch + 10)
    open(folder + "/checkpoints/" + name, "w").write(name)
    if os.path.lexists(folder + "/checkpoints/last.ckpt"):
        os.remove(folder + "/checkpoints/last.ckpt")
    os.symlink(name, folder + "/checkpoints/last.ckpt")
    if epoch == 0:
        sys.exit("out of memory")
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    """This computer, in the folder of a project; the index has what a test puts into `wheels`."""
    for name in ("digits", "wheels", "no-index"):
        (tmp_path / name).mkdir()
    index = {"UV_DEFAULT_INDEX": (tmp_path / "no-index").as_uri(), "UV_FIND_LINKS": str(tmp_path / "wheels")}
    place = Place("local", [], tmp_path / "home", tmp_path / "digits", index)
    try:
        yield place
    finally:
        place.cleanup()


@pytest.fixture
def typed(here: Place) -> Callable[..., str]:
    """Types the one command of the page that ends in some words, and gives what it printed."""

    def type_it(end: str, code: int = 0) -> str:
        (command,) = [one for one in shown.fenced("docs/your-own-program.md") if "--local" in one and one.endswith(end)]
        _, run, *words = shown.words(command)
        return here.cli(run, "--name", "own", "--yes", *words, code=code).stderr.decode()

    return type_it


def settings(about: str) -> str:
    """The settings that an example shows."""
    return re.findall(r"```toml\n(.*?)```", PAGE.partition(f"### {about}")[2], flags=re.DOTALL)[0]


def test_a_script_with_requirements(here: Place, typed: Callable[..., str], tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "ctmath", "1.5")
    (here.cwd / "requirements.txt").write_text("ctmath<2\n")
    (here.cwd / "train.py").write_text("import ctmath, sys\nopen('model.pt', 'w').write(ctmath.version)\n")
    told = typed("train.py --epochs 2")
    assert "what it lacks of requirements.txt is put beside it" in told
    assert (here.folder("own") / "model.pt").read_text() == "1.5"


def test_a_notebook(here: Place, typed: Callable[..., str], tmp_path: Path) -> None:
    papermill(tmp_path / "wheels")
    (here.cwd / "digits.ipynb").write_text(
        (shown.ROOT / "tests/programs/notebook/digits.ipynb").read_text(encoding="utf-8")
    )
    typed("digits.ipynb")
    told = json.loads((here.folder("own") / "digits.out.ipynb").read_text())["cells"][1]["outputs"][0]["text"]
    assert "epoch 1\n" in told and (here.folder("own") / "weights.txt").read_text() == "w"
    assert "epoch 1\n" in (here.folder("own") / "console.log").read_text()


def test_lightning_goes_on(here: Place, typed: Callable[..., str]) -> None:
    (here.cwd / "cloudtrain.toml").write_text(settings("Lightning"))
    (here.cwd / "train.py").write_text(LIGHTNING)
    typed("--trainer.max_epochs 2", code=3)
    here.cli("run", "--resume", "own", "--name", "rest", "--yes")
    (log,) = here.folder("rest").glob("console.log")
    assert log.read_text() == "from lightning_logs/version_0/checkpoints/epoch=0-step=10.ckpt\n"
    last = here.folder("rest") / "lightning_logs/version_1/checkpoints/last.ckpt"
    assert last.is_symlink() and last.read_text() == "epoch=1-step=20.ckpt"


def test_a_project_with_a_dockerfile(here: Place, typed: Callable[..., str]) -> None:
    """There is no docker here: a stub stands in its place."""
    (here.cwd / "Dockerfile").write_text("FROM pytorch/pytorch\nRUN pip install tqdm\n")
    (here.cwd / "train.py").write_text("print('loss 1')\n")
    (here.cwd / "train.sh").write_text("python train.py > losses.txt\n")
    with docker() as engine:
        here.environment["PATH"] = f"{engine.folder}:{os.environ['PATH']}"
        engine.refuses = "Cannot connect to the Docker daemon"
        (error,) = re.findall(r"^error: .*$", PAGE, flags=re.MULTILINE)
        told = typed("train.sh", code=2)
        assert error in told and engine.refuses in told and "requirements.txt" in told
        engine.refuses, image = "", re.findall(r'image (\S+)"', settings("A Dockerfile"))[0]
        engine.registry = (image,)
        (here.cwd / "cloudtrain.toml").write_text(settings("A Dockerfile"))
        typed("train.sh")
        assert (here.folder("own") / "losses.txt").read_text() == "loss 1\n"
        assert [argv[-3] for argv in engine.verbs("run")] == [image] == [*engine.images]
