"""The commands of every day, as a user types them: wait, logs --epochs and --raw, ls with filters, config, init."""

from __future__ import annotations

import json
import re

from tests.region.whole_path.place import Place


def test_wait_takes_detached_runs_to_their_ends(here: Place) -> None:
    here.cli(*here.toy("first", "--lines", "3", flags=("-d",)))
    here.cli(*here.toy("second", "--code", "3", flags=("-d",)))
    here.cli("wait", "first", "second", code=3)
    assert here.shown("first")["state"] == "succeeded"
    assert here.shown("second")["state"] == "failed"
    here.cli("wait", "first")  # one that has ended already

    here.cli(*here.toy("long", "--pause", "0.5", "--epochs", "500", flags=("-d",)))
    told = here.cli("wait", "long", "--timeout", "2s", code=8).stderr.decode()
    assert "cloudtrain logs long" in told
    assert here.shown("long")["state"] == "running"
    here.cli("wait", "long", "--timeout", "soon", code=2)
    here.cli("stop", "long", "--yes")

    assert here.cli("ls", "-q", "--status", "failed").stdout.split() == [b"second"]
    assert here.cli("ls", "-q", "-n", "1").stdout.split() == [b"long"]
    assert here.cli("ls", "-q", "--where", "ec2").stdout == b""
    listed = json.loads(here.cli("ls", "--json", "--status", "done").stdout)
    assert [run["name"] for run in listed["runs"]] == ["first"]


def test_the_epochs_of_a_run_and_its_raw_log(here: Place) -> None:
    here.cli(*here.toy("told", "--epochs", "3"))
    rows = here.cli("logs", "told", "--epochs").stderr.decode()
    assert "test acc" in rows and "1/3" in rows and "3/3" in rows
    assert "2/3" not in here.cli("logs", "told", "--epochs", "-n", "1").stderr.decode()
    log = (here.folder("told") / "console.log").read_bytes()
    assert here.cli("logs", "told", "--raw").stdout == log
    here.cli("logs", "told", "--raw", "--json", code=2)
    stamped = here.cli("logs", "told", "-t").stdout.split(b"\n")
    assert [line[9:] for line in stamped] == list(log.split(b"\n"))
    assert all(re.match(rb"\d\d:\d\d:\d\d ", line) for line in stamped[:-1])
    assert here.cli("logs", "told", "--since", "1h").stdout == log
    here.cli("logs", "told", "--since", "never", code=2)
    here.cli("logs", "told", "-t", "--epochs", code=2)


def test_settings_and_where_they_come_from(here: Place) -> None:
    told = here.cli("init").stderr.decode()
    assert "cloudtrain.toml" in told
    path = here.cwd / "cloudtrain.toml"
    here.cli("init", code=2)
    path.write_text(path.read_text(encoding="utf-8").replace("# model = 3 ", "model = 1 "), encoding="utf-8")
    shown = here.cli("config", "show", "--origin").stdout.decode()
    assert any(line.split()[:2] == ["model", "1"] and line.endswith("cloudtrain.toml") for line in shown.splitlines())
    here.environment["CLOUDTRAIN_MODEL"] = "2"
    settings = json.loads(here.cli("config", "show", "--json").stdout)["settings"]
    assert settings["model"] == {"value": 2, "origin": "CLOUDTRAIN_MODEL"}
    assert "max_cost" in here.cli("config", "show", "--all").stdout.decode()
    path.write_text("modle = 1\n", encoding="utf-8")
    assert "there is no setting 'modle'" in here.cli("config", "show", code=2).stderr.decode()
