"""Programs as others have written them, unchanged: what each leaves when it is run here comes back from everywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from cloudtrain.transport.ssh_keys import fingerprint
from tests import commands
from tests.host.transport.sshd import Sshd, missing
from tests.programs.table import PROGRAMS, Program
from tests.region.whole_path.place import Place, left
from tests.wheels import papermill

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and shells of Linux and macOS")

# What a run's folder has beside its results.
OWN = (
    *("run.json", "config.toml", "console.log", "console.times", "events.jsonl", "report.html", "code.tar.gz"),
    *("SHA256SUMS", "env/lock.txt"),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All that can be installed here."""
    folder = tmp_path_factory.mktemp("index")
    papermill(folder / "wheels")
    (folder / "empty").mkdir()
    cache = {"UV_CACHE_DIR": str(folder / "cache")}
    return {"UV_DEFAULT_INDEX": (folder / "empty").as_uri(), "UV_FIND_LINKS": str(folder / "wheels"), **cache}


@pytest.fixture(scope="module", params=["local", pytest.param("sshd", marks=pytest.mark.sshd), "emulated"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, index: dict[str, str]
) -> Iterator[Place]:
    """This computer, a host, an account: each as it is after other runs."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "local":
        yield Place("local", ["--local"], folder / "home", folder, index)
    elif request.param == "sshd":
        if reason := missing():
            pytest.skip(reason)
        settings = ('ForceCommand cd $HOME && eval "$SSH_ORIGINAL_COMMAND"',)
        with Sshd(folder / "sshd", settings=settings) as server:
            flags = ["--host", f"{server.user}@127.0.0.1:{server.port}", "--identity", str(server.identity)]
            flags += ["--host-key", fingerprint(server.host_key)]
            yield Place("sshd", flags, folder / "home", folder, index)
    else:
        with Region(folder / "region", timing=Timing(pending_s=0.1, boot_s=0.1)) as region:

            def nothing_left() -> None:
                assert not left(region)

            flags = ["--instance", "g4dn.xlarge"]
            yield Place("emulated", flags, folder / "home", folder, region.environment() | index, nothing_left)


@pytest.fixture
def plain(
    made_once: Callable[[str, Callable[[Path], None]], Path], index: dict[str, str]
) -> Callable[[Program], dict[str, str]]:
    """What a program leaves that is run without cloudtrain."""

    def leaves(program: Program) -> dict[str, str]:
        def fill(folder: Path) -> None:
            made = program.export(folder)
            sent = set(program.files(made))
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            (notebooks,) = Path(index["UV_FIND_LINKS"]).glob("papermill-*.whl")
            environment = {**os.environ, **index, "PATH": path, "PYTHONPATH": str(notebooks)}
            words = (program.here or program.command).split()
            subprocess.run(words, cwd=made, env=environment, check=True, timeout=60)
            (folder / "left.json").write_text(json.dumps(program.files(made, sent)))

        found: dict[str, str] = json.loads((made_once(f"plain-{program.folder}", fill) / "left.json").read_text())
        return found

    return leaves


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.folder)
def test_what_it_leaves_here_comes_back_from_everywhere(
    program: Program, place: Place, plain: Callable[[Program], dict[str, str]], tmp_path: Path
) -> None:
    if program.needs and importlib.util.find_spec(program.needs) is None:
        pytest.skip(f"{program.folder} needs {program.needs}")
    expected = plain(program)
    assert sorted(expected) == sorted(program.leaves)
    made = program.export(tmp_path)
    typed = ["run", *place.flags, "--name", program.folder.replace("_", "-"), "--yes", "--", *program.command.split()]
    done = commands.run(*typed, cwd=made, env=place.env(), timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    (folder,) = (made / "runs").iterdir()
    assert program.files(folder, OWN) == expected
    place.after()
