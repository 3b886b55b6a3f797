"""What the probe finds: an interpreter with torch, what a GPU says of itself, what becomes of programs at logout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.onhost import probe
from cloudtrain.onhost.base import Failure
from cloudtrain.onhost.main import parse

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts stand for the programs")

# Of the field case: the words of a driver that was updated without a new start of the machine.
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
LIBCUDA = r"""
#include <stdlib.h>
static int set(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
int cuInit(unsigned flags) { return set("FAKE_ERROR"); }
int cuDeviceGetCount(int *count) { *count = set("FAKE_COUNT"); return 0; }
int cuDriverGetVersion(int *version) { *version = set("FAKE_VERSION"); return 0; }
int cuGetErrorString(int error, const char **text) {
    *text = error == 803 ? "unsupported combination" : "no device";
    return 0;
}
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a shell script first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        program(tmp_path / "bin" / name, f"#!/bin/sh\n{script}\n")

    return put


@pytest.fixture
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    """A libcuda.so.1 that answers an error of cuInit, a number of GPUs and a version."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    (tmp_path / "cuda.c").write_text(LIBCUDA)
    library = tmp_path / "lib" / "libcuda.so.1"
    library.parent.mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "cuda.c"], check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))

    def answers(error: int, count: int, version: int) -> None:
        for name, value in (("ERROR", error), ("COUNT", count), ("VERSION", version)):
            monkeypatch.setenv(f"FAKE_{name}", str(value))

    return answers


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(folder: Path, cuda: str | None = "'12.6'", torch: str = "2.13.0") -> Path:
    """A folder as venv or conda makes it, whose interpreter has a torch that nobody may import."""
    package = folder / "lib" / "python3.12" / "site-packages" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('torch was imported')")
    (package / "version.py").write_text(f"__version__ = '{torch}'\ncuda: Optional[str] = {cuda}\n")
    # Not of a path with a quote in it: sh would take that apart.
    link = folder / "bin" / "python"
    text = (
        f'#!/bin/sh\nPYTHONPATH="$(dirname "$0")/../lib/python3.12/site-packages" exec "{sys._base_executable}" "$@"\n'
    )
    return program(link, text)


def probed(*options: str) -> dict[str, Any]:
    return probe.do_probe(parse(["probe", *options]))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without anything, and no interpreter with torch in PATH or in this process."""
    bare = program(tmp_path / "bare" / "python3", f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')
    monkeypatch.setenv("PATH", f"{bare.parent}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(bare))
    monkeypatch.setattr(probe, "PLACES", tuple(place for place in probe.PLACES if place.startswith("~")))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_first_interpreter_with_torch_is_named_and_torch_is_never_imported(host: Any, home: Path) -> None:
    python = environment(home / "miniconda3" / "envs" / "ml", torch="2.13.0+cu126")
    argv = [sys._base_executable, "-I", "-S", str(host.program), "probe", "--python", "/no/such"]
    done = subprocess.run([*argv, "--workdir", str(host.workdir)], stdout=subprocess.PIPE, check=True, timeout=60)
    facts = json.loads(done.stdout)
    assert facts["ok"] is True
    assert (facts["torch"], facts["cuda"], facts["without_cuda"]) == ("2.13.0+cu126", "12.6", False)
    assert facts["python"]["version"] == ".".join(map(str, sys.version_info[:3])) and facts["why"] == "torch"
    assert facts["looked"][:2] == ["/no/such", "python3"] and "~/miniconda3" in facts["looked"]
    assert facts["cpus"] >= 1 and facts["disk_free"] > 0 and facts["home"] == str(home) and facts["gpus"] == []
    assert python.exists()


@pytest.mark.parametrize(
    "place", ["venv", ".venv", "env", "anaconda3", "miniforge3/envs/a b", "miniconda3/envs/x[1]%'"]
)
def test_usual_places_are_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    python = environment(home / place)
    monkeypatch.setattr(probe, "ask_python", lambda path, limit: {"torch": path == str(python), "cuda": None})
    assert probe.choose_python(["python3"], None) == ({"torch": True, "cuda": None}, "torch")


def test_a_torch_that_can_use_the_gpu_comes_before_one_that_cannot(home: Path) -> None:
    for name, built in (("venv", None), (".venv", "'13.0'"), ("env", "'12.8'")):
        environment(home / name, built, torch=name)
    first = ["python3"]
    assert [probe.choose_python(first, serves)[0]["torch"] for serves in (None, "12.4", "13.1")] == [
        "venv",
        "env",
        ".venv",
    ]
    chosen, why = probe.choose_python(first, "11.0")
    assert (chosen["torch"], chosen["without_cuda"], why) == ("venv", True, "torch")
    assert probe.choose_python(first, "12.4")[1] == "cuda"


def test_without_any_torch_the_first_that_runs_is_taken(home: Path) -> None:
    facts = probed("--python", "/no/such", "--python", "python3")
    assert facts["torch"] is None and facts["why"] is None


def test_one_interpreter_that_hangs_keeps_nobody_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = program(home / "hung", "#!/bin/sh\nexec sleep 30\n")
    environment(home / "venv")
    monkeypatch.setattr(probe, "PYTHON_S", 1.5)  # a healthy one answers within that on a busy computer, too
    began = time.monotonic()
    assert probe.choose_python([str(hung)], None)[0]["torch"] == "2.13.0"
    with pytest.raises(Failure, match="no answer within"):
        probe.ask_python(str(hung), 0.2)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["my venv", 'it\'s "100%" $HOME `x`', "-x"])
def test_the_interpreter_that_is_given_is_the_one(home: Path, name: str) -> None:
    environment(home / "venv")
    environment(home / name, torch="1.2")
    facts = probed("--only", f"~/{name}/bin/python")
    assert (facts["torch"], facts["why"]) == ("1.2", "given") and facts["looked"] == [f"~/{name}/bin/python"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("~/nowhere/bin/python", "cannot be run there: No such file"),
        ("~", "cannot be run there: Permission denied"),
        ("/bin/echo", "is no Python; it says: -c"),
        ("/bin/false", "is no Python; it says: nothing"),
    ],
)
def test_a_given_path_that_is_no_python_is_said(home: Path, path: str, says: str) -> None:
    home.mkdir()
    with pytest.raises(Failure) as caught:
        probed("--only", path)
    assert caught.value.code == "bad_python" and says in caught.value.message and len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("said", "code", "gpus", "words"),
    [
        ("580.1, 15360, Tesla T4\n580.1, [N/A], GB10", 0, [("Tesla T4", 15360), ("GB10", None)], ""),
        ("580.1, 15360, Tesla T4\nWARNING: infoROM is corrupted", 14, [("Tesla T4", 15360)], ""),
        (MISMATCH, 18, [], MISMATCH),
        (MISMATCH, 0, [], MISMATCH),
        ("Sorry, the GPU is lost, ask, please, an operator", 0, [], "Sorry, the GPU is lost, ask, please, an operator"),
        ("580.1, " + "9" * 5000 + ", GB10", 0, [("GB10", None)], ""),
        ("No devices were found", 6, [], "No devices were found"),
        ("", 9, [], "nothing"),
    ],
)
def test_words_of_nvidia_smi_are_no_gpu(
    stub: Callable[[str, str], None], said: str, code: int, gpus: list[tuple[str, int | None]], words: str
) -> None:
    stub("nvidia-smi", f"cat <<'.'\n{said}\n.\nexit {code}")
    facts = probe.ask_gpu()
    assert [(gpu["name"], gpu["memory_mib"]) for gpu in facts["gpus"]] == gpus
    assert facts["nvidia_smi"] == words and facts["driver"] == ("580.1" if gpus else None)
    # There is no driver here, and the loader says so.
    assert "libcuda.so.1" in facts["cuda_fault"]


