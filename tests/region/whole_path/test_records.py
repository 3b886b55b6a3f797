"""verify and rerun as a user has them: real processes, real MNIST, runs in every place."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.region.whole_path.place import JOBS, Place

# Names are used by one test each: what is left of a run is found by its name, whoever runs beside it.
SUBSET = ("--", "--subset", "600", "--epochs", "1")


def receipt_of(place: Place, name: str) -> dict[str, Any]:
    return dict(json.loads((place.folder(name) / "run.json").read_bytes()))


def hashes(place: Place, name: str) -> dict[str, str]:
    """sha256 of each result, by the files themselves."""
    folder = place.folder(name)
    return {
        entry["name"]: hashlib.sha256((folder / entry["name"]).read_bytes()).hexdigest()
        for entry in receipt_of(place, name)["artifacts"]
    }


# This computer's receipts are those of all the cases below.
@pytest.mark.parametrize("place", [pytest.param("sshd", marks=pytest.mark.sshd), "emulated"], indirect=True)
def test_every_place_leaves_a_receipt_that_verify_agrees_with(place: Place, tmp_path: Path) -> None:
    name = f"kept-{place.name}"
    place.cli(*place.toy(name, "--lines", "3"))
    told = place.cli("verify", name).stdout.decode()
    assert "weights/best with space é.bin" in told and "match the receipt" in told
    assert not [line for line in told.splitlines() if line.startswith(("differs", "missing", "unchecked"))], told
    found = receipt_of(place, name)
    assert (found["status"], found["ended_how"], found["exit_code"]) == ("succeeded", "finished", 0)
    assert found["train"]["args"] == ["--lines", "3"] and found["goals"] == [{"goal": "epochs <= 15", "met": True}]

    text = (place.folder(name) / "run.json").read_text(encoding="utf-8")
    private = [str(tmp_path), str(place.home), str(Path.home()), "127.0.0.1", "localhost", platform.node()]
    user = getpass.getuser()
    assert [word for word in (*private, *([user] if user != "root" else [])) if word and word in text] == []

    if place.name == "emulated":
        machine, calls = found["machine"], found["aws_requests"]
        assert machine["instance_type"] == "g4dn.xlarge" and machine["instance_id"].startswith("i-")
        assert machine["image_id"].startswith("ami-") and machine["image_name"] and machine["zone"]
        done = [call["call"] for call in calls if call["error"] is None]
        assert done == ["RunInstances", "ModifyInstanceAttribute", "TerminateInstances"]
        assert all(call["id"] and call["at"] for call in calls)
        assert found["cost"]["price_date"] and found["cost"]["estimate"] > 0 and found["cost"]["price_per_hour"] > 0
        assert "123456789012" not in text

    place.cli("rerun", "--name", f"{name}-again", "--yes")
    again = receipt_of(place, f"{name}-again")
    assert (again["status"], again["rerun_of"]) == ("succeeded", {"name": name, "id": found["id"]})
    assert {key: again[key] for key in ("target", "train", "code")} == {
        k: found[k] for k in ("target", "train", "code")
    }
    assert again["machine"]["region"] == found["machine"]["region"]

    # A copy of the folder is as good on another computer, which says what it cannot know.
    shutil.copytree(place.folder(name), tmp_path / "stick")
    place.home = tmp_path / "another home"
    told = place.cli("verify", str(tmp_path / "stick" / "run.json")).stdout.decode()
    assert "this computer does not know the run" in told
    (tmp_path / "stick" / "weights" / "last.bin").write_bytes(b"other")
    done = place.cli("verify", str(tmp_path / "stick"), code=6)
    assert b"weights/last.bin" in done.stderr and b"cloudtrain pull" not in done.stderr


def test_verify_names_what_differs_and_pull_mends_it(here: Place) -> None:
    here.cli(*here.toy("spoilt-run"))
    folder = here.folder("spoilt-run")
    (folder / "weights" / "last.bin").unlink()
    (folder / "metrics.jsonl").write_text("better\n")
    (folder / "mine.txt").write_text("mine\n")
    done = here.cli("verify", code=6)
    told = done.stderr.decode()
    assert "weights/last.bin" in told and "metrics.jsonl" in told and "cloudtrain pull spoilt-run" in told
    found = json.loads(here.cli("verify", "--json", code=6).stdout)
    verdicts = {check["subject"]: check["verdict"] for check in found["checks"]}
    assert not found["ok"] and found["run"] == "spoilt-run"
    assert verdicts["weights/last.bin"] == "missing" and verdicts["metrics.jsonl"] == "differs"
    assert verdicts["mine.txt"] == "extra" and verdicts["console.log"] == verdicts["registry"] == "ok"
    here.cli("pull")
    assert json.loads(here.cli("verify", "--json").stdout)["ok"]
    # A command killed after the run's end was noted, and before its receipt was written.
    lagging = (folder / "run.json").read_text().replace('"status": "succeeded"', '"status": "pulling"')
    (folder / "run.json").write_text(lagging)
    assert b"writes the receipt again" in here.cli("verify", code=6).stderr
    here.cli("pull")
    here.cli("verify")
    (folder / "run.json").unlink()
    assert b"no receipt" in here.cli("verify", code=2).stderr
    assert b"no receipt" in here.cli("verify", "./nowhere", code=2).stderr
    here.cli("verify", "nobody", code=2)


@pytest.mark.mnist
def test_a_rerun_gives_the_same_bits(here: Place, mnist: Path) -> None:
    here.environment["CLOUDTRAIN_DATA"] = str(mnist)
    here.cli("run", *here.flags, "--name", "bits-1", "--seed", "5", "--device", "cpu", "--yes", *SUBSET)
    done = here.cli("rerun", "bits-1", "--name", "bits-2", "--yes")
    assert b"is what bits-1 ran" in done.stderr
    first, second = receipt_of(here, "bits-1"), receipt_of(here, "bits-2")
    ours, again = hashes(here, "bits-1"), hashes(here, "bits-2")
    same = [name for name in ours if name.startswith("weights/") or name == "predictions.csv"]
    assert len(same) == 5 and {name: ours[name] for name in same} == {name: again[name] for name in same}
    assert second["rerun_of"] == {"name": "bits-1", "id": first["id"]} and second["id"] != first["id"]
    for key in ("train", "settings", "data", "goals", "result", "code", "target"):
        assert second[key] == first[key], key
    assert first["settings"]["seed"] == 5 and first["settings"]["hyperparameters"]["optimiser"] == "adamw"
    assert first["data"]["sha256"]["t10k-labels-idx1-ubyte"].startswith("ff7bcfd4")
    assert first["code"]["archive"] and len(first["code"]["digest"]) == 64
    here.cli("verify", "bits-2")

    # The settings that it left train the same, too.
    here.cli("run", "--config", "runs/bits-2/config.toml", *here.flags, "--name", "bits-3", "--yes")
    third = hashes(here, "bits-3")
    assert {name: third[name] for name in same} == {name: ours[name] for name in same}
    assert receipt_of(here, "bits-3")["settings"] == first["settings"]


def test_a_rerun_runs_the_code_of_then(here: Place) -> None:
    job = here.cwd / "net"
    shutil.copytree(JOBS / "toy", job)
    here.cli("run", *here.flags, "--job", "net", "--name", "then-1", "--yes", "--", "--lines", "2")
    (job / "train.py").write_text("raise SystemExit('other code')\n")
    done = here.cli("rerun", "--plan")
    assert b"has changed since" in done.stderr and b"Plan for" in done.stderr
    assert here.cli("ls", "-q").stdout == b"then-1\n"
    done = here.cli("rerun", "then-1", "--name", "then-2", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["ok"]
    first, second = receipt_of(here, "then-1"), receipt_of(here, "then-2")
    assert second["code"]["digest"] == first["code"]["digest"]
    assert (here.folder("then-1") / "code.tar.gz").read_bytes() == (here.folder("then-2") / "code.tar.gz").read_bytes()
    assert second["train"] == first["train"] and second["train"]["args"] == ["--lines", "2"]
    # A repetition can be repeated.
    here.cli("rerun", "then-2", "--name", "then-3", "--plain")
    assert receipt_of(here, "then-3")["rerun_of"]["name"] == "then-2"

    (here.folder("then-1") / "code.tar.gz").unlink()
    done = here.cli("rerun", "then-1", code=2)
    assert b"its copy" in done.stderr and b"is gone" in done.stderr and b"nothing was started" in done.stderr
    assert sorted(here.cli("ls", "-q").stdout.split()) == [b"then-1", b"then-2", b"then-3"]


def test_the_receipt_is_whole_at_every_moment_of_a_run(here: Place) -> None:
    path = here.folder("whole-run") / "run.json"
    seen = set()
    with here.started(*here.toy("whole-run", "--lines", "20", "--pause", "0.05", "--epochs", "3")) as command:
        here.wait_for(path.exists)
        deadline = time.monotonic() + 60
        while "running" not in seen and time.monotonic() < deadline:
            seen.add(json.loads(path.read_bytes())["status"])
        command.send_signal(signal.SIGKILL)
        command.wait(30)
    assert "running" in seen
    left = receipt_of(here, "whole-run")
    assert left["status"] == "running" and left["ended_how"] is None and left["code"]["digest"]
    assert b"the run has not ended (running)" in here.cli("verify").stdout
    here.cli("logs")
    assert receipt_of(here, "whole-run")["id"] == left["id"]
    here.cli("verify")


def test_a_start_that_nobody_lived_to_note_keeps_its_own_code(here: Place) -> None:
    job = here.cwd / "net"
    shutil.copytree(JOBS / "toy", job)
    flags = ["--job", "net", "--name", "untold-run", "--yes", "-d"]
    here.cli("run", *here.flags, *flags, "--", "--lines", "20", "--pause", "0.1")
    sent = receipt_of(here, "untold-run")["code"]
    # As if the command had been killed after the start and before it was written down; then the code is edited.
    with sqlite3.connect(here.home / "state" / "registry.sqlite") as db:
        db.execute("UPDATE runs SET state = 'syncing' WHERE name = 'untold-run'")
    db.close()
    (job / "train.py").write_text("raise SystemExit('other code')\n")
    here.cli("logs")
    found = receipt_of(here, "untold-run")
    assert found["status"] == "succeeded" and found["code"] == sent
    here.cli("verify")
