"""A program of the user's own, from its command line to its files here: run, stopped, gone on with, repeated."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.core.states import RunState
from cloudtrain.store import Store
from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")

# Knows nothing of cloudtrain: counts its epochs in a file, and goes on from that file where it is.
COUNTS = """\
import argparse, json, os, sys, time
from helper import path
options = argparse.ArgumentParser()
options.add_argument("--until", type=int, default=3)
options.add_argument("--resume")
options = options.parse_args()
done = json.load(open(path))["epoch"] if os.path.exists(path) else 0
print("began after", done, "resumed from", options.resume, "told", os.environ.get("CLOUDTRAIN_RESUME"), flush=True)
os.makedirs("ckpt", exist_ok=True)
while done < options.until:
    done += 1
    open(f"ckpt/epoch-{done}.pt", "w").write("w" * done)
    json.dump({"epoch": done}, open(path + ".new", "w"))
    os.replace(path + ".new", path)
    print("epoch", done, flush=True)
while not options.resume and options.until == 10:
    time.sleep(0.05)
open("config.txt", "w").write("changed")
open("../saved/here.pt", "w").write("into a folder of which nothing is sent")
open("../empty/here.pt", "w").write("into a folder that was empty")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose program lies in a folder of its own, where the commands are typed."""
    here = tmp_path / "digits" / "examples"
    here.mkdir(parents=True)
    (here.parent / "cloudtrain.toml").write_text('[job]\nresume = ["--resume", "{newest:ckpt/*.pt}"]\n')
    (here / "count.py").write_text(COUNTS)
    (here / "helper.py").write_text('path = "state.json"\n')
    (here / "config.txt").write_text("as sent")
    (here / "unused.txt").write_text("as sent")
    (here.parent / "saved").mkdir()
    (here.parent / "empty").mkdir()
    (here.parent / "saved" / "old.pt").write_text("of an earlier training")
    (here.parent / ".gitignore").write_text("saved/\n")
    monkeypatch.chdir(here)
    return here.parent


def test_all_that_it_writes_comes_back_and_its_record_knows_the_command(
    cli: Callable[..., Typed], project: Path, store: Store
) -> None:
    told = cli("run", "--local", "--name", "own", "count.py", "--until", "2")
    assert "command  count.py --until 2   in examples/" in told.err and "model" not in told.err + told.out
    folder = project / "runs" / "own"
    made = {path.relative_to(folder).as_posix() for path in (folder / "examples").rglob("*") if path.is_file()}
    assert made == {f"examples/{name}" for name in ("ckpt/epoch-1.pt", "ckpt/epoch-2.pt", "state.json", "config.txt")}
    assert (folder / "examples/config.txt").read_text() == "changed"
    assert [path.name for path in (folder / "saved").iterdir()] == ["here.pt"] and (folder / "empty/here.pt").exists()
    receipt = json.loads((folder / "run.json").read_text())
    assert receipt["train"]["command"] == ["count.py", "--until", "2"] and receipt["train"]["cwd"] == "examples"
    assert receipt["train"]["model"] is None and receipt["train"]["module"] is None
    settings = (folder / "config.toml").read_text()
    assert 'command = ["count.py", "--until", "2"]' in settings and "model" not in settings
    for page in (
        (folder / "report.html").read_text(),
        cli("show", "own").out,
        cli("report", "own", "--format", "md").out,
    ):
        assert "count.py --until 2" in page and "Model" not in page and "model 3" not in page
    cli("verify", "own")
    again = cli("rerun", "own", "--yes", "--json")
    assert store.runs()[0].plan.spec.job == store.get("own").plan.spec.job
    assert json.loads(again.out.splitlines()[-1])["state"] == "succeeded"
    cli("run", "--config", str(folder / "config.toml"), "--local", "--name", "third")
    assert (project / "runs" / "third" / "examples" / "state.json").exists()


def test_it_goes_on_from_what_it_had_written(cli: Callable[..., Typed], project: Path, store: Store) -> None:
    cli("run", "--local", "--detach", "--name", "first", "count.py", "--until", "10")
    log = project / "runs" / "first" / "console.log"
    for _ in range(100):
        cli("logs", "first", "--no-follow")
        if log.exists() and b"epoch 10" in log.read_bytes():
            break
        time.sleep(0.05)
    cli("stop", "first", "--yes")
    assert store.get("first").state is RunState.STOPPED
    assert "run --resume first puts its results back and runs the same command again" in cli("show", "first").out
    told = cli("run", "--resume", "first", "--name", "rest")
    assert "from first, 11 files of its results" in " ".join(told.err.split())
    assert "then the same command with --resume ckpt/epoch-10.pt" in " ".join(told.err.split())
    log = project / "runs" / "rest" / "console.log"
    assert log.read_text().splitlines()[0] == "began after 10 resumed from ckpt/epoch-10.pt told 1"
    # What was put back is the run's own now, whole.
    assert len(list((project / "runs" / "rest" / "examples" / "ckpt").iterdir())) == 10
    assert json.loads((project / "runs" / "rest" / "run.json").read_text())["resumed_from"]["name"] == "first"
