"""A host in a folder, an image on it, and an index of wheels that are made for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cloudtrain.core.environment import Environment
from cloudtrain.core.events import Event, Noted, StepDone
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment import build, uv
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Transport
from cloudtrain.transport.local import LocalTransport
from tests.wheels import wheel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the host of these tests is POSIX")


@dataclass
class Host:
    """A machine that lies in a folder.

    Attributes:
        python: the interpreter that its probe would choose.
        told: what was reported.
        lock: of what was made last.
    """

    transport: Transport
    login: Path
    python: Path
    told: list[Event] = field(default_factory=list)
    lock: str = ""
    workdir: str = "work"

    def prepare(
        self, job: JobSpec, *, run: str = "brave-otter", here: bool = False, before: build.Before | None = None
    ) -> Environment:
        self.told.clear()
        supervisor = Supervisor(self.transport, sys.executable, f"{self.workdir}/runs/{run}", self.workdir)
        made, self.lock = build.prepare(
            self.transport, supervisor, str(self.python), job, here=here, emit=self.told.append, before=before
        )
        return made

    @property
    def done(self) -> str:
        """How the step of the packages ended; "": there was none."""
        return next((event.detail for event in self.told if isinstance(event, StepDone)), "")

    @property
    def noted(self) -> list[str]:
        return [event.message for event in self.told if isinstance(event, Noted)]

    def put_uv(self, folder: str = "work") -> None:
        """The machine has fetched uv before."""
        place = self.login / folder / "tools" / f"uv-{uv.VERSION}" / "uv"
        place.parent.mkdir(parents=True)
        place.symlink_to(uv.here())


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all the index there is, for uv here and on the host."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    (tmp_path / "no-index").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "no-index").as_uri())
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    for name in ("UV_INDEX_URL", "PIP_INDEX_URL", "VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an image's own environment, which has torch 2.9.1 and its program."""
    folder = tmp_path_factory.mktemp("of") / "image"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for name, version, script in (("torch", "2.9.1+cu128", "torchrun"), ("numpylike", "1.0", None)):
        with zipfile.ZipFile(wheel(folder.parent / "wheels", name, version, script=script)) as archive:
            archive.extractall(site)
    return folder / "bin" / "python"


@pytest.fixture
def host(tmp_path: Path, image: Path) -> Iterator[Host]:
    """A machine with that image; it has uv."""
    login = tmp_path / "login"
    login.mkdir()
    with LocalTransport(login) as transport:
        machine = Host(transport, login, image)
        machine.put_uv()
        yield machine


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., JobSpec]:
    """Makes a project of files, and the job that runs its train.py."""

    def make(files: dict[str, str], **settings: object) -> JobSpec:
        folder = tmp_path / "project"
        for name, text in {"train.py": "", **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return replace(JobSpec(source=str(folder), command=("python", "train.py")), **settings)  # type: ignore[arg-type]

    return make


def says(python: str, code: str) -> str:
    """What a program of `python` prints; the last line of its complaint where it fails."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
