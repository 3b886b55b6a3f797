"""Environments, made by uv on a host that runs real programs."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloudtrain.core import disk
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import StepProgress
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment import build, there, uv
from tests.host.environment.conftest import Host, says
from tests.wheels import source, wheel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the host of these tests is POSIX")
Project = Callable[..., JobSpec]


def test_requirements_are_resolved_here_and_installed_there(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctnets", "2.0", ["ctmath>=1"], script="ct-train")
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "-r more.txt  # and what it needs\n", "more.txt": "ctnets<3\n"})
    made = host.prepare(job)
    assert made.source == "requirements.txt" and made.packages == 2 and "2 packages installed" in host.done
    assert says(made.python, "import ctnets, ctmath; print(ctnets.version, ctmath.version)") == "2.0 1.5"
    program = Path(str(made.bin), "ct-train")
    assert subprocess.run([program], capture_output=True, text=True, timeout=60).stdout == "ctnets 2.0\n"
    assert 'name = "ctmath"' in host.lock and made.lock_sha256 == hashlib.sha256(host.lock.encode()).hexdigest()
    assert any(isinstance(event, StepProgress) and "ctnets==2.0" in event.detail for event in host.told)


def test_a_second_run_has_it_at_once(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath\n"})
    first = host.prepare(job)
    (wheels / "ctmath-1.5-py3-none-any.whl").unlink()  # nothing is fetched, nor resolved
    began = time.monotonic()
    assert host.prepare(job, run="calm-heron") == first
    assert time.monotonic() - began < 1 and "as an earlier run had them" in host.done
    # Half of one is none.
    (host.login / "work" / "envs" / str(first.key) / "ready").unlink()
    wheel(wheels, "ctmath", "1.5")
    assert host.prepare(job).python == first.python and "installed" in host.done


def test_a_program_gets_the_same_packages_again(host: Host, wheels: Path, project: Project, tmp_path: Path) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath\n"})
    first, lock = host.prepare(job), host.lock
    wheel(wheels, "ctmath", "2.0")
    shutil.rmtree(disk.cache_dir() / "locks")
    host.workdir = "elsewhere"
    host.put_uv("elsewhere")
    again = host.prepare(job, before=build.Before(first, lock))
    assert says(again.python, "import ctmath; print(ctmath.version)") == "1.5" and host.lock == lock
    for other in (replace(first, version="3.5"), replace(first, torch="2.0"), replace(first, lock_sha256="0")):
        assert host.prepare(job, before=build.Before(other, lock)).lock_sha256 != first.lock_sha256
    assert says(host.prepare(job).python, "import ctmath; print(ctmath.version)") == "2.0"


def test_two_runs_at_once_make_it_once(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath\n"})
    others = [Host(host.transport, host.login, host.python) for _ in range(2)]
    runs = [
        threading.Thread(target=one.prepare, args=(job,), kwargs={"run": f"r{number}"})
        for number, one in enumerate(others)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    lines = [event.detail for one in others for event in one.told if isinstance(event, StepProgress)]
    assert all(one.done for one in others) and sum("+ ctmath==1.5" in line for line in lines) == 1


def test_the_images_torch_is_kept_where_it_suits(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "torch", "2.9.1", ["triton"])
    wheel(wheels, "torch", "2.13.0", ["triton"])
    wheel(wheels, "triton", "3.0")
    wheel(wheels, "ctlightning", "1.0", ["torch>=2.1"])
    made = host.prepare(project({"requirements.txt": "ctlightning\ntorch\n"}))
    assert (made.torch, made.torch_of, made.packages) == ("2.9.1+cu128", "machine", 1)
    assert says(made.python, "import torch, ctlightning; print(torch.version)") == "2.9.1+cu128"
    assert "triton" in says(made.python, "import triton")  # "No module named 'triton'"
    # The image's other packages and programs are there, too, and see what was added.
    assert says(made.python, "import numpylike; print(numpylike.version)") == "1.0"
    torchrun = Path(str(made.bin), "torchrun")
    assert subprocess.run([torchrun], capture_output=True, text=True, timeout=60).stdout == "torch 2.9.1+cu128\n"
    assert torchrun.read_text().startswith(f"#!{made.python}\n")


def test_an_image_that_has_all_is_taken_as_it_is(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "torch", "2.9.1", ["triton"])
    wheel(wheels, "triton", "3.0")
    made = host.prepare(project({"requirements.txt": "torch>=2\n"}))
    assert (made.python, made.torch, made.key, host.told) == (str(host.python), "2.9.1+cu128", None, [])


def test_a_torch_that_the_image_has_not_is_the_locks(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "torch", "2.13.0", ["triton"])
    wheel(wheels, "triton", "3.0")
    made = host.prepare(project({"requirements.txt": "torch==2.13.0\n"}))
    assert (made.torch, made.torch_of, made.packages) == ("2.13.0", "lock", 2)
    assert says(made.python, "import torch, triton; print(torch.version)") == "2.13.0"
    assert "numpylike" in says(made.python, "import numpylike")  # nothing of the image


def test_with_adds_to_what_there_is(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    wheel(wheels, "ctmath", "2.0")
    made = host.prepare(project({}, packages=("ctmath<2",)))
    assert made.source == "--with" and says(made.python, "import ctmath; print(ctmath.version)") == "1.5"
    assert says(made.python, "import torch; print(torch.version)") == "2.9.1+cu128"


def test_a_scripts_own_metadata_stands_for_the_project(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    script = '# /// script\n# dependencies = ["ctmath"]\n# ///\nimport ctmath\n'
    made = host.prepare(project({"train.py": script, "requirements.txt": "not-there\n"}))
    assert made.source == "train.py" and says(made.python, "import ctmath; print(ctmath.version)") == "1.5"


def test_a_module_job_gets_what_the_machine_lacks(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath>=1.2  # why\nnumpylike\n"}, command=())
    made = host.prepare(job)
    assert says(made.python, "import ctmath, torch, numpylike") == "" and made.key is not None
    # One that lacks nothing is taken as it is, and so is a command's where nothing is asked for.
    had = host.prepare(project({"requirements.txt": "numpylike>=1; python_version > '3'\n"}, command=()))
    assert had.python == str(host.python) and had.key is None and host.told == []
    (Path(job.source) / "requirements.txt").unlink()
    assert host.prepare(project({})).bin == str(host.python.parent) and host.told == []


def test_here_the_users_environment_is_used_as_it_is(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    assert host.prepare(project({"requirements.txt": "numpylike\n"}), here=True).key is None
    made = host.prepare(project({"requirements.txt": "numpylike\nctmath\n"}), here=True)
    assert says(made.python, "import ctmath, numpylike, torch") == "" and "ctmath" in says(
        str(host.python), "import ctmath"
    )


@pytest.fixture(scope="session")
def other_python() -> str:
    """A Python of a later version than the image's."""
    newer = [f"python3.{minor}" for minor in range(sys.version_info[1] + 1, 20)]
    places = [*os.environ["PATH"].split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    for path in (Path(place, name) for name in newer for place in places):
        if path.is_file() and not subprocess.run([path, "-c", ""], capture_output=True).returncode:
            return str(path)
    pytest.skip("there is one version of Python here")


def test_a_python_that_the_image_has_not_is_looked_for(
    host: Host, wheels: Path, project: Project, other_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = says(other_python, "import sys; print('%d.%d' % sys.version_info[:2])")
    monkeypatch.setenv("PATH", f"{Path(other_python).parent}{os.pathsep}{os.environ['PATH']}")
    wheel(wheels, "ctmath", "1.5")
    made = host.prepare(project({"requirements.txt": "ctmath\n", ".python-version": f"{version}\n"}))
    assert made.version == version == says(made.python, "import sys; print('%d.%d' % sys.version_info[:2])")
    assert made.torch is None and "torch" in says(made.python, "import torch")


def test_a_lock_of_uv_is_installed_as_it_is(
    host: Host, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the real index; the lock names an older version than the newest."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    text = f'[project]\nname = "digits"\nversion = "1"\nrequires-python = ">={python}"\ndependencies = ["six<=1.16"]\n'
    job = project({"pyproject.toml": text + '[dependency-groups]\ndev = ["colorama"]\n'})
    locked = subprocess.run([uv.here(), "lock", "--quiet"], cwd=job.source, capture_output=True, text=True, timeout=60)
    if "error sending request" in locked.stderr:
        pytest.skip("no package index answers here")
    assert locked.returncode == 0, locked.stderr
    Path(job.source, "pyproject.toml").write_text(text.replace("<=1.16", ""))
    made = host.prepare(job)
    assert made.source == "uv.lock" and made.packages == 1
    assert says(made.python, "import six; print(six.__version__)") == "1.16.0"
    assert says(made.python, "import torch; print(torch.version)") == "2.9.1+cu128"


def test_a_package_that_comes_as_source_is_run_on_the_machine_alone(
    host: Host, wheels: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "ctmath", "1.5")
    source(wheels, "ctsource", "1.0", "ctmath")
    calls: list[list[str]] = []
    run = uv.run
    monkeypatch.setattr(uv, "run", lambda argv, folder: calls.append(argv) or run(argv, folder=folder))
    job = project({"requirements.txt": "-r sub/more.txt\n", "sub/more.txt": "ctsource\n"}, packages=("ctmath<3",))
    made = host.prepare(job)
    assert says(made.python, "import ctmath, ctsource; print(ctsource.version)") == "1.0"
    assert calls and all("--no-build" in call for call in calls)
    # Its user's own computer is where it would run anyway.
    assert says(host.prepare(job, here=True).python, "import ctsource, ctmath") == ""


# --- uv itself


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web server with a folder: the index that this login is set to. Where uv is published nobody answers."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    serve = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(uv, "FILES", "http://127.0.0.1:9/")
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel of uv in that index, as small as can be: it starts this computer's."""
    name = f"uv-{uv.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"uv-{uv.VERSION}.data/scripts/uv", f'#!/bin/sh\nexec {uv.here()} "$@"\n')
    (folder / "uv").mkdir()
    (folder / "uv" / "index.html").write_text(f'<a href="../{name}#sha256=0">{name}</a>')
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(uv, "WHEELS", dict.fromkeys(uv.WHEELS, (f"nowhere/{name}", digest)))


@pytest.fixture
def bare(host: Host) -> Host:
    """The machine has no uv yet."""
    (host.login / "work" / "tools" / f"uv-{uv.VERSION}" / "uv").unlink()
    return host


def test_uv_is_fetched_from_the_index_that_the_login_names(
    bare: Host, wheels: Path, project: Project, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(mirror, monkeypatch)
    wheel(wheels, "ctmath", "1.5")
    made = bare.prepare(project({"requirements.txt": "ctmath\n"}))
    assert says(made.python, "import ctmath; print(ctmath.version)") == "1.5" and bare.noted == []
    assert b"exec" in (bare.login / "work" / "tools" / f"uv-{uv.VERSION}" / "uv").read_bytes()


def test_a_machine_that_cannot_fetch_uv_gets_this_computers(
    bare: Host, wheels: Path, project: Project, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has another file by that name, and where uv is published nobody answers."""
    published(mirror, monkeypatch)
    with next(mirror.glob("*.whl")).open("ab") as file:
        file.write(b"more")
    wheel(wheels, "ctmath", "1.5")
    made = bare.prepare(project({"requirements.txt": "ctmath\n"}))
    assert says(made.python, "import ctmath; print(ctmath.version)") == "1.5"
    assert bare.noted == ["the machine cannot fetch uv; this computer's was sent"]
    assert (bare.login / "work" / "tools" / f"uv-{uv.VERSION}" / "uv").read_bytes() == Path(uv.here()).read_bytes()


def test_a_machine_of_another_system_that_cannot_fetch_it_is_said(
    bare: Host, wheels: Path, project: Project, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "ctmath", "1.5")
    monkeypatch.setattr(uv, "is_for", lambda platform: False)
    with pytest.raises(ConnectionFailed) as caught:
        bare.prepare(project({"requirements.txt": "ctmath\n"}))
    assert caught.value.code == "index_unreachable" and "UV_DEFAULT_INDEX: HTTP Error 404" in str(caught.value.detail)
    assert "127.0.0.1:9: " in str(caught.value.detail)


def test_the_pinned_wheel_is_the_one_that_is_published(bare: Host, wheels: Path, project: Project) -> None:
    if not any(map(uv.is_for, uv.WHEELS)):
        pytest.skip("it is for another system")
    wheel(wheels, "ctmath", "1.5")
    made = bare.prepare(project({"requirements.txt": "ctmath\n"}))
    if bare.noted:
        pytest.skip("where uv is published does not answer here")
    assert says(made.python, "import ctmath; print(ctmath.version)") == "1.5"


# --- how it fails


def refused(host: Host, job: JobSpec) -> ConnectionFailed | UsageError:
    with pytest.raises((ConnectionFailed, UsageError)) as caught:
        host.prepare(job)
    envs = host.login / "work" / "envs"
    assert not envs.exists() or not [path for path in envs.iterdir() if path.is_dir()]  # nothing half made stays
    return caught.value


def test_a_file_that_is_not_the_one_that_was_resolved(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    job = project({"requirements.txt": "ctmath\n"})
    host.prepare(job)
    wheel(wheels, "ctmath", "1.5", size=9)
    shutil.rmtree(host.login / "work" / "envs")
    os.environ["UV_CACHE_DIR"] += "-2"
    error = refused(host, job)
    assert (error.code, error.consequence) == ("hash_differs", "nothing has trained")
    assert "Hash mismatch for `ctmath" in str(error.detail)


def test_a_package_without_a_wheel_for_this_python(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5", tag="cp37-cp37m-any")
    error = refused(host, project({"requirements.txt": "ctmath\n"}))
    assert (error.code, error.exit_code) == ("no_wheel", 2) and "cp37" in str(error.detail)


def test_packages_that_do_not_go_together_are_named_in_uvs_words(host: Host, wheels: Path, project: Project) -> None:
    wheel(wheels, "ctmath", "1.5")
    wheel(wheels, "ctnets", "1.0", ["ctmath>=2"])
    error = refused(host, project({"requirements.txt": "ctnets\n"}))
    assert (error.code, error.exit_code, error.consequence) == ("requirements", 2, "nothing has trained")
    assert "ctnets" in str(error.detail) and "ctmath>=2" in str(error.detail)


def test_an_index_that_does_not_answer(
    host: Host, wheels: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    error = refused(host, project({"requirements.txt": "ctmath\n"}))
    assert (error.code, error.exit_code) == ("index_unreachable", 2) and "127.0.0.1:9" in str(error.detail)


def test_an_index_that_answers_here_and_not_there(
    host: Host, wheels: Path, project: Project, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was resolved lies there no more when the machine fetches it."""
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    made = wheel(mirror, "ctmath", "1.5")
    (mirror / "ctmath").mkdir()
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    (mirror / "ctmath" / "index.html").write_text(f'<a href="../{made.name}#sha256={digest}">{made.name}</a>')
    job = project({"requirements.txt": "ctmath\n"})
    host.prepare(job)
    made.unlink()
    shutil.rmtree(host.login / "work" / "envs")
    os.environ["UV_CACHE_DIR"] += "-2"
    error = refused(host, job)
    assert (error.code, error.exit_code) == ("index_unreachable", 6) and "ctmath" in str(error.detail)


def test_an_installation_that_hangs_is_given_up(
    bare: Host, wheels: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "ctmath", "1.5")
    tool = bare.login / "work" / "tools" / f"uv-{uv.VERSION}" / "uv"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o700)
    monkeypatch.setattr(there, "LIMIT_S", 1.0)
    with pytest.raises(ConnectionFailed) as caught:
        bare.prepare(project({"requirements.txt": "ctmath\n"}))
    assert caught.value.code == "environment" and "not done within 1.0 s" in str(caught.value.detail)


def test_a_disk_that_fills(host: Host, wheels: Path, project: Project) -> None:
    envs = host.login / "work" / "envs"
    envs.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", envs], capture_output=True).returncode:
        pytest.skip("no disk can be made here that is full soon: that takes root")
    try:
        wheel(wheels, "ctmath", "1.5", size=4 << 20)
        error = refused(host, project({"requirements.txt": "ctmath\n"}))
        assert (error.code, error.exit_code) == ("disk_full", 6) and "No space left" in str(error.detail)
    finally:
        subprocess.run(["umount", envs], check=True)