def test_a_hung_nvidia_smi_is_not_waited_for(stub: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    stub("nvidia-smi", "exec sleep 30")
    monkeypatch.setattr(probe, "SMI_S", 0.3)
    facts = probe.ask_gpu()
    assert (facts["driver"], facts["gpus"]) == (None, []) and facts["nvidia_smi"].startswith("no answer within")


def test_cuda_itself_is_asked(stub: Callable[[str, str], None], cuda: Callable[[int, int, int], None]) -> None:
    stub("nvidia-smi", "echo '580.1, 15360, Tesla T4'")
    told = []
    for answer in ((0, 1, 12040), (803, 0, 13010), (0, 0, 12020)):
        cuda(*answer)
        facts = probe.ask_gpu()
        told.append((facts["cuda_fault"], facts["serves"]))
    assert told == [(None, "12.4"), ("unsupported combination", "13.1"), ("no device", "12.2")]


LOGIND = """\
case "$1 $2" in
"show-session "*)
    printf 'KillUserProcesses=%s\\nKillOnlyUsers=%s\\nKillExcludeUsers=%s\\n' {kills} "{only}" "{exempt}" ;;
"show-user {user}") echo Linger={linger} ;;
esac
"""


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux")
@pytest.mark.parametrize(
    ("answers", "scope", "becomes"),
    [
        ({"kills": "no"}, 'shift 4; exec "$@"', None),
        ({"kills": "yes", "exempt": "root {user}"}, "exit 1", None),
        ({"kills": "yes", "only": "ada"}, "exit 1", None),
        ({"kills": "yes", "only": "ada {user}"}, "exit 1", "ends"),
        ({"kills": "yes"}, 'shift 4; exec "$@"', "ends"),
        ({"kills": "yes", "linger": "yes"}, "echo 'Failed to connect to bus' >&2; exit 1", "ends"),
        ({"kills": "yes", "linger": "yes"}, 'shift 4; exec "$@"', "scope"),
    ],
)
def test_what_becomes_of_programs_at_logout(
    stub: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, str],
    scope: str,
    becomes: str | None,
) -> None:
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    values = {"only": "", "exempt": "", "linger": "no", "user": user, **answers}
    stub("loginctl", LOGIND.format(**{name: value.replace("{user}", user) for name, value in values.items()}))
    stub("systemd-run", scope)
    monkeypatch.setenv("XDG_SESSION_ID", "3")
    assert probe.at_logout() == becomes
    monkeypatch.delenv("XDG_SESSION_ID")
    assert probe.at_logout() is None


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux")
def test_a_run_is_started_in_a_scope_where_that_keeps_it(host: Any, stub: Callable[[str, str], None]) -> None:
    stub("systemd-run", f'echo "$@" > "{host.workdir}/scoped"; shift 4; exec "$@"')
    host.start("print('trained')", scope=True)
    assert host.finished()["code"] == 0 and host.log() == b"trained\n"
    assert (host.workdir / "scoped").read_text().startswith("--user --scope --quiet -- ")
