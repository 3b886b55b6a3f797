"""The interpreter that trains, over a transport that runs real programs on this computer."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Event, StepProgress
from cloudtrain.core.host import HostFacts
from cloudtrain.provider.ec2.launch import environment
from cloudtrain.transport.local import LocalTransport
from tests.unit.provider.ec2.launch.test_environment import needs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="EC2 hosts run Linux")


def wheel(folder: Path, name: str, version: str) -> None:
    """A real wheel with nothing in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.py": f"version = {version!r}\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTransport]:
    """A login directory, an index of two wheels, and no network."""
    login, wheels = tmp_path / "login", tmp_path / "wheels"
    login.mkdir()
    wheel(wheels, "torch", "9.9")
    wheel(wheels, "ctneeded", "1.5")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with LocalTransport(login) as transport:
        yield transport


@pytest.fixture
def image(tmp_path: Path, host: LocalTransport) -> Path:
    """An image's own environment with torch and pip, as /opt/pytorch has."""
    folder = tmp_path / "image"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    own = next((folder / "lib").glob("python*")) / "site-packages"
    # torch and pip of the interpreter that runs the tests, seen but never written to.
    (own / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def facts(python: Path | str, torch: str | None) -> HostFacts:
    return HostFacts(
        python=str(python),
        python_version="3.12.3",
        torch=torch,
        cuda=None,
        driver="580.1",
        gpus=(),
        cpus=2,
        disk_free=10**11,
        os="Ubuntu 24.04",
        home="/home/ubuntu",
        boot_id=None,
    )


def has(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, timeout=60).returncode == 0


def prepared(host: LocalTransport, found: HostFacts, wanted: Path | None) -> tuple[str, list[Event]]:
    told: list[Event] = []
    return environment.prepare(host, found, wanted, told.append), told


def test_an_image_that_has_all_is_taken_as_it_is(host: LocalTransport, image: Path, tmp_path: Path) -> None:
    python, told = prepared(host, facts(image, "2.12"), needs(tmp_path, "# comment", "", "pip>=1"))
    assert python == str(image) and told == []


def test_what_is_missing_is_added_to_the_images_environment(host: LocalTransport, image: Path, tmp_path: Path) -> None:
    wanted = needs(tmp_path, "ctneeded>=1.2  # why", "pip")
    python, told = prepared(host, facts(image, "2.12"), wanted)
    assert python == str(image) and has(python, "ctneeded")
    assert any(isinstance(event, StepProgress) for event in told) and "added ctneeded>=1.2" in str(told[-1])
    assert prepared(host, facts(image, "2.12"), wanted) == (python, [])
    assert not has(sys.executable, "ctneeded")


def test_an_image_that_may_not_be_written_gets_an_environment_beside_it(
    host: LocalTransport, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so the answer of the real question is changed instead.
    monkeypatch.setattr(
        environment, "EXAMINE", environment.EXAMINE.replace("os.access(site, os.W_OK)", "'login' in site")
    )
    wanted = needs(tmp_path, "ctneeded")
    python, _ = prepared(host, facts(image, "2.12"), wanted)
    assert python == str(tmp_path / "login" / environment.OWN_PYTHON)
    assert has(python, "ctneeded") and has(python, "pip") and not has(str(image), "ctneeded")
    assert prepared(host, facts(image, "2.12"), wanted) == (python, [])


@pytest.mark.parametrize(
    ("why", "says"), [(None, "none of these has it: python3, ~/venv"), ("given", "/bin/py has none")]
)
def test_an_image_without_torch_is_said_and_nothing_is_installed(
    host: LocalTransport, tmp_path: Path, why: str | None, says: str
) -> None:
    found = replace(facts("/bin/py", None), looked=("python3", "~/venv"), why=why)
    with pytest.raises(ConnectionFailed, match="could not find torch on the instance") as caught:
        prepared(host, found, needs(tmp_path, "ctneeded"))
    assert caught.value.code == "environment" and "--ami" in (caught.value.hint or "")
    assert "--python" in (caught.value.hint or "")
    assert caught.value.detail == says and caught.value.consequence == "nothing has trained"
    assert list((tmp_path / "login").iterdir()) == []


def test_torch_without_a_pip_gets_an_environment_beside_it(host: LocalTransport, tmp_path: Path) -> None:
    python = tmp_path / "image" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "image"], check=True, timeout=60)
    own = next((tmp_path / "image" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(tmp_path / "wheels" / "torch-9.9-py3-none-any.whl").extractall(own)
    found, _ = prepared(host, facts(python, "9.9"), needs(tmp_path, "ctneeded"))
    assert found == str(tmp_path / "login" / environment.OWN_PYTHON)
    assert has(found, "torch") and has(found, "ctneeded") and not has(str(python), "ctneeded")


def test_what_cannot_be_installed_is_said_with_pips_words(host: LocalTransport, image: Path, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        prepared(host, facts(image, "2.12"), needs(tmp_path, "ct-does-not-exist==3"))
    assert caught.value.code == "environment" and "ct-does-not-exist" in str(caught.value.detail)
    assert caught.value.consequence == "nothing has trained"


def test_an_installation_that_hangs_is_given_up(host: LocalTransport, tmp_path: Path) -> None:
    told: list[Event] = []
    with pytest.raises(ConnectionFailed) as caught:
        environment._check(host, ["sleep", "30"], 1.0, told.append, "wait")
    assert "not done within 1 s" in str(caught.value.detail)
