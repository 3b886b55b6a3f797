"""Programs of the user's own that behave badly: a clear end, and whatever they have made is here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, signals and small disks of Linux")

LINKS = """\
import os
os.symlink("b", "a"), os.symlink("a", "b"), os.symlink("self", "self")
os.mkdir("deep"), os.symlink("..", "deep/up")
open("deep/model.pt", "w").write("model")
"""
# Its child goes on in a session of its own: it is ended with the run, and what it has written by then counts.
CHILD = """\
import subprocess, sys, time
child = "import time\\nwhile True: open('child.txt', 'a').write('line' + chr(10)); time.sleep(0.01)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
while not __import__("os").path.exists("child.txt"): time.sleep(0.01)
"""
FILLS = """\
import os
open("before.pt", "w").write("before")
print("began", flush=True)
with open("big.pt", "wb", 0) as file:
    while True: file.write(bytes(1 << 20))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a project of one program, there to be run; the folder of its run `own`."""

    def make(script: str) -> Path:
        here = tmp_path / "digits"
        here.mkdir()
        (here / "train.py").write_text(script)
        monkeypatch.chdir(here)
        return here / "runs" / "own"

    return make


def results(folder: Path) -> dict[str, int]:
    """Name and size of each result that the receipt knows and that is here."""
    receipt = json.loads((folder / "run.json").read_text())
    return {one["name"]: (folder / one["name"]).stat().st_size for one in receipt["artifacts"]}


def test_links_in_a_circle(cli: Callable[..., Typed], program: Callable[[str], Path]) -> None:
    folder = program(LINKS)
    told = " ".join(cli("run", "--local", "--name", "own", "train.py").err.split())
    assert results(folder) == {"deep/model.pt": 5}
    assert all(f" {name}, a link to" in told.partition("left there:")[2] for name in ("a", "b", "self", "deep/up"))
    cli("verify", "own")


def test_it_deletes_the_folder_that_it_runs_in(cli: Callable[..., Typed], program: Callable[[str], Path]) -> None:
    folder = program("import os, shutil; print('made', flush=True); shutil.rmtree(os.getcwd())")
    cli("run", "--local", "--name", "own", "train.py")
    assert results(folder) == {} and (folder / "console.log").read_text() == "made\n"


def test_it_ends_while_a_child_still_writes(cli: Callable[..., Typed], program: Callable[[str], Path]) -> None:
    folder = program(CHILD)
    cli("run", "--local", "--name", "own", "train.py")
    assert results(folder)["child.txt"] >= 5
    cli("verify", "own")  # it does not grow any more


def test_its_disk_fills(
    cli: Callable[..., Typed], program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, disk = program(FILLS), tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=140m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no disk can be made here that is full soon: that takes root")
    try:
        monkeypatch.setenv("CLOUDTRAIN_HOME", str(disk))
        told = cli("run", "--local", "--name", "own", "train.py", code=3)
        assert "No space left on device" in (folder / "console.log").read_text(), told.err
        assert results(folder)["before.pt"] == 6 and results(folder)["big.pt"] > 100 << 20
        cli("verify", "own")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_it_writes_very_many_files(cli: Callable[..., Typed], program: Callable[[str], Path]) -> None:
    """Of a hundred thousand a hundredth."""
    folder = program(
        "import os\nfor number in range(1000):\n"
        "    os.makedirs(f'steps/{number % 20}', exist_ok=True)\n"
        "    open(f'steps/{number % 20}/{number}.txt', 'w').write(str(number))"
    )
    cli("run", "--local", "--name", "own", "train.py")
    assert sum(1 for path in (folder / "steps").rglob("*.txt")) == len(results(folder)) == 1000
    assert (folder / "steps/19/999.txt").read_text() == "999"
